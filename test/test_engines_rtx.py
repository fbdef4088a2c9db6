"""TensorRT for RTX itself, without a GPU: what it parses, builds and refuses. Only execution on a card is left."""

from __future__ import annotations

import json

import pytest
import torch

from rfdetr_foundationpose.accel import BackendUnavailable
from rfdetr_foundationpose.engines.engine_folder import MANIFEST
from rfdetr_foundationpose.engines.onnx_export import export_onnx
from rfdetr_foundationpose.engines.onnx_file import OUTPUTS
from rfdetr_foundationpose.engines.onnx_fp16 import ranking_nodes, to_float16
from rfdetr_foundationpose.engines.tensorrt_build import build_engine
from rfdetr_foundationpose.engines.tensorrt_library import choose_library
from rfdetr_foundationpose.engines.tensorrt_program import invalidity
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from support.cli_runs import run_cli
from support.detector_models import SEG_TINY, TINY, loaded

pytest.importorskip("tensorrt_rtx")
SIZE = 64
SHAPES = dict.fromkeys(("rendered", "observed"), (4, 6, SIZE, SIZE))


@pytest.fixture(scope="module")
def library():
    return choose_library("tensorrt_rtx")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """FP32 ONNX of small networks, by role."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("onnx")
    made = {}
    for role, kind in (("refiner", RefineNet), ("scorer", ScoreNet)):
        module = kind(width=0.125, crop_size=SIZE).eval()
        made[role] = export_onnx(module, folder / f"{role}.onnx", outputs=OUTPUTS[role], size=SIZE).read_bytes()
    return made


def test_it_builds_anywhere_for_the_gpus_that_it_names(library):
    assert library.builds_anywhere and library.name == "tensorrt_rtx"
    assert {"sm_75", "sm_80", "sm_86", "sm_89", "sm_120"} <= set(library.targets)
    assert "no engines for sm_90" in library.refusal("sm_90"), "Hopper"
    assert library.refusal("sm_89") == ""


@pytest.mark.parametrize("role", ["refiner", "scorer"])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_refiner_and_scorer_are_parsed_and_built(role, precision, library, models):
    engine = build_engine(models[role], SHAPES, precision, library, targets=["sm_89"], role=role)
    assert len(engine) > 100_000
    # The header of an engine is checked without a GPU: what is none is told from what is one.
    runtime = library.trt.Runtime(library.logger)
    assert "malformed engine" in invalidity(library, runtime, b"x" * 4096)
    assert "malformed engine" not in invalidity(library, runtime, engine)


def test_one_engine_serves_several_gpus_for_little_more(library, models):
    sizes = [
        len(build_engine(models["refiner"], SHAPES, "fp16", library, targets=targets))
        for targets in (["sm_89"], ["sm_86", "sm_89", "sm_120"])
    ]
    assert sizes[1] < 1.1 * sizes[0]


def test_layers_that_rank_are_fp32_in_the_parsed_network(library, models):
    """Strongly typed: what the parsed network says is what the engine does."""
    trt = library.trt
    model = to_float16(models["scorer"], ranking_nodes(models["scorer"]))
    builder = trt.Builder(library.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, library.logger).parse(model)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    products = [layer.get_output(0).dtype for layer in layers if layer.type == trt.LayerType.MATRIX_MULTIPLY]
    assert products[-5:] == [trt.DataType.FLOAT] * 5, "projection, logits, sums, projection, linear"
    assert products[0] == trt.DataType.HALF
    assert {layer.get_output(0).dtype for layer in layers if layer.type == trt.LayerType.CONVOLUTION} == {
        trt.DataType.HALF
    }


def test_what_it_cannot_parse_or_build_is_said(library, models):
    with pytest.raises(BackendUnavailable, match="cannot parse the refiner's ONNX"):
        build_engine(b"not onnx", SHAPES, "fp32", library, role="refiner")
    with pytest.raises(BackendUnavailable, match="no engines for sm_90; it has sm_75"):
        build_engine(models["refiner"], SHAPES, "fp16", library, targets=["sm_90"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_an_engine_for_the_gpu_at_hand_needs_one(library, models):
    runtime = library.trt.Runtime(library.logger)
    engine = build_engine(models["refiner"], SHAPES, "fp16", library, targets=["sm_89"])
    assert "no usable GPU or driver" in invalidity(library, runtime, engine)
    assert runtime.deserialize_cuda_engine(engine) is None


@pytest.mark.parametrize("variant, config", [("nano", TINY), ("seg-nano", SEG_TINY)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_detector_is_parsed_and_built(variant, config, precision, library, tmp_path):
    from rfdetr_foundationpose.detect.onnx_detector import detector_source

    source = detector_source(loaded(variant, **config).model, tmp_path)
    engine = source.build(1, precision, library, ["sm_89"])
    assert len(engine) > 100_000
    assert len(source.spec.outputs) == (3 if variant == "seg-nano" else 2)


def test_build_engines_as_a_user_runs_it(weights, tmp_path, capsys):
    arguments = ["--weights", str(weights), "--target", "sm_89,sm_120", "--out", str(tmp_path / "engines")]
    arguments += ["--batches", "1,2", "--no-detector", "--scenes", "0"]
    code, text = run_cli(capsys, "build-engines", *arguments)
    assert code == 0, text
    assert text.count("built in") == 5 and "4 engines built" in text and "pose.engines to" in text
    entries = json.loads((tmp_path / "engines" / MANIFEST).read_text())["engines"]
    assert [(e["role"], e["shapes"]["rendered"][0]) for e in entries] == [
        ("refiner", 1),
        ("refiner", 2),
        ("scorer", 1),
        ("scorer", 2),
    ]
    said = {e["role"]: e["about"] for e in entries}
    assert said == {
        "refiner": "refiner.safetensors (test refiner)",
        "scorer": "scorer.safetensors (test scorer)",
    }
    assert all(e["targets"] == ["sm_89", "sm_120"] and e["library"] == "tensorrt_rtx" for e in entries)
    code, text = run_cli(capsys, "build-engines", *arguments)
    assert code == 0 and "0 engines built in 0 s, 4 kept" in text


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--target", "sm_90"], "--target sm_90: TensorRT for RTX .* has no engines for it; its targets are sm_75"),
        (["--target", ","], "names no GPU"),
        (["--target", "sm_89", "--library", "trt"], "must be one of auto, tensorrt, tensorrt_rtx"),
        (["--target", "sm_89", "--precision", "int8"], "must be fp16 or fp32"),
        (["--target", "sm_89", "--batches", "1,two"], "--batches"),
    ],
)
def test_what_build_engines_cannot_do_is_one_sentence(arguments, said, weights, tmp_path, capsys):
    import re

    code, text = run_cli(capsys, "build-engines", "--weights", str(weights), "--out", str(tmp_path), *arguments)
    assert code == 2 and re.search(said, text), text
    assert "Traceback" not in text


def test_a_scorer_that_fp16_breaks_is_refused_before_its_engines_are_built(weights, tmp_path, capsys, monkeypatch):
    from rfdetr_foundationpose.evaluate import export_check

    monkeypatch.setattr(export_check, "MIN_TAU", 1.01)
    arguments = [
        "--weights",
        str(weights),
        "--target",
        "sm_89",
        "--out",
        str(tmp_path),
        "--batches",
        "1",
        "--no-detector",
    ]
    code, text = run_cli(capsys, "build-engines", *arguments)
    assert code == 2 and "the scorer in FP16 is refused: the order of its scores has tau" in text
    assert not (tmp_path / MANIFEST).exists()
