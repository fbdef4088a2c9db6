"""The last choice of a registration: the scorer's logit and the log-odds of the confidence, together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose.agreement_columns import DESCRIBED, FEATURES, MODEL_PIXELS, POSE, RESULT_COLUMNS
from rfdetr_foundationpose.pose.confidence import DEFAULT
from rfdetr_foundationpose.pose.estimator import PoseEstimator, RegistrationError
from rfdetr_foundationpose.pose.ranking import TopHypotheses
from rfdetr_foundationpose.pose.register_program import TOP_K, UNSCORED
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.runners import Networks
from rfdetr_foundationpose.pose.symmetry import rotation_angle
from support.pose_scenes import object_of, prepared, random_pose, scene_of, textured_box
from support.runners import FakeRunner

OVER = np.diag([-1.0, -1.0, 1.0])


def box_of_many_colours():
    """A box whose every face has a texture of its own."""
    mesh = textured_box()
    rng = np.random.default_rng(0)
    colors = rng.integers(30, 255, (len(mesh.faces), 3))
    mesh.visual.face_colors = np.c_[colors, np.full(len(colors), 255)].astype(np.uint8)
    return mesh


class Case:
    """A textured box at a random pose, the candidate rotations for it with what the scorer says of each, and a refiner
    that knows where the box is, but leaves the rotations."""

    def __init__(self, seed: int, candidates, scores, weight: float = 1.0, refused=()) -> None:
        self.item = object_of(box_of_many_colours())
        self.T = random_pose(seed)
        self.frame, self.mask = scene_of(self.item, self.T)
        self.scores, self.refused = torch.tensor(scores), list(refused)
        config = PoseConfig(register_schedule="full", register_iterations=1, register_confidence=weight)
        networks = Networks(
            FakeRunner(self._moves),
            FakeRunner(self._moves),
            FakeRunner(lambda rendered, _: (self.scores[: len(rendered)],)),
        )
        self.estimator = PoseEstimator([self.item], WarpRenderer([self.item], "cpu"), networks, config, "cpu")
        rotations = np.stack([self.T[:3, :3] @ R for R in candidates])
        self.estimator.rotations[0] = torch.tensor(rotations, dtype=torch.float32)

    def _moves(self, rendered: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        n = len(rendered)
        away = torch.tensor(self.T[:3, 3]) - self.program.views.poses[:n, :3, 3]
        away[self.refused] = torch.nan
        return (away / (self.item.diameter / 2)).float(), torch.zeros(n, 3)

    @property
    def program(self):
        (program,) = self.estimator._registers.values()
        return program

    def register(self):
        return self.estimator.register(prepared(self.estimator, self.frame), "thing", self.mask)

    def degrees(self, estimate) -> float:
        R = self.item.to_centered(estimate.T_cam_obj)[:3, :3]
        return float(np.degrees(rotation_angle(R.T @ self.T[:3, :3])))


@pytest.mark.parametrize("seed", range(1, 7))
def test_texture_tells_the_sides_of_a_box_apart_though_the_scorer_slightly_prefers_the_wrong_one(seed):
    case = Case(seed, [OVER, np.eye(3)], [0.6, 0.1])
    estimate = case.register()
    assert case.degrees(estimate) < 1.0
    ranking = estimate.ranking
    assert ranking is not None and ranking.chosen == 1
    torch.testing.assert_close(ranking.scores, case.scores)
    np.testing.assert_allclose(ranking.poses[1].numpy(), case.item.to_centered(estimate.T_cam_obj), atol=1e-5)

    by_score = Case(seed, [OVER, np.eye(3)], [0.6, 0.1], weight=0.0)
    other = by_score.register()
    assert by_score.degrees(other) > 170.0, "without a weight it is the scorer's choice"
    assert other.ranking is not None and other.ranking.chosen == 0
    assert other.visibility == pytest.approx(estimate.visibility, abs=0.01), "by shape it fits as well"
    assert other.confidence < 0.5 < estimate.confidence


def test_a_scorer_that_is_sure_is_not_overruled():
    case = Case(1, [OVER, np.eye(3)], [30.0, 0.0])
    assert case.degrees(case.register()) > 170.0


def test_what_is_read_back_are_the_first_of_the_ranking():
    turns = [np.eye(3), OVER, np.diag([1.0, -1.0, -1.0])] * 4
    scores = np.random.default_rng(0).normal(size=12).astype(np.float32)
    case = Case(2, turns, scores)
    case.register()
    with torch.inference_mode():
        packed, ranked, poses = case.program.run()
    found = TopHypotheses.unpack(packed.double().numpy())
    assert found.rows.shape == (TOP_K, RESULT_COLUMNS)
    depth = prepared(case.estimator, case.frame).everywhere().depth
    assert found.pixels == (int(case.mask.sum()), int((case.mask & (depth > 0)).sum()))
    np.testing.assert_array_equal(ranked.numpy(), np.sort(scores)[::-1])
    np.testing.assert_array_equal(found.scores, ranked[:TOP_K].double())
    np.testing.assert_array_equal(found.rows[:, POSE], poses[:TOP_K].flatten(1).double())
    # One step, along the line of sight from the first guess to the middle of the box, and no turn.
    step, turn = (found.rows[:, DESCRIBED][:, FEATURES.index(name)] for name in ("step", "turn"))
    np.testing.assert_allclose(step**2, [step[0] ** 2] * TOP_K, atol=1e-6)
    assert 0 < step[0] < 1
    assert not turn.any()
    # What is compared are the ranked poses: the right ones, and only these, have the texture of the image.
    right = [rotation_angle(p[:3, :3].double().numpy().T @ case.T[:3, :3]) < 0.01 for p in poses[:TOP_K]]
    odds = DEFAULT.log_odds(found.rows[:, DESCRIBED])
    assert 0 < sum(right) < TOP_K
    assert odds[right].min() > odds[~np.array(right)].max() + 1


class Replayed:
    """In place of a program's captured graph: runs, whatever the mask, as a replay does."""

    will_capture = True

    def __init__(self, program) -> None:
        self._run = program.run

    def __call__(self):
        return self._run()


def test_a_captured_registration_is_decoded_alike_and_refuses_alike(monkeypatch):
    case = Case(3, [OVER, np.eye(3)], [0.2, 0.0])
    expected = case.register()
    monkeypatch.setattr(case.program, "graph", Replayed(case.program))
    again = case.register()
    np.testing.assert_array_equal(again.T_cam_obj, expected.T_cam_obj)
    assert again.confidence == expected.confidence
    case.mask = torch.zeros_like(case.mask)
    with pytest.raises(RegistrationError) as refusal:
        case.register()
    assert refusal.value.kind == "empty_mask"


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("lost", [1, 10])
def test_a_pose_that_is_not_finite_is_never_chosen(lost, weight):
    # More of them than are read back; the scorer thinks highly of each, or has no answer.
    scores = [100.0 if i % 2 else float("nan") for i in range(lost)] + [0.0, 0.1]
    case = Case(4, [np.eye(3)] * (lost + 2), scores, weight, refused=range(lost))
    estimate = case.register()
    assert case.degrees(estimate) < 1.0
    assert estimate.confidence > 0.5
    assert estimate.ranking is not None
    torch.testing.assert_close(estimate.ranking.scores[:2], torch.tensor([0.1, 0.0]))
    assert torch.isneginf(estimate.ranking.scores[2:]).all()


def test_a_scorer_without_an_answer_leaves_it_to_the_confidence():
    nan = float("nan")
    case = Case(5, [np.eye(3)] * 9 + [OVER, np.eye(3)], [nan] * 11, refused=range(9))
    estimate = case.register()
    assert case.degrees(estimate) < 1.0
    assert estimate.ranking is not None
    assert estimate.ranking.scores.tolist() == [UNSCORED] * 2 + [-float("inf")] * 9
    # A hypothesis that has a score comes before one that has none.
    case = Case(5, [np.eye(3), OVER], [nan, -5.0])
    assert case.degrees(case.register()) > 170.0


def test_where_no_pose_is_finite_the_estimate_has_no_confidence():
    case = Case(6, [np.eye(3), OVER], [1.0, 0.0], refused=range(2))
    estimate = case.register()
    assert estimate.confidence == 0.0
    assert estimate.visibility == 0.0


def test_the_choice_among_rows():
    rows = np.zeros((4, RESULT_COLUMNS))
    rows[:, MODEL_PIXELS] = 1000.0
    described = rows[:, DESCRIBED]
    described[:, FEATURES.index("visible")] = 0.9, 0.5, 0.9, 0.9
    described[:, FEATURES.index("violated")] = 0.0, 0.4, 0.0, 0.0
    odds = DEFAULT.log_odds(described)
    gap = odds[0] - odds[1]
    assert gap > 1

    def best(scores, weight=1.0):
        return TopHypotheses(rows, np.array(scores), np.zeros(4), (9, 9)).best(DEFAULT, weight)

    assert best([0.0, gap + 0.1, 0.0, 0.0]) == 1, "a logit of the scorer is worth one of the confidence"
    assert best([0.0, gap - 0.1, 0.0, 0.0]) == 0
    assert best([0.0, gap + 0.1, 0.0, 0.0], 2.0) == 0
    assert best([0.0, gap - 0.1, 0.0, 0.0], 0.0) == 1
    assert best([0.0, 0.0, 0.0, 0.2]) == 3
    for broken in (np.nan, np.inf, -np.inf):
        rows[3, 5] = broken  # in the pose
        assert best([0.0, 0.0, 0.1, 0.2]) == 2
        described[2, 7] = broken  # in what was compared
        assert best([0.0, 0.0, 0.1, 0.2]) == 0
        described[2, 7] = 0.0
    rows[:, 0] = np.nan
    assert best([0.0, 1.0, 2.0, 3.0]) == 0, "all alike"


def test_the_overlap_with_the_mask_decides_where_the_rest_is_even():
    rows = np.zeros((3, RESULT_COLUMNS))
    overlaps = np.array([0.70, 0.95, 0.90])
    assert TopHypotheses(rows, np.array([1.0, 0.0, 0.0]), overlaps, (9, 9)).best(DEFAULT, 1.0) == 1
    assert TopHypotheses(rows, np.array([3.0, 0.0, 0.0]), overlaps, (9, 9)).best(DEFAULT, 1.0) == 0


@pytest.mark.parametrize(
    ("asked", "official", "outlined", "searches"),
    [
        ("auto", (), True, 2),
        ("auto", (), False, 1),
        ("auto", ("scorer",), True, 1),
        ("always", ("scorer",), True, 2),
        ("never", (), True, 1),
    ],
)
def test_an_outlined_object_that_is_not_sure_is_looked_at_alone(asked, official, outlined, searches, monkeypatch):
    case = Case(3, [OVER, OVER @ np.diag([1.0, -1.0, -1.0])], [0.0, 0.0])
    estimator = case.estimator
    estimator.apply(replace(estimator.config, register_outline=asked))
    estimator._networks = replace(estimator._networks, official_crops=official)
    crops: list[Tensor] = []
    overlaps: list[np.ndarray] = []
    refiner, moves, best = estimator._networks.register_refiner, case._moves, TopHypotheses.best

    def look(rendered, observed):
        crops.append(observed[0, :3].clone())
        return moves(rendered, observed)

    def looked_at(self, *arguments):
        overlaps.append(self.overlaps)
        return best(self, *arguments)

    monkeypatch.setattr(refiner, "_answer", look)
    monkeypatch.setattr(TopHypotheses, "best", looked_at)
    rgb = case.frame.rgb.copy()
    rgb[~case.mask.numpy()] = 200
    frame = replace(case.frame, rgb=rgb)
    estimate = estimator.register(prepared(estimator, frame), "thing", case.mask, outlined=outlined)
    assert estimate.confidence < 0.8, "both hypotheses are wrong"
    black = [float((crop == 0).all(0).float().mean()) for crop in crops]
    assert len(crops) == len(overlaps) == searches
    assert black[0] < 0.1 and all(share > 0.3 for share in black[1:]), "of the crop"
    assert overlaps[0].any() == (asked != "never" and outlined and searches == 2)


def test_of_two_searches_the_one_is_taken_that_the_image_supports():
    case = Case(3, [OVER], [0.0])
    right = torch.tensor(case.T[:3, :3], dtype=torch.float32)
    look: list[Tensor] = []

    def moves(rendered, observed):
        look.append(observed)
        if len(look) == 2:  # the search that sees the object alone finds it
            case.program.views.poses[: len(rendered), :3, :3] = right
        return Case._moves(case, rendered, observed)

    case.estimator._networks.register_refiner._answer = moves
    assert case.degrees(case.register()) < 1.0 and len(look) == 2
    case.estimator._networks.register_refiner._answer = case._moves
    case.estimator.rotations[0] = right[None]
    look.clear()
    sure = case.register()
    assert sure.confidence >= 0.8 and not look, "one search was enough"


def test_log_odds_have_bounds_and_go_on_where_the_confidence_is_zero():
    sure, hopeless = np.zeros((2, 1, len(FEATURES)))
    sure[0, FEATURES.index("visible")] = 1.0
    hopeless[0, FEATURES.index("missing")] = 1.0
    assert DEFAULT.log_odds(hopeless)[0] == pytest.approx(np.log(1e-6), abs=1e-3)
    p = DEFAULT.confidence(sure, np.array([1000.0]))[0]
    odds = DEFAULT.log_odds(sure)[0]
    assert odds == pytest.approx(np.log(p / (1 - p)))
    assert DEFAULT.confidence(sure, np.array([20.0]))[0] == 0.0, "of a model of 20 pixels"
