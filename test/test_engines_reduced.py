"""The backends of CPUs that are exact in the end and quick before: INT8 and BF16."""

from __future__ import annotations

from functools import cache

import onnx
import pytest
import torch
from torch import nn

from rfdetr_foundationpose.accel import RunnerContext
from rfdetr_foundationpose.accel.base import EXAMPLES_OF_A_FRAME, BackendUnavailable, EngineOptions, Step, as_tuple
from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.engines import runners
from rfdetr_foundationpose.pose.checkpoints import find, load_refiner, load_scorer
from rfdetr_foundationpose.pose.example_crops import example_pairs
from rfdetr_foundationpose.resources import models_dir

pytest.importorskip("onnxruntime")
LOADERS = {"refiner": load_refiner, "scorer": load_scorer}
"""The networks that ship, on rendered crops: to random weights all hypotheses are alike."""


@cache
def network(role: str) -> nn.Module:
    return LOADERS[role](find(models_dir() / "pose", role))[0].eval()


@cache
def examples(role: str) -> tuple[torch.Tensor, torch.Tensor]:
    rendered, observed = example_pairs(role)
    return rendered[:24], observed[:24]


def context(role: str, folder, **settings) -> RunnerContext:
    given = {"examples": examples, **settings}
    return RunnerContext(label=role, engines=EngineOptions(cache=folder), **given)


def error(found, expected) -> float:
    """Root mean square of what differs, as a share of the spread; what a scorer adds to all scores does not count."""
    pairs = list(zip(as_tuple(found), as_tuple(expected), strict=True))
    if len(pairs) == 1:
        pairs = [(a - a.mean(), b - b.mean()) for a, b in pairs]
    return max((((a - b).square().mean() / (b - b.mean(0)).square().mean()).sqrt().item() for a, b in pairs))


@pytest.mark.parametrize("role", LOADERS)
def test_int8_is_exact_with_a_coarse_runner_beside_it(role, tmp_path):
    module = network(role)
    runner = make_runner(module, "int8", context(role, tmp_path), fallback=False)
    assert (runner.name, runner.degraded, runner.coarse_for) == ("int8", "", {Step.DROPPING})
    rendered, observed = (c[:EXAMPLES_OF_A_FRAME] for c in examples(role))
    with torch.inference_mode():
        expected = as_tuple(module(rendered, observed))
    exact = error(runner(rendered, observed), expected)
    coarse = error(runner.coarse(rendered, observed), expected)
    assert exact < 1e-3 < coarse < runners.INT8_TOLERANCE
    (file,) = (tmp_path / "onnx").glob("*int8*.onnx")
    kinds = {node.op_type for node in onnx.load(str(file)).graph.node}
    assert "QuantizeLinear" in kinds and "MatMul" in kinds, "linear layers stay"
    written = file.stat().st_mtime_ns
    make_runner(module, "int8", context(role, tmp_path), fallback=False)
    assert file.stat().st_mtime_ns == written, "a second start finds it"


def test_int8_that_says_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "INT8_TOLERANCE", 1e-3)
    runner = make_runner(network("refiner"), "int8", context("refiner", tmp_path))
    assert runner.name == "onnxruntime"
    assert "refiner: in INT8 outputs differ by" in runner.degraded


def test_int8_needs_examples(tmp_path):
    with pytest.raises(BackendUnavailable, match="INT8 needs crops"):
        make_runner(network("refiner"), "int8", context("refiner", tmp_path, examples=None), fallback=False)


@pytest.mark.parametrize("role", LOADERS)
def test_bf16_tracks_too(role, tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "half_dtype", lambda device: (torch.bfloat16, ""))
    monkeypatch.setattr("rfdetr_foundationpose.accel.torch_runners.half_dtype", lambda device: (torch.bfloat16, ""))
    module = network(role)
    runner = make_runner(module, "bf16", context(role, tmp_path), fallback=False)
    assert (runner.name, runner.coarse_for) == ("bf16", {Step.DROPPING, Step.TRACKING})
    rendered, observed = (c[:EXAMPLES_OF_A_FRAME] for c in examples(role))
    with torch.inference_mode():
        expected = as_tuple(module(rendered, observed))
    assert error(runner(rendered, observed), expected) < 1e-3
    assert runner.coarse.dtype is torch.bfloat16
    assert 1e-3 < error(runner.coarse(rendered, observed), expected) < 0.3


def test_a_cpu_without_bf16_takes_int8_instead(tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "half_dtype", lambda device: (torch.float32, "FP32: this CPU has no BF16"))
    runner = make_runner(network("refiner"), "bf16", context("refiner", tmp_path))
    assert runner.name == "int8"
    assert runner.degraded == "refiner: bf16 not available: FP32: this CPU has no BF16"
