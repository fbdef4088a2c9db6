"""Engine cache for real; the calls made to TensorRT 8.6, 10 and 11 against a recording stand-in of its module."""

from __future__ import annotations

import dataclasses
import os
import sys
from types import SimpleNamespace

import pytest
import torch

from rfdetr_foundationpose.accel import BackendUnavailable, RunnerContext, make_runner
from rfdetr_foundationpose.accel import tensorrt as backend
from rfdetr_foundationpose.accel.engine_cache import EngineCache, EngineKey, driver_version, shape_strings
from rfdetr_foundationpose.accel.onnx_export import OUTPUTS, export_onnx
from rfdetr_foundationpose.accel.onnx_fp16 import has_float16
from rfdetr_foundationpose.pose.networks import RefineNet

SIZE = 64
KEY = EngineKey(
    network="refiner",
    gpu="NVIDIA H200",
    compute_capability="9.0",
    driver="570.86.15",
    tensorrt="10.9.0",
    precision="fp16",
    onnx_sha256="ab" * 32,
    shapes=shape_strings({"rendered": (2, 6, 160, 160), "observed": (2, 6, 160, 160)}),
)
ENGINE = bytes(range(256)) * 40 + b"\n\n" + b"tail"


def test_an_engine_comes_back_byte_for_byte(tmp_path):
    cache = EngineCache(tmp_path / "engines")
    assert cache.load(KEY) is None and cache.reason == "not built yet"
    path = cache.store(KEY, ENGINE)
    assert cache.load(KEY) == ENGINE and cache.reason == ""
    assert path.name.startswith("refiner-fp16-abababab-") and "NVIDIA-H200-sm9.0" in path.name
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"driver": "580.1"}, "driver 570.86.15 → 580.1"),
        ({"tensorrt": "11.0.0"}, "tensorrt 10.9.0 → 11.0.0"),
        ({"onnx_sha256": "ab" * 31 + "cd"}, "onnx_sha256"),
        ({"gpu": "NVIDIA-H200"}, "gpu NVIDIA H200 → NVIDIA-H200"),
    ],
)
def test_an_engine_for_something_else_is_not_used(change, reason, tmp_path):
    cache = EngineCache(tmp_path)
    cache.store(KEY, ENGINE)
    assert cache.load(dataclasses.replace(KEY, **change)) is None
    assert reason in cache.reason


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "fp32"},
        {"compute_capability": "8.9"},
        {"shapes": shape_strings({"rendered": (4, 6, 160, 160), "observed": (4, 6, 160, 160)})},
        {"network": "scorer"},
        {"onnx_sha256": "cd" * 32},
    ],
)
def test_different_engines_live_side_by_side(change, tmp_path):
    cache = EngineCache(tmp_path)
    other = dataclasses.replace(KEY, **change)
    cache.store(KEY, ENGINE)
    assert cache.load(other) is None and cache.reason == "not built yet"
    cache.store(other, b"other")
    assert cache.load(KEY) == ENGINE and cache.load(other) == b"other"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-5],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: data[40:],
        lambda data: data.replace(b'"size"', b'"siz"'),
        lambda data: data.replace(b'"gpu"', b'"cpu"'),
    ],
    ids=["truncated", "bit flip", "longer", "empty", "no header", "no size", "no gpu"],
)
def test_a_damaged_file_is_noticed_and_rebuilt(damage, tmp_path, said):
    cache = EngineCache(tmp_path)
    path = cache.store(KEY, ENGINE)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.load(KEY) is None
    assert "damaged" in cache.reason
    assert cache.get_or_build(KEY, lambda: b"rebuilt") == b"rebuilt"
    assert "damaged" in said[0] and "building" in said[0] and path.name in said[1]
    assert cache.get_or_build(KEY, lambda: pytest.fail("must come from the cache")) == b"rebuilt"
    assert len(said) == 2


def test_a_build_that_fails_leaves_the_old_file(tmp_path, monkeypatch, said):
    cache = EngineCache(tmp_path)
    path = cache.store(KEY, ENGINE)
    newer = dataclasses.replace(KEY, driver="580.1")

    def killed(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", killed)
    assert cache.get_or_build(newer, lambda: b"new") == b"new"
    assert "not cached: disk full" in said[-1]
    assert list(tmp_path.iterdir()) == [path]
    assert cache.load(KEY) == ENGINE


def test_driver_version_is_told_or_unknown():
    version = driver_version()
    assert version == "unknown" or version[0].isdigit() or version.startswith("cuda-")


class Recorder:
    """A stand-in of the tensorrt module that records the builder calls, with the flags that a version has."""

    def __init__(self, version: str, *, parses: bool = True, builds: bool = True) -> None:
        major, minor = (int(p) for p in version.split(".")[:2])
        self.__version__ = version
        self.flags: list[str] = []
        self.creation = 0
        self.profiles: list[dict[str, tuple[tuple[int, ...], ...]]] = []
        self.model = b""
        self.workspace = 0
        self.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)
        self.BuilderFlag = SimpleNamespace(FP16="FP16")
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

            def create_network(self, flags: int) -> str:
                recorder.creation = flags
                return "network"

            def create_optimization_profile(self) -> dict:
                profile = type("Profile", (dict,), {})()
                profile.set_shape = lambda name, *shapes: profile.__setitem__(name, shapes)
                return profile

            def build_serialized_network(self, network: str, config: object) -> bytearray | None:
                return bytearray(b"engine") if builds else None

        class OnnxParser:
            num_errors = 2

            def __init__(self, network: str, logger: Logger) -> None: ...

            def parse(self, model: bytes) -> bool:
                recorder.model = model
                return parses

            def get_error(self, i: int) -> str:
                return f"error {i}"

        self.Logger, self.Builder, self.OnnxParser = Logger, Builder, OnnxParser


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(0)
    module = RefineNet(width=0.125, crop_size=SIZE).eval()
    folder = tmp_path_factory.mktemp("onnx")
    return {
        p: export_onnx(module, folder / f"{p}.onnx", outputs=OUTPUTS["refiner"], precision=p, size=SIZE)
        for p in ("fp32", "fp16")
    }


@pytest.mark.parametrize(
    "version, creation, fp16_flag",
    [("8.6.1", 1 << 0, True), ("10.9.0", 1 << 1, False), ("11.0.0", 1 << 1, False)],
)
@pytest.mark.parametrize("source", ["fp32", "fp16"])
def test_precision_is_asked_for_as_each_version_wants_it(version, creation, fp16_flag, source, files, said):
    trt = Recorder(version)
    assert backend.build_engine(files[source], "fp16", 4, trt) == b"engine"
    assert trt.creation == creation
    assert trt.flags == (["FP16"] if fp16_flag else [])
    assert has_float16(trt.model) == (source == "fp16" or not fp16_flag), "strongly typed: the graph must be FP16"
    shape = (4, 6, SIZE, SIZE)
    assert [dict(p) for p in trt.profiles] == [{"rendered": (shape,) * 3, "observed": (shape,) * 3}]
    assert trt.workspace == 1 << 30
    assert version in said[0] and ("FP16 flag" if fp16_flag else "strongly typed") in said[0]


def test_fp32_stays_fp32(files):
    for version in ("8.6.1", "10.9.0", "11.0.0"):
        trt = Recorder(version)
        backend.build_engine(files["fp32"], "fp32", 1, trt)
        assert trt.flags == [] and not has_float16(trt.model)


def test_tensorrts_own_words_reach_the_user(files):
    with pytest.raises(BackendUnavailable, match=r"cannot parse fp32.onnx: error 0; error 1"):
        backend.build_engine(files["fp32"], "fp16", 1, Recorder("10.9.0", parses=False))
    with pytest.raises(BackendUnavailable, match="could not build an engine"):
        backend.build_engine(files["fp32"], "fp16", 1, Recorder("10.9.0", builds=False))


@pytest.mark.parametrize(
    "module, reason",
    [
        (None, "TensorRT is not installed"),
        (SimpleNamespace(__version__="10.9.0"), "stub without OnnxParser"),
        (SimpleNamespace(__version__="8.2.1", OnnxParser=object), "8.2.1 is too old"),
    ],
)
def test_a_missing_or_useless_tensorrt_is_named(module, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(BackendUnavailable, match=reason):
        backend.import_tensorrt()


def test_a_usable_tensorrt_still_needs_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", Recorder("10.9.0"))
    assert backend.import_tensorrt().__version__ == "10.9.0"
    module = RefineNet(width=0.125, crop_size=SIZE).eval()
    runner = make_runner(module, "tensorrt", RunnerContext(crop=(6, SIZE), label="refiner", cache_dir=tmp_path))
    assert runner.name != "tensorrt" and "TensorRT needs a CUDA device" in runner.degraded


@pytest.mark.gpu
def test_an_absent_tensorrt_gives_way_to_cuda_graph(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    module = RefineNet(width=0.125, crop_size=SIZE).eval()
    runner = make_runner(module, "tensorrt", RunnerContext("cuda", (6, SIZE), "refiner"), batches=(2,))
    assert runner.name == "cuda_graph" and "TensorRT is not installed" in runner.degraded
