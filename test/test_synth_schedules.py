"""Schedules of registration held against each other: the statistics, the scenes, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import chi2
from torch import Tensor

from rfdetr_foundationpose.cli.evaluate_schedules import parse_schedules
from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.evaluate import schedule_compare
from rfdetr_foundationpose.evaluate.attempts import Attempt
from rfdetr_foundationpose.evaluate.schedule_compare import (
    CompareSettings,
    cases,
    difference,
    report,
    too_lossy,
)
from rfdetr_foundationpose.pose.estimator import Estimate, PoseEstimator
from rfdetr_foundationpose.pose.observation import Observation
from rfdetr_foundationpose.replay.metrics import PoseError
from rfdetr_foundationpose.synth.objects import random_object
from rfdetr_foundationpose.synth.scene import SceneContent, SceneSampler, as_model
from support.cli_runs import run_cli

DIAMETERS = {"mug": 0.1, "can": 0.2}


def attempt(index: int, adds_mm: float | None, add_mm: float = 0.0, object: str = "mug", ms: float = 10.0) -> Attempt:
    error = None
    if adds_mm is not None:
        error = PoseError(1.0, 2.0, add_mm, adds_mm, *(mm / 1e3 / DIAMETERS[object] for mm in (adds_mm, add_mm)))
    return Attempt(str(index), index, object, "register", ms, error, "" if error else "refused: no depth")


def test_difference_counts_the_scenes_on_which_schedules_disagree():
    first = np.array([True] * 90 + [False] * 10)
    other = first.copy()
    other[:6] = False
    other[90:92] = True
    d = difference(first, other)
    assert (d["only_first"], d["only_other"]) == (6, 2)
    assert d["points"] == pytest.approx(-4.0)
    # Two tails of a fair coin: 0, 1, 2, 6, 7 or 8 heads of 8.
    assert d["p"] == pytest.approx(2 * (1 + 8 + 28) / 2**8)
    assert difference(first, first) == {"points": 0.0, "only_first": 0, "only_other": 0, "p": 1.0}
    mirrored = difference(other, first)
    assert mirrored["points"] == -d["points"]
    assert mirrored["p"] == pytest.approx(d["p"])


def test_exact_p_agrees_with_the_large_sample_form_of_the_test():
    first = np.repeat([True, False], [160, 120])
    p = difference(first, ~first)["p"]
    corrected = (abs(160 - 120) - 1) ** 2 / (160 + 120)
    assert p == pytest.approx(chi2.sf(corrected, 1), rel=0.02)


def test_report_judges_by_each_objects_diameter_and_times_only_the_named_objects():
    # 12 mm is wrong for a mug of 10 cm and right for a can of 20 cm; ADD is stricter than ADD-S.
    full = [attempt(0, 12.0, 12.0), attempt(1, 12.0, 30.0, "can", 1.0), attempt(2, 1.0, 2.0, ms=30.0), attempt(3, None)]
    pruned = [attempt(0, 2.0, 4.0, ms=5.0), attempt(1, 25.0, 30.0, "can"), attempt(2, 11.0, 11.0), attempt(3, None)]
    result = report({"full": full, "auto": pruned}, DIAMETERS, {"mug"})
    figures = result["schedules"]["full"]
    assert (result["scenes"], result["against"]) == (4, "full")
    assert figures["adds_recall_0.1d"] == pytest.approx(2 / 4)
    assert figures["add_recall_0.1d"] == pytest.approx(1 / 4)
    assert figures["refused"] == 1
    assert figures["adds_mm"]["mean"] == pytest.approx(25 / 3)
    assert figures["adds_mm"]["p50"] == pytest.approx(12.0)
    assert figures["timed"] == 3
    assert figures["milliseconds"] == {"p50": 10.0, "p95": pytest.approx(28.0), "max": 30.0}
    d = result["differences"]["auto"]
    assert (d["adds"]["points"], d["adds"]["only_first"], d["adds"]["only_other"]) == (-25.0, 2, 1)
    assert (d["add"]["points"], d["add"]["only_first"], d["add"]["only_other"]) == (0.0, 1, 1)
    assert too_lossy(result, 24.9) == ["auto"]
    assert too_lossy(result, 25.0) == []


def test_report_refuses_attempts_of_other_scenes():
    with pytest.raises(ValueError, match="same scenes"):
        report({"full": [attempt(0, 1.0)], "auto": [attempt(1, 1.0)]}, DIAMETERS, set())


def test_schedules_are_read_from_one_word():
    assert parse_schedules("full, auto,252-64-16") == ("full", "auto", "252,64,16")
    CompareSettings(parse_schedules("full,252-64-16"))
    with pytest.raises(ConfigError, match="register_schedule='fast'"):
        CompareSettings(parse_schedules("full,fast"))
    with pytest.raises(ConfigError, match="never grow"):
        CompareSettings(parse_schedules("16-252"))
    with pytest.raises(ConfigError, match="none twice"):
        CompareSettings(parse_schedules("full,full"))


def test_object_seeds_are_apart_from_those_of_training_and_of_other_seeds():
    a, b = (CompareSettings(("full",), objects=1000, seed=seed).object_seeds for seed in (0, 1))
    # train_pose draws from s * 1e6 + i with s a number of steps, and chooses weights by 64 objects of EVALUATION_SEED.
    assert a.start >= schedule_compare.EVALUATION_SEED * 1_000_000 + 64
    assert a.stop <= b.start


@pytest.fixture(scope="module")
def sampler() -> SceneSampler:
    # A fixed size of objects, large enough to be visible in small images.
    models = [as_model(random_object(np.random.default_rng(seed), f"object_{seed}")) for seed in (3, 5)]
    return SceneSampler(models, "cpu", (120, 160), 7, SceneContent(2, 2))


def test_cases_hold_frame_mask_and_truth_of_one_instance(sampler):
    found = list(cases(sampler, 12, seed=0))
    models = {m.name: m for m in sampler.assets.objects}
    assert len(found) == 12
    assert len({c.frame.camera for c in found}) == 12
    for case in found:
        model, camera = models[case.object], case.frame.camera
        assert case.frame.depth.dtype == np.float32
        assert case.mask.shape == case.frame.depth.shape == (120, 160)
        center = case.T_cam_obj[:3, :3] @ model.center + case.T_cam_obj[:3, 3]
        measured = case.frame.depth[case.mask]
        measured = measured[measured > 0]
        nearest = np.abs(measured - center[2]).min()
        assert nearest < model.diameter / 2 + 0.02, case.object
        # The model's centre projects near the mask, nearer than its own size on the image.
        v, u = np.nonzero(case.mask)
        x, y, _ = camera.K @ center / center[2]
        away = np.hypot(u - x, v - y).min()
        assert away < camera.fx * model.diameter / 2 / center[2] + 4, case.object


def test_scenes_in_which_nothing_is_to_be_found_end_in_an_error():
    models = [as_model(random_object(np.random.default_rng(3), "object_3"))]
    empty = SceneSampler(models, "cpu", (24, 32), 7, SceneContent(1, 1, max_targets=0))
    with pytest.raises(ConfigError, match="32x24"):
        next(cases(empty, 1, seed=0))


def test_command_registers_the_same_masks_by_each_schedule(tmp_path, monkeypatch, capsys):
    calls: list[tuple[str, str, int, int]] = []
    register = PoseEstimator.register

    def noting(self: PoseEstimator, frame: Observation, object: str, mask: Tensor) -> Estimate:
        estimate = register(self, frame, object, mask)
        assert estimate.ranking is not None
        calls.append((self.config.register_schedule, object, int(mask.sum()), len(estimate.ranking.scores)))
        return estimate

    monkeypatch.setattr(PoseEstimator, "register", noting)
    out = tmp_path / "schedules.json"
    words = ["--scenes", "2", "--random-objects", "2", "--size", "160x120", "--device", "cpu", "--seed", "3"]
    words += ["--schedules", "12-4,4-2", "--set", "pose.register_iterations=2", "--json", str(out)]
    code, text = run_cli(capsys, "evaluate", "schedules", *words)
    assert code == 0, text
    assert "ADD-S recall" in text
    # Both run on each mask, another one first each time; the last count is what was ranked. On a CPU no warm-up registers.
    assert [(c[0], c[3]) for c in calls] == [("12,4", 4), ("4,2", 2), ("4,2", 2), ("12,4", 4)]
    assert calls[0][1:3] == calls[1][1:3]
    assert calls[2][1:3] == calls[3][1:3]
    assert calls[0][2] != calls[2][2]
    result = json.loads(out.read_text())
    assert list(result["schedules"]) == ["12,4", "4,2"]
    assert result["captures_while_measuring"] == 0
    assert result["scenes"] == 2
    assert result["drift"]["iterations"] == 5
    assert 0 < result["drift"]["translation_error_mm"]["p50"] < 100
    rows = [r for of in result["attempts"].values() for r in of]
    assert [r["object"] for r in rows] == [calls[0][1], calls[2][1]] * 2
    # Whatever turn is found, the position is about that of the mask.
    assert max(r["translation_error_mm"] for r in rows) < 400
    assert all(r["milliseconds"] > 1 for r in rows)


def test_command_says_what_it_cannot_read_and_exits_by_the_loss(tmp_path, monkeypatch, capsys):
    code, text = run_cli(capsys, "evaluate", "schedules", "--schedules", "full,sometimes")
    assert code == 2
    assert "sometimes" in text
    code, text = run_cli(capsys, "evaluate", "schedules", "--size", "large")
    assert code == 2
    attempts = {
        "full": [attempt(i, 1.0) for i in range(100)],
        "auto": [attempt(i, 1.0 + 50 * (i < 2)) for i in range(100)],
    }
    about = {"device": "cpu", "pose_backend": "none", "hypotheses_timed": 252, "captures_while_measuring": 3}
    drift = schedule_compare.drift_figures([])
    result = {**about, **report(attempts, DIAMETERS, {"mug"}), "drift": drift, "attempts": attempts}
    monkeypatch.setattr(schedule_compare, "compare_schedules", lambda *_: result)
    words = ["--json", str(tmp_path / "out.json")]
    code, text = run_cli(capsys, "evaluate", "schedules", *words)
    assert code == 0
    assert "3 graphs were captured while measuring" in text
    assert run_cli(capsys, "evaluate", "schedules", *words, "--max-loss", "2")[0] == 0
    code, text = run_cli(capsys, "evaluate", "schedules", *words, "--max-loss", "1.9")
    assert code == 1
    assert "-2.0" in text
    assert text.endswith("1.9 points below that of full: auto")
