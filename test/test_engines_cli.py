"""``export`` and ``build-engines`` as a user runs them, with small weights of our own format."""

from __future__ import annotations

import onnx
import pytest
import torch

from rfdetr_foundationpose.engines.onnx_export import compare_with_torch
from rfdetr_foundationpose.engines.onnx_file import OUTPUTS, inspect_onnx
from rfdetr_foundationpose.evaluate import export_check
from rfdetr_foundationpose.evaluate.export_check import ExportCheck, FileCheck, reference_outputs
from rfdetr_foundationpose.evaluate.networks import load_networks
from rfdetr_foundationpose.pose import checkpoints
from rfdetr_foundationpose.pose.example_crops import Crops, hypothesis_crops
from support.cli_runs import run_cli

pytest.importorskip("onnxruntime")


NO_SCENES = ["--no-detector", "--scenes", "0"]


def test_export_writes_four_files(weights, tmp_path, capsys):
    code, text = run_cli(capsys, "export", "--weights", str(weights), "--out", str(tmp_path), *NO_SCENES)
    assert code == 0, text
    names = {"refiner_fp32.onnx", "refiner_fp16.onnx", "scorer_fp32.onnx", "scorer_fp16.onnx"}
    assert {p.name for p in tmp_path.glob("*.onnx")} == names
    assert "test refiner" in text and text.count("written, not") >= 4
    refiner, _ = checkpoints.load_refiner(weights / "refiner.safetensors")
    crops = hypothesis_crops(0, "refiner").first(2)
    found = compare_with_torch(tmp_path / "refiner_fp32.onnx", refiner, (crops.rendered, crops.observed))
    assert max(found.values()) < 1e-4
    assert inspect_onnx(tmp_path / "scorer_fp16.onnx").batch is None


def test_export_at_a_fixed_batch(weights, tmp_path, capsys):
    arguments = ["--weights", str(weights), "--out", str(tmp_path), "--precision", "fp32", "--batch", "3"]
    code, text = run_cli(capsys, "export", *arguments, "--opset", "18", "--no-detector")
    assert code == 0 and text.count("ok") >= 2, text
    assert {p.name for p in tmp_path.glob("*.onnx")} == {"refiner_fp32_b3.onnx", "scorer_fp32_b3.onnx"}
    path = tmp_path / "refiner_fp32_b3.onnx"
    assert inspect_onnx(path).batch == 3
    assert [o.version for o in onnx.load(str(path)).opset_import if o.domain == ""] == [18]


def test_a_file_that_differs_is_refused_and_not_left_behind(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(export_check.TOLERANCE, "fp16", 1e-9)
    arguments = ["--weights", str(weights), "--out", str(tmp_path), "--batch", "2", "--no-detector"]
    code, text = run_cli(capsys, "export", *arguments)
    assert code == 1 and text.count("refused:") == 2
    assert {p.name for p in tmp_path.glob("*.onnx")} == {"refiner_fp32_b2.onnx", "scorer_fp32_b2.onnx"}


def test_a_scorer_that_is_not_finite_or_out_of_order_is_refused(tmp_path, monkeypatch):
    nothing = torch.zeros(252, 6, 1, 1)
    crops = Crops("mug, view 1", nothing, nothing)
    right = torch.linspace(-797, -794, 252)[torch.randperm(252, generator=torch.Generator().manual_seed(1))]

    def checked(answer: torch.Tensor) -> ExportCheck:
        monkeypatch.setattr(export_check, "run_onnx", lambda *_: (answer,))
        check = FileCheck(tmp_path / "x.onnx", "fp16")
        check(crops, (right,))
        return check.result()

    assert checked(right).reasons == () and checked(right * 1.5 + 7).reasons == (), "the order is what counts"
    spoiled = right.clone()
    spoiled[3] = float("nan")
    assert checked(spoiled).reasons == ("1 of 252 outputs are not finite (mug, view 1)",)
    shuffled = right + right.std() * torch.randn(252, generator=torch.Generator().manual_seed(0))
    assert "the order of its scores has tau 0." in checked(shuffled).reasons[0]
    assert checked(torch.full_like(right, 5.0)).reasons, "all alike: no order at all"


@pytest.mark.slow
@pytest.mark.parametrize("scene", [0, 1])
def test_the_shipped_scorer_survives_fp16(scene, tmp_path):
    """On all 252 hypotheses of real meshes, where its attention leaves FP16's range."""
    from rfdetr_foundationpose.engines.onnx_export import export_onnx

    networks = load_networks("default", False)
    scorer = networks.modules["scorer"]
    path = export_onnx(scorer, tmp_path / "scorer.onnx", outputs=OUTPUTS["scorer"], precision="fp16")
    crops = hypothesis_crops(scene, "scorer")
    expected = reference_outputs(scorer, crops)
    check = FileCheck(path, "fp16")
    check(crops, expected)
    assert check.result().reasons == () and check.tau >= 0.99
    with torch.inference_mode():
        embeddings = scorer.encode(crops.rendered[:42], crops.observed[:42])
        projected = torch.nn.functional.linear(
            embeddings, scorer.att_cross.in_proj_weight, scorer.att_cross.in_proj_bias
        )
        q, k, _ = (p.unflatten(1, (4, -1)).transpose(0, 1) for p in projected.chunk(3, dim=1))
        largest = (q @ k.transpose(1, 2)).abs().max().item()
    assert largest > 65504, "else nothing is at stake here"


def test_missing_weights_and_bad_arguments_are_said(tmp_path, capsys):
    code, text = run_cli(capsys, "export", "--weights", str(tmp_path), "--out", str(tmp_path / "out"))
    assert code == 2 and "no refiner weights" in text
    code, text = run_cli(capsys, "export", "--weights", str(tmp_path), "--precision", "int8")
    assert code == 2 and "must be fp32, fp16 or both" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_build_engines_says_why_it_cannot(weights, capsys):
    code, text = run_cli(capsys, "build-engines", "--weights", str(weights), "--batches", "1,2")
    assert code == 2
    assert "build-engines: no CUDA device is visible to torch; name the GPUs that the engines are for" in text


def test_build_engines_checks_the_files_first(weights, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx")
    run_cli(capsys, "export", "--weights", str(weights), "--out", str(tmp_path), "--precision", "fp32", *NO_SCENES)
    files = ["--refiner-onnx", str(tmp_path / "scorer_fp32.onnx"), "--scorer-onnx", str(tmp_path / "scorer_fp32.onnx")]
    code, text = run_cli(capsys, "build-engines", *files, "--batches", "2", "--target", "sm_89")
    assert code == 2 and "is a scorer, given as --refiner-onnx" in text
