"""The backends of CPUs that are exact in the end and quick before: INT8 and BF16."""

from __future__ import annotations

import re
from functools import cache

import onnx
import pytest
import torch
from torch import nn

from rfdetr_foundationpose.accel import RunnerContext, torch_runners
from rfdetr_foundationpose.accel.base import EXAMPLES_OF_A_FRAME, BackendUnavailable, EngineOptions, Step, as_tuple
from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.accel.torch_runners import HalfRunner
from rfdetr_foundationpose.engines import runners
from rfdetr_foundationpose.pose.checkpoints import find, load_refiner, load_scorer
from rfdetr_foundationpose.pose.example_crops import example_pairs
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
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
    assert exact < 1e-3 < coarse < runners.INT8_ERROR
    (file,) = (tmp_path / "onnx").glob("*int8*.onnx")
    kinds = {node.op_type for node in onnx.load(str(file)).graph.node}
    assert "QuantizeLinear" in kinds and "MatMul" in kinds, "linear layers stay"
    written = file.stat().st_mtime_ns
    make_runner(module, "int8", context(role, tmp_path), fallback=False)
    assert file.stat().st_mtime_ns == written, "a second start finds it"


def test_int8_that_says_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "INT8_ERROR", 1e-3)
    runner = make_runner(network("refiner"), "int8", context("refiner", tmp_path))
    assert runner.name == "onnxruntime"
    assert re.search(
        r"refiner: int8 not available: its coarse outputs differ from the exact ones by \d+% of their spread, at most 0%",
        runner.degraded,
    )


def test_int8_needs_examples(tmp_path):
    with pytest.raises(BackendUnavailable, match="INT8 needs crops"):
        make_runner(network("refiner"), "int8", context("refiner", tmp_path, examples=None), fallback=False)


def test_int8_does_not_track(tmp_path):
    runner = make_runner(network("refiner"), "int8", context("refiner", tmp_path, step=Step.TRACKING), fallback=False)
    assert (runner.name, runner.coarse) == ("int8", None)
    assert not list((tmp_path / "onnx").glob("*int8*.onnx")), "nothing is made for steps that it is not for"


@pytest.fixture
def bf16(monkeypatch):
    """As on a CPU that has such instructions; one without them computes the same, slowly."""
    for place in (runners, torch_runners):
        monkeypatch.setattr(place, "half_dtype", lambda device: (torch.bfloat16, ""))


@pytest.mark.parametrize("role", LOADERS)
def test_bf16_is_exact_with_a_coarse_runner_beside_it(role, tmp_path, bf16):
    module = network(role)
    runner = make_runner(module, "bf16", context(role, tmp_path), fallback=False)
    assert (runner.name, runner.coarse_for) == ("bf16", {Step.DROPPING})
    rendered, observed = (c[:EXAMPLES_OF_A_FRAME] for c in examples(role))
    with torch.inference_mode():
        expected = as_tuple(module(rendered, observed))
    assert error(runner(rendered, observed), expected) < 1e-3
    assert runner.coarse.dtype is torch.bfloat16
    assert 1e-3 < error(runner.coarse(rendered, observed), expected) < runners.BF16_ERROR


def test_bf16_tracks_by_itself(tmp_path, bf16, monkeypatch):
    """No session of onnxruntime is opened that nobody asks, and no file is exported for it."""
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    runner = make_runner(network("refiner"), "bf16", context("refiner", tmp_path, step=Step.TRACKING), fallback=False)
    assert (runner.name, runner.coarse, runner.dtype) == ("bf16", None, torch.bfloat16)
    assert not list((tmp_path / "onnx").glob("*.onnx"))
    rendered, observed = (c[:2] for c in examples("refiner"))
    with torch.inference_mode():
        assert 1e-3 < error(runner(rendered, observed), network("refiner")(rendered, observed)) < runners.BF16_ERROR


class Shaken(HalfRunner):
    """Right for the two pairs that a tracking runner is held to, wrong for a frame's hypotheses."""

    shake = 0.0

    def __call__(self, rendered, observed):
        outputs = super().__call__(rendered, observed)
        noise = torch.Generator().manual_seed(0)
        return tuple(o + self.shake * o.std(0) * torch.randn(o.shape, generator=noise) for o in outputs)


@pytest.mark.parametrize("role", LOADERS)
@pytest.mark.parametrize(("shake", "refused"), [(0.01, False), (0.4, True)])
def test_bf16_that_says_something_else_is_refused(role, shake, refused, tmp_path, bf16, monkeypatch):
    """A registration would drop the right hypotheses, and nobody would know."""
    monkeypatch.setattr(Shaken, "shake", shake)
    monkeypatch.setattr(runners, "HalfRunner", Shaken)
    runner = make_runner(network(role), "bf16", context(role, tmp_path))
    assert runner.name == ("int8" if refused else "bf16")
    expected = rf"{role}: bf16 not available: its coarse outputs differ from the exact ones by \d\d% of their spread, at most 10%"
    assert bool(re.match(expected, runner.degraded)) == refused, runner.degraded


@pytest.mark.parametrize("backend", ["bf16", "int8"])
@pytest.mark.parametrize("kind", [RefineNet, ScoreNet])
def test_random_weights_which_tell_no_hypotheses_apart_are_no_reason(kind, backend, tmp_path, bf16):
    """Speed is measured on such; the smallest error is larger than what their outputs differ by."""
    torch.manual_seed(0)
    role = "refiner" if kind is RefineNet else "scorer"
    runner = make_runner(kind(0.125).eval(), backend, context(role, tmp_path))
    assert (runner.name, runner.degraded) == (backend, "")


def test_a_cpu_without_bf16_takes_int8_instead(tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "half_dtype", lambda device: (torch.float32, "FP32: this CPU has no BF16"))
    runner = make_runner(network("refiner"), "bf16", context("refiner", tmp_path))
    assert runner.name == "int8"
    assert runner.degraded == "refiner: bf16 not available: FP32: this CPU has no BF16"
