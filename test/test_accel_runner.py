"""The fallback order: every backend gives the network's answers, and one that cannot run says so and gives way."""

from __future__ import annotations

import re
import sys
import warnings

import pytest
import torch
from torch import nn

from rfdetr_foundationpose.accel import BackendUnavailable, EngineOptions, Runner, RunnerContext, make_runner
from rfdetr_foundationpose.accel.base import as_tuple
from rfdetr_foundationpose.accel.graph import GraphPool
from rfdetr_foundationpose.accel.torch_runners import EagerRunner, GraphRunner, HalfRunner, half_dtype
from rfdetr_foundationpose.backends import DETECTOR, POSE, Family
from rfdetr_foundationpose.config import Config, iter_settings
from rfdetr_foundationpose.pose.checkpoints import load_scorer
from rfdetr_foundationpose.pose.example_crops import example_pairs
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.resources import models_dir

SIZE = 64
CROP = (6, SIZE)
NETWORKS = {"refiner": RefineNet, "scorer": ScoreNet}
NEED_A_GPU = ("cuda_graph", "fp8", "tensorrt")
LESS_PRECISE = ("int8", "bf16")
"""See test_engines_reduced.py."""
CPU_BACKENDS = [
    pytest.param(name, marks=pytest.mark.slow) if name == "compile" else name
    for name in POSE.names
    if name not in NEED_A_GPU + LESS_PRECISE
]


def network(role: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[role](width=0.125, crop_size=SIZE).eval()


def crops(n: int, device: str = "cpu", seed: int = 5) -> torch.Tensor:
    return torch.rand(n, 6, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).to(device)


def agree(runner: Runner, module: nn.Module, a: torch.Tensor, b: torch.Tensor) -> None:
    with torch.inference_mode():
        expected = as_tuple(module(a, b))
    found = runner(a, b)
    tolerance = 1e-4 if runner.dtype is torch.float32 else 3e-2
    assert len(found) == len(expected)
    for e, f in zip(expected, found, strict=True):
        assert f.dtype is torch.float32 and f.shape == e.shape
        torch.testing.assert_close(f, e, rtol=0, atol=tolerance * e.abs().max().item())


@pytest.mark.parametrize("role", NETWORKS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_every_backend_gives_the_networks_answers(backend, role, tmp_path, said):
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
    module = network(role)
    runner = make_runner(
        module, backend, RunnerContext(crop=CROP, label=role, engines=EngineOptions(cache=tmp_path)), batches=(1, 4)
    )
    assert isinstance(runner, Runner)
    assert (runner.name, runner.degraded) == (backend, "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for batch in (4, 1):
            agree(runner, module, crops(batch), crops(batch, seed=6))
        assert not any("prepared for batch" in line for line in said), "it was told of both"
        channels_last = crops(4).contiguous(memory_format=torch.channels_last)
        agree(runner, module, channels_last, crops(1, seed=6))  # one observed crop for all hypotheses
        late = [line for line in said if "prepared for batch" in line]
        assert len(late) == (backend not in ("eager", "reference")), "what cost a pause is said"


@pytest.mark.parametrize("family", [POSE, DETECTOR], ids=lambda f: f.kind)
def test_settings_fallbacks_and_makers_are_of_one_table(family: Family):
    (choices,) = (s.choices for s in iter_settings(Config()) if s.path == f"{family.kind}.backend")
    assert choices == ("auto", *family.names)
    for start in family.names:
        assert callable(family.maker(start))
        for device in ("cuda", "cpu"):
            seen = [start]
            while (following := family.following(seen[-1], device)) is not None:
                assert following not in seen, f"{device}: {start} goes round in circles"
                seen.append(following)
            assert seen[-1] == "eager", f"{device}: {start} ends at {seen[-1]}"
    with pytest.raises(ValueError, match=rf"{family.kind}.backend='auto1' must be one of auto, reference, eager"):
        family.maker("auto1")


def test_auto_is_a_backend_that_runs_here(tmp_path, said):
    runner = make_runner(network("refiner"), "auto", RunnerContext(crop=CROP, engines=EngineOptions(cache=tmp_path)))
    assert runner.name == POSE.auto("cpu")
    assert runner.degraded == ""
    assert POSE.auto("cuda") == "cuda_graph"


@pytest.mark.parametrize(("has", "backend"), [(True, "bf16"), (False, "onnxruntime")])
def test_auto_on_a_cpu_follows_its_instructions(has, backend, monkeypatch):
    monkeypatch.setattr("rfdetr_foundationpose.accel.torch_runners.cpu_has_bf16", lambda: has)
    assert POSE.auto("cpu") == backend


def test_auto_without_onnxruntime_is_no_degradation(monkeypatch, tmp_path):
    monkeypatch.setattr("rfdetr_foundationpose.backends.find_spec", lambda name: None)
    runner = make_runner(network("refiner"), "auto", RunnerContext(crop=CROP, engines=EngineOptions(cache=tmp_path)))
    assert (runner.name, runner.degraded) == ("traced", "")


@pytest.mark.parametrize("backend", ["cuda_graph", "tensorrt"])
def test_a_backend_that_needs_a_gpu_says_so_and_gives_way(backend, tmp_path, said):
    module = network("refiner")
    runner = make_runner(
        module, backend, RunnerContext(crop=CROP, label="refiner", engines=EngineOptions(cache=tmp_path))
    )
    assert runner.name in ("onnxruntime", "traced")
    assert f"refiner: {backend} not available" in runner.degraded and "CUDA" in runner.degraded
    assert any(line.startswith(f"refiner: {backend} not available") and "trying" in line for line in said)
    agree(runner, module, crops(2), crops(2, seed=6))
    with pytest.raises(BackendUnavailable, match="CUDA"):
        make_runner(module, backend, RunnerContext(crop=CROP), fallback=False)


def test_missing_onnxruntime_gives_way_to_traced(monkeypatch, tmp_path, said):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    runner = make_runner(
        network("refiner"), "onnxruntime", RunnerContext(crop=CROP, engines=EngineOptions(cache=tmp_path))
    )
    assert runner.name == "traced"
    assert "onnxruntime is not installed" in runner.degraded


class Explodes(nn.Module):
    """A small difference of large numbers: right in FP32, infinite in FP16, lost in BF16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 1)
        nn.init.constant_(self.conv.weight, 2e5)
        nn.init.constant_(self.conv.bias, 1e8)

    def forward(self, a, b):
        return (self.conv(a) - self.conv(b)).mean(dim=(2, 3)), a.mean(dim=(2, 3))


def test_a_backend_with_wrong_results_is_refused(said):
    if half_dtype(torch.device("cpu"))[0] is torch.float32:
        pytest.skip("this CPU runs half in FP32")
    runner = make_runner(Explodes().eval(), "half", RunnerContext(crop=CROP))
    assert runner.name == "eager"
    assert "differ from FP32 eager" in runner.degraded


class Misled(EagerRunner):
    """Scores of the shipped scorer, from the best to the worst hypothesis exchanged, or with one lost."""

    name = "half"
    spoil = staticmethod(lambda scores: 2 * scores.mean() - scores)

    def _build(self, key):
        run = super()._build(key)
        return lambda a, b: (self.spoil(run(a, b)[0]),)


def lose_one(scores: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(len(scores)) == 1, torch.nan, scores)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (None, ""),
        (Misled.spoil, r"half not available: it ranks hypotheses otherwise than FP32 eager \(Kendall's tau -1.00, at"),
        (lose_one, "half not available: 1 of 8 outputs are not finite"),
    ],
)
def test_a_scorer_is_checked_on_rendered_hypotheses(spoil, reason, monkeypatch, said):
    """Scores that are hundreds apart from zero and one or two from each other, so that the outputs alone would pass."""
    if spoil is not None:
        monkeypatch.setattr(Misled, "spoil", staticmethod(spoil))
        monkeypatch.setattr(type(POSE), "maker", lambda _, name: Misled if name == "half" else EagerRunner)
    scorer, _ = load_scorer(models_dir() / "pose" / "scorer.safetensors")
    with torch.no_grad():
        scorer.linear.bias -= 800
    runner = make_runner(scorer, "half", RunnerContext(label="scorer", examples=example_pairs))
    assert runner.name == ("half" if spoil is None else "eager")
    assert re.search(reason, runner.degraded) and bool(runner.degraded) == bool(reason)
    assert (spoil is None) or any(re.search(reason, line) for line in said)


def test_a_scorer_without_an_order_is_no_reason():
    """Random weights, on which speed is measured, give all hypotheses the same score but for its last bits."""
    torch.manual_seed(0)
    runner = make_runner(ScoreNet(0.125).eval(), "half", RunnerContext(label="scorer", examples=example_pairs))
    assert (runner.name, runner.degraded) == ("half", "")


def test_cached_onnx_of_other_weights_is_not_used(tmp_path):
    pytest.importorskip("onnxruntime")
    first, second = network("refiner", 0), network("refiner", 1)
    for module in (first, second, first):
        runner = make_runner(
            module, "onnxruntime", RunnerContext(crop=CROP, label="refiner", engines=EngineOptions(cache=tmp_path))
        )
        agree(runner, module, crops(2), crops(2, seed=6))
    files = sorted((tmp_path / "onnx").glob("*.onnx"))
    assert len(files) == 2
    files[0].write_bytes(b"not onnx")
    for module in (first, second):
        runner = make_runner(
            module, "onnxruntime", RunnerContext(crop=CROP, label="refiner", engines=EngineOptions(cache=tmp_path))
        )
        agree(runner, module, crops(2), crops(2, seed=6))


def bare_graph_runner(failing: set[str]) -> GraphRunner:
    """What chooses among candidates, on a machine where no graph can be captured: times are given, some candidates fail."""
    runner = GraphRunner.__new__(GraphRunner)
    HalfRunner.__init__(runner, network("refiner"), RunnerContext(crop=CROP, label="refiner"))
    runner.pool = GraphPool("test", "cpu")
    runner._candidates = {name: (lambda a, b, name=name: (name,)) for name in ("plain", "fused", "parallel heads")}

    def time(candidate, key):
        (name,) = candidate(None, None)
        if name in failing:
            raise torch.OutOfMemoryError(f"CUDA out of memory in {name}")
        return {"plain": 3.0, "fused": 2.0, "parallel heads": 1.0}[name]

    runner._time = time
    return runner


def test_a_candidate_that_does_not_fit_in_memory_leaves_the_backend_to_the_others(said):
    bare_graph_runner({"parallel heads"}).prepare(4)
    assert any("parallel heads is left out for batch 4: CUDA out of memory" in line for line in said)
    assert said[-1].endswith("takes fused")
    with pytest.raises(BackendUnavailable, match="out of memory"):
        bare_graph_runner({"plain", "fused", "parallel heads"}).prepare(4)


def test_bad_arguments_are_named():
    module = network("refiner")
    with pytest.raises(ValueError, match=r"pose.backend='warp' must be one of auto, reference"):
        make_runner(module, "warp")
    runner = make_runner(module, "eager", RunnerContext(crop=CROP))
    with pytest.raises(ValueError, match="observed=2"):
        runner.prepare(4, 2)


@pytest.mark.gpu
@pytest.mark.parametrize("role", NETWORKS)
@pytest.mark.parametrize("backend", ["half", "traced", "compile", "cuda_graph"])
def test_gpu_backends_agree_and_do_not_synchronize(backend, role):
    module = network(role)
    runner = make_runner(module, backend, RunnerContext("cuda", CROP, role), batches=(1, 2, 4))
    assert runner.name == backend, runner.degraded
    reference = network(role).cuda()
    for batch in (1, 2, 4):
        agree(runner, reference, crops(batch, "cuda"), crops(batch, "cuda", seed=6))
    a, b = crops(2, "cuda"), crops(2, "cuda", seed=7)
    torch.cuda.set_sync_debug_mode("error")
    try:
        first = [o.clone() for o in runner(a, b)]
        second = [o.clone() for o in runner(a, b)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [256, 512, 1024])
def test_one_pass_norm_is_the_norm_of_the_sum(channels):
    from rfdetr_foundationpose.accel.norm_kernels import add_norm

    generator = torch.Generator("cuda").manual_seed(0)
    x, y = (torch.randn(7, 33, channels, generator=generator, device="cuda").half() * 3 + 1 for _ in range(2))
    weight, bias = (torch.randn(channels, generator=generator, device="cuda").half() for _ in range(2))
    expected = torch.nn.functional.layer_norm(x.float() + y.float(), (channels,), weight.float(), bias.float(), 1e-5)
    torch.testing.assert_close(add_norm(x, y, weight, bias, 1e-5).float(), expected, atol=1e-2, rtol=2e-3)


@pytest.mark.gpu
def test_every_candidate_of_the_graph_backend_works(said):
    """One that is left out would not fail: another one would be taken, and nobody would know."""
    torch.manual_seed(0)
    runner = make_runner(RefineNet(width=0.5).eval(), "cuda_graph", RunnerContext("cuda"), fallback=False)
    candidates = {"plain", "fused", "blocked stem", "one-pass norms", "one-pass copies"}
    assert set(runner._candidates) == {*candidates, "parallel heads"}, said
    scorer = make_runner(ScoreNet(width=0.5).eval(), "cuda_graph", RunnerContext("cuda"), fallback=False)
    assert set(scorer._candidates) == candidates - {"one-pass norms"}, said
