"""A runner that was held to FP32 is not held to it again by the next start, unless anything has changed since."""

from __future__ import annotations

from functools import cache

import onnx
import pytest
import torch

from rfdetr_foundationpose.accel import BackendUnavailable, EngineOptions, RunnerContext, make_runner, verdict
from rfdetr_foundationpose.accel.base import Step
from rfdetr_foundationpose.pose.networks import RefineNet

pytest.importorskip("onnxruntime")
CHECKED = "*.checked.json"


@cache
def network(seed: int = 0) -> RefineNet:
    torch.manual_seed(seed)
    return RefineNet(0.125).eval()


class Examples:
    """Crops, and how often they were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, role: str) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += 1
        generator = torch.Generator().manual_seed(3)
        a, b = (torch.rand(24, 6, 160, 160, generator=generator) for _ in range(2))
        return a, b


def start(folder, *, module=None, backend="onnxruntime", step=None) -> tuple[int, str]:
    """How often a start asked for crops, and what runs."""
    examples = Examples()
    context = RunnerContext(label="refiner", engines=EngineOptions(cache=folder), examples=examples, step=step)
    runner = make_runner(network() if module is None else module, backend, context)
    return examples.asked, runner.name


def the_file(folder):
    (file,) = (folder / "onnx").glob(CHECKED)
    return file


@pytest.mark.parametrize("backend", ["onnxruntime", "traced", "half"])
def test_the_second_start_renders_nothing(backend, tmp_path):
    assert start(tmp_path, backend=backend) == (1, backend)
    written = the_file(tmp_path).stat().st_mtime_ns
    assert start(tmp_path, backend=backend) == (0, backend)
    assert the_file(tmp_path).stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"format": 1, "passed": "yes"}', None, "folder"]
)
def test_a_damaged_or_foreign_file_is_ignored_and_rewritten(content, tmp_path):
    start(tmp_path)
    file = the_file(tmp_path)
    good = file.read_bytes()
    if content == "folder":
        file.unlink()
        file.mkdir()
        assert start(tmp_path) == (1, "onnxruntime"), "it runs without a file"
        file.rmdir()
    else:
        file.write_bytes(good[:-2] if content is None else content)
    assert start(tmp_path) == (1, "onnxruntime")
    assert file.read_bytes() == good
    assert start(tmp_path) == (0, "onnxruntime")


@pytest.mark.parametrize("change", ["library", "code", "processor", "precision", "step", "network", "backend"])
def test_what_it_depends_on_has_changed(change, tmp_path, monkeypatch):
    start(tmp_path)
    settings = {}
    if change == "library":
        monkeypatch.setattr(verdict, "_version", lambda package: "0.1")
    elif change in ("code", "processor"):
        monkeypatch.setattr(verdict, f"_{change}", lambda: "another")
    elif change == "precision":
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    elif change == "step":
        settings = {"step": Step.TRACKING}
    elif change == "network":
        settings = {"module": network(1)}
    else:
        settings = {"backend": "traced"}
    assert start(tmp_path, **settings)[0] == 1
    assert start(tmp_path, **settings)[0] == 0


def test_an_exported_file_that_changed_is_checked_again(tmp_path, said):
    """It can still be read, and says something else."""
    start(tmp_path)
    (file,) = (tmp_path / "onnx").glob("*.onnx")
    model = onnx.load(str(file))
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT:
            weights.raw_data = bytes(len(weights.raw_data))
    onnx.save(model, str(file))
    asked, name = start(tmp_path)
    assert asked >= 1 and name != "onnxruntime"
    assert any("its outputs differ from FP32 eager" in line for line in said)


def test_only_what_passed_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("rfdetr_foundationpose.accel.start_check.MAX_ERROR", 0.0)
    context = RunnerContext(label="refiner", engines=EngineOptions(cache=tmp_path), examples=Examples())
    with pytest.raises(BackendUnavailable, match="its outputs differ from FP32 eager"):
        make_runner(network(), "onnxruntime", context, fallback=False)
    assert not list((tmp_path / "onnx").glob(CHECKED))


def test_a_cache_that_cannot_be_written_costs_a_check(tmp_path, said):
    """Below a file nobody can write, root neither."""
    (tmp_path / "file").touch()
    for _ in range(2):
        assert start(tmp_path / "file", backend="half") == (1, "half")
    assert any("the result of the start-up check is not kept in" in line for line in said)


def test_random_numbers_are_checked_each_time(tmp_path):
    """Without rendered crops a check takes a moment, and says less."""
    context = RunnerContext(label="refiner", engines=EngineOptions(cache=tmp_path))
    make_runner(network(), "half", context)
    assert not list(tmp_path.rglob(CHECKED))


def test_a_process_that_set_the_precision_by_both_of_torchs_interfaces_starts_as_well(tmp_path, monkeypatch):
    """Other libraries may do so; torch then refuses to say which precision it is."""

    def refuse() -> str:
        raise RuntimeError("a mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    assert start(tmp_path) == (1, "onnxruntime")
    assert start(tmp_path) == (0, "onnxruntime")
