"""The calls made to TensorRT 8.6, 10 and 11 against a recording stand-in of its module; which library is taken."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from rfdetr_foundationpose.accel import BackendUnavailable, EngineOptions, RunnerContext, make_runner
from rfdetr_foundationpose.engines.onnx_export import export_onnx
from rfdetr_foundationpose.engines.onnx_file import OUTPUTS
from rfdetr_foundationpose.engines.onnx_fp16 import has_float16
from rfdetr_foundationpose.engines.tensorrt_build import build_engine
from rfdetr_foundationpose.engines.tensorrt_library import Library, choose_library, import_library
from rfdetr_foundationpose.engines.tensorrt_program import invalidity
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet

SIZE = 64


class Recorder:
    """A stand-in of the tensorrt module that records the builder calls, with the flags that a version has."""

    def __init__(self, version: str, *, parses: bool = True, builds: bool = True, layers=()) -> None:
        major, minor = (int(p) for p in version.split(".")[:2])
        self.__version__ = version
        self.flags: list[str] = []
        self.creation = 0
        self.profiles: list[dict[str, tuple[tuple[int, ...], ...]]] = []
        self.model = b""
        self.workspace = 0
        self.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)
        self.BuilderFlag = SimpleNamespace(FP16="FP16", OBEY_PRECISION_CONSTRAINTS="OBEY")
        self.LayerType = SimpleNamespace(SHAPE="shape", CONSTANT="constant")
        self.DataType = SimpleNamespace(FLOAT="float", HALF="half", INT64="int64")
        self.layers = list(layers)
        if (major, minor) >= (9, 1):
            self.NetworkDefinitionCreationFlag.STRONGLY_TYPED = 1
        if major >= 11:
            del self.NetworkDefinitionCreationFlag.EXPLICIT_BATCH
            del self.BuilderFlag.FP16
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        recorder = self

        class Logger:
            WARNING = "warning"

            def __init__(self, level: str) -> None: ...

        class Builder:
            def __init__(self, logger: Logger) -> None: ...

            def create_builder_config(self) -> SimpleNamespace:
                return SimpleNamespace(
                    set_flag=recorder.flags.append,
                    set_memory_pool_limit=lambda pool, size: setattr(recorder, "workspace", size),
                    add_optimization_profile=recorder.profiles.append,
                )

            def create_network(self, flags: int) -> SimpleNamespace:
                recorder.creation = flags
                return SimpleNamespace(num_layers=len(recorder.layers), get_layer=recorder.layers.__getitem__)

            def create_optimization_profile(self) -> dict:
                profile = type("Profile", (dict,), {})()
                profile.set_shape = lambda name, *shapes: profile.__setitem__(name, shapes)
                return profile

            def build_serialized_network(self, network: object, config: object) -> bytearray | None:
                return bytearray(b"engine") if builds else None

        class OnnxParser:
            num_errors = 2

            def __init__(self, network: object, logger: Logger) -> None: ...

            def parse(self, model: bytes) -> bool:
                recorder.model = model
                return parses

            def get_error(self, i: int) -> str:
                return f"error {i}"

        self.Logger, self.Builder, self.OnnxParser = Logger, Builder, OnnxParser


class Layer:
    """A layer of a parsed network, which remembers what it is held to."""

    def __init__(self, name: str, kind: str = "matrix", dtype: str = "float") -> None:
        self.name, self.type, self.num_outputs, self.precision = name, kind, 1, None
        self._output = SimpleNamespace(dtype=dtype)
        self.output_type = None

    def get_output(self, _: int) -> SimpleNamespace:
        return self._output

    def set_output_type(self, _: int, dtype: str) -> None:
        self.output_type = dtype


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("onnx")
    made = {}
    for role, kind in (("refiner", RefineNet), ("scorer", ScoreNet)):
        module = kind(width=0.125, crop_size=SIZE).eval()
        for p in ("fp32", "fp16"):
            path = folder / f"{role}_{p}.onnx"
            export_onnx(module, path, outputs=OUTPUTS[role], precision=p, size=SIZE)
            made[role, p] = path.read_bytes()
    return made


SHAPES = dict.fromkeys(("rendered", "observed"), (4, 6, SIZE, SIZE))


@pytest.mark.parametrize(
    "version, creation, fp16_flag",
    [("8.6.1", 1 << 0, True), ("10.9.0", 1 << 1, False), ("11.0.0", 1 << 1, False)],
)
@pytest.mark.parametrize("source", ["fp32", "fp16"])
def test_precision_is_asked_for_as_each_version_wants_it(version, creation, fp16_flag, source, files):
    trt = Recorder(version)
    library = Library("tensorrt", trt)
    assert build_engine(files["refiner", source], SHAPES, "fp16", library, role="refiner") == b"engine"
    assert trt.creation == creation
    assert trt.flags == (["FP16"] if fp16_flag else [])
    assert has_float16(trt.model) == (source == "fp16" or not fp16_flag), "strongly typed: the graph must be FP16"
    assert [dict(p) for p in trt.profiles] == [{name: (shape,) * 3 for name, shape in SHAPES.items()}]
    assert trt.workspace == 1 << 30


def test_a_fixed_model_has_no_profile(files):
    trt = Recorder("10.9.0")
    build_engine(files["refiner", "fp32"], SHAPES, "fp32", Library("tensorrt", trt), fixed=True)
    assert trt.profiles == []


def test_fp32_stays_fp32(files):
    for version in ("8.6.1", "10.9.0", "11.0.0"):
        trt = Recorder(version)
        build_engine(files["refiner", "fp32"], SHAPES, "fp32", Library("tensorrt", trt))
        assert trt.flags == [] and not has_float16(trt.model)


def test_where_a_flag_decides_the_ranking_of_a_scorer_is_held_to_fp32(files):
    """TensorRT 8: what the builder flag makes FP16 would otherwise include it."""
    layers = [
        Layer("/network/encoderA/conv"),
        Layer("/att_cross/Add"),
        Layer("/att_cross/Shape", "shape", "int64"),
        Layer("/att_cross/Gather", dtype="int64"),
        Layer("/linear/MatMul"),
    ]
    trt = Recorder("8.6.1", layers=layers)
    build_engine(files["scorer", "fp32"], SHAPES, "fp16", Library("tensorrt", trt), role="scorer")
    assert [layer.name for layer in layers if layer.precision == "float"] == [layers[1].name, layers[4].name]
    assert all(layer.output_type == layer.precision for layer in layers)
    assert trt.flags == ["FP16", "OBEY"]
    with pytest.raises(BackendUnavailable, match="FP16 is unsafe"):
        trt = Recorder("8.6.1", layers=layers[:1])
        build_engine(files["scorer", "fp32"], SHAPES, "fp16", Library("tensorrt", trt), role="scorer")


def test_tensorrts_own_words_reach_the_user(files):
    model = files["refiner", "fp32"]
    with pytest.raises(BackendUnavailable, match=r"TensorRT 10.9.0 cannot parse the refiner's ONNX: error 0; error 1"):
        build_engine(model, SHAPES, "fp16", Library("tensorrt", Recorder("10.9.0", parses=False)), role="refiner")
    with pytest.raises(BackendUnavailable, match="could not build an engine"):
        build_engine(model, SHAPES, "fp16", Library("tensorrt", Recorder("10.9.0", builds=False)))


@pytest.mark.parametrize(
    "module, reason",
    [
        (None, "tensorrt is not installed"),
        (SimpleNamespace(__version__="10.9.0"), "stub without OnnxParser"),
        (SimpleNamespace(__version__="8.2.1", OnnxParser=object), "8.2.1 is too old"),
    ],
)
def test_a_missing_or_useless_tensorrt_is_named(module, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(BackendUnavailable, match=reason):
        import_library("tensorrt")


class Rtx(Recorder):
    """As TensorRT for RTX: it knows the GPUs that it builds for."""

    ComputeCapability = SimpleNamespace(__members__={"NONE": 0, "CURRENT": 1, "SM89": 89, "SM75": 75, "SM120": 120})


@pytest.fixture
def both(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", Recorder("10.9.0"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", Rtx("1.7.1"))


def test_of_two_libraries_the_one_that_knows_the_gpu_is_taken(both, monkeypatch):
    def taken(*arguments) -> str:
        return choose_library(*arguments).name

    assert taken("auto", "sm_89") == "tensorrt", "it knows every GPU"
    assert taken("tensorrt_rtx", "sm_89") == "tensorrt_rtx"
    assert taken() == "tensorrt_rtx", "without a GPU only this one builds"
    with pytest.raises(BackendUnavailable, match="TensorRT 10.9.0 builds engines only on the GPU"):
        choose_library("tensorrt")
    with pytest.raises(
        BackendUnavailable, match="TensorRT for RTX 1.7.1 has no engines for sm_90; it has sm_75, sm_89"
    ):
        choose_library("tensorrt_rtx", "sm_90")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    library = choose_library("auto", "sm_89")
    assert library.name == "tensorrt_rtx" and "tensorrt is not installed" in library.why
    with pytest.raises(BackendUnavailable, match="tensorrt is not installed.*no engines for sm_90"):
        choose_library("auto", "sm_90")
    with pytest.raises(BackendUnavailable, match="must be one of auto, tensorrt, tensorrt_rtx"):
        choose_library("trt")


def test_an_engine_that_does_not_run_here_is_told_with_the_librarys_reason():
    flags = SimpleNamespace(__members__={"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2})
    trt = SimpleNamespace(
        __version__="1.7", EngineValidity=SimpleNamespace(INVALID=2), EngineInvalidityDiagnostics=flags
    )
    library = Library("tensorrt_rtx", trt)

    def said(validity: int, diagnostics: int) -> str:
        runtime = SimpleNamespace(get_engine_validity=lambda _: (validity, diagnostics))
        return invalidity(library, runtime, b"engine")

    assert said(0, 0) == said(1, 0) == "", "valid, and valid but slower than it could be"
    assert said(2, 3) == "version mismatch, unsupported cc"
    assert "gives no reason" in said(2, 0)
    assert invalidity(library, SimpleNamespace(), b"engine") == "", "classic TensorRT does not tell before it loads"


def test_a_usable_tensorrt_still_needs_a_gpu(both, tmp_path):
    module = RefineNet(width=0.125, crop_size=SIZE).eval()
    context = RunnerContext(crop=(6, SIZE), label="refiner", engines=EngineOptions(cache=tmp_path))
    runner = make_runner(module, "tensorrt", context)
    assert runner.name != "tensorrt" and "TensorRT needs a CUDA device" in runner.degraded


@pytest.mark.gpu
def test_gpu_without_a_library_that_knows_it_gives_way_to_cuda_graph(monkeypatch, said):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    if torch.cuda.get_device_capability() != (9, 0):  # an H200: the library itself refuses it
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    module = RefineNet(width=0.125, crop_size=SIZE).eval()
    runner = make_runner(module, "tensorrt", RunnerContext("cuda", (6, SIZE), "refiner"), batches=(2,))
    assert runner.name == "cuda_graph" and "tensorrt is not installed" in runner.degraded
    assert any("trying cuda_graph" in line for line in said)
