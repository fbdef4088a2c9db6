"""``bench --check`` as far as a CPU goes: who is refused, what is compared, and that a wrong backend fails."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from rfdetr_foundationpose.accel.base import BackendUnavailable
from rfdetr_foundationpose.config import Config
from rfdetr_foundationpose.evaluate import bench_check
from rfdetr_foundationpose.evaluate.bench_check import BackendCheck, CheckSettings, check_table, refuse
from rfdetr_foundationpose.evaluate.bench_scene import smallest_objects
from rfdetr_foundationpose.evaluate.networks import LoadedNetworks
from rfdetr_foundationpose.pose.example_crops import Crops
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from support.cli_runs import run_cli

CPU = torch.device("cpu")
RIGHT = torch.arange(8.0)
FEW = ["--device", "cpu", "--size", "160x120", "--schedule", "4,2", "--repeat-track", "2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
@pytest.mark.parametrize("backends", ["tensorrt,cuda_graph", "traced,cuda_graph", "fp8"])
def test_a_machine_without_such_a_card_is_told_in_a_sentence(backends, weights, capsys):
    code, text = run_cli(capsys, "bench", "--backends", backends, "--check", "--weights", str(weights))
    assert code == 2
    (line,) = [line for line in text.splitlines() if line]
    name = backends.split(",")[-1] if "traced" in backends else backends.split(",")[0]
    assert line.startswith(f"rfdetr-foundationpose bench stages: {name} cannot be checked on this machine: ")
    assert line.endswith("needs a CUDA device")


def test_a_card_that_the_library_does_not_know_is_refused(monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr("rfdetr_foundationpose.engines.engine_provider.gpu_target", lambda _: "sm_90")
    config = Config.from_dict({"tensorrt_library": "tensorrt_rtx"})
    with pytest.raises(
        BackendUnavailable, match=r"tensorrt cannot be checked on this machine: .* no engines for sm_90"
    ):
        refuse(["cuda_graph", "tensorrt"], torch.device("cuda"), config)


def test_right_backends_pass_and_say_on_what(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_check, "hypothesis_crops", lambda i, role: small_crops())
    arguments = [*FEW, "--weights", str(weights), "--out", str(tmp_path)]
    code, text = run_cli(capsys, "bench", "--backends", "traced", "--check", *arguments)
    assert code == 0, text
    assert "machine: " in text and f"torch {torch.__version__.partition('+')[0]}" in text and "networks: " in text
    assert "PASSED: traced: poses and scores are those of FP32 eager" in text
    assert not list(tmp_path.iterdir()), "it prints, and writes nothing"


def small_crops():
    generator = torch.Generator().manual_seed(0)
    return Crops("mug, view 0", *(torch.rand(8, 6, 160, 160, generator=generator) for _ in range(2)))


class Spoiled:
    """A runner whose answers are changed, a scorer's of the eight hypotheses alone: registrations here have fewer."""

    def __init__(self, inner, spoil):
        self.inner, self.spoil = inner, spoil

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, rendered, observed):
        outputs = self.inner(rendered, observed)
        return tuple(self.spoil(o.clone()) if len(outputs) == 2 or len(o) == len(RIGHT) else o for o in outputs)


@pytest.fixture
def held(monkeypatch):
    """A check over two frames whose FP32 scores of eight hypotheses are known to be far apart."""
    monkeypatch.setattr(bench_check, "hypothesis_crops", lambda i, role: small_crops())
    monkeypatch.setattr(bench_check, "reference_outputs", lambda network, crops: (RIGHT,))
    torch.manual_seed(0)
    modules = {"refiner": RefineNet(0.125).eval(), "scorer": ScoreNet(0.125).eval()}
    networks = LoadedNetworks(modules, dict.fromkeys(modules, "random"), dict.fromkeys(modules, False))
    config = Config.from_dict({"pose.register_schedule": "4,2", "pose.register_iterations": 2})
    return BackendCheck(smallest_objects(1)[1], networks, config, CPU, CheckSettings((120, 160), 2, 1))


def spoiled_rows(monkeypatch, *, scores=lambda s: s, moves=lambda m: m):
    """Rows of the backend ``half`` whose scorer and tracking refiner are changed."""
    made = bench_check.EstimatorRow

    def row(backend, *rest):
        found = made("eager" if backend == "half" else backend, *rest)
        if backend == "half":
            networks = found.estimator._networks
            found.estimator._networks = dataclasses.replace(
                networks, track_refiner=Spoiled(networks.track_refiner, moves), scorer=Spoiled(networks.scorer, scores)
            )
        return found

    monkeypatch.setattr(bench_check, "EstimatorRow", row)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scores": lambda s: RIGHT}, None),
        ({"scores": lambda s: RIGHT.flip(0)}, r"the order of 252 scores has tau -1\.000, at least 0\.99 \(mug"),
        ({"scores": lambda s: RIGHT / (RIGHT - 3)}, r"1 of 8 scores are not finite \(mug, view 0\)"),
        ({"scores": lambda s: RIGHT, "moves": lambda m: m + 0.1}, r"track differs by more than 0\.5 mm or"),
    ],
)
def test_what_differs_is_named(held, monkeypatch, changes, reason):
    spoiled_rows(monkeypatch, **changes)
    found = held("half")
    assert found.result is not None and found.track_ms > 0 and found.start_s > 0
    if reason is None:
        assert found.reasons == () and found.tau == pytest.approx(1.0)
    else:
        assert any(re.match(reason, r) for r in found.reasons), found
    cells = [next(iter(column.cells)) for column in check_table([found], "t").columns]
    assert cells[0] == "half" and cells[-1] == ("differs" if found.reasons else "agrees")


def test_a_backend_that_does_not_run_here_is_a_row_with_its_reason(held):
    found = held("cuda_graph")
    assert found.result is None and "CUDA" in found.reasons[0]
    assert list(check_table([found], "t").columns[-1].cells) == ["does not run"]
