"""Registration programs: which an estimator keeps, and how one keeps different sides of an object in the running."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.utils._python_dispatch import TorchDispatchMode

from rfdetr_foundationpose.accel.base import Step
from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose import register_program
from rfdetr_foundationpose.pose.checkpoints import find, load_refiner, load_scorer
from rfdetr_foundationpose.pose.estimator import PoseEstimator, TrackRequest
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.pose.pruning import Pruning
from rfdetr_foundationpose.pose.register_program import _copies_last
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.runners import Networks
from rfdetr_foundationpose.resources import models_dir
from support.pose_scenes import object_of, prepared, random_pose, scene_of, textured_box
from support.runners import FakeRunner


def test_the_program_used_longest_ago_gives_way():
    item = object_of(textured_box())
    frame, mask = scene_of(item, random_pose(3))
    runners = [make_runner(n(0.125).eval(), "eager") for n in (RefineNet, RefineNet, ScoreNet)]
    config = PoseConfig(register_iterations=1)
    estimator = PoseEstimator([item], WarpRenderer([item], "cpu"), Networks(*runners), config, "cpu")
    estimator.kept_programs = 2
    pose_frame = prepared(estimator, frame)
    seen = {}
    for schedule in ("4", "3", "4", "2"):
        estimator.apply(dataclasses.replace(config, register_schedule=schedule))
        estimate = estimator.register(pose_frame, "thing", mask)
        assert estimate.ranking is not None and len(estimate.ranking.scores) == int(schedule)
        seen[schedule] = list(estimator._registers.values())[-1]
    assert [p.kept for p in estimator._registers.values()] == [(4,), (2,)]
    assert seen["4"] is next(iter(estimator._registers.values())), "it was used again, not made again"


def turned(degrees: float) -> torch.Tensor:
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor(Rotation.from_euler("y", degrees, degrees=True).as_matrix(), dtype=torch.float32)
    return pose


def test_copies_of_better_hypotheses_come_last():
    poses = torch.stack([turned(d) for d in (0, 8, 100, 16, 172)])
    poses[1, :3, 3] = 0.2  # where it stands says nothing about which side is seen
    scores = torch.tensor([-700.0, -705.0, -720.0, -710.0, -699.0])
    order = _copies_last(scores, poses).argsort(descending=True)
    # The one at 16 degrees is a copy of the one at 8, which is better, though itself a copy.
    assert order.tolist() == [4, 0, 2, 1, 3]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [((252, 63, 33, 15, 8), 3), ((63, 33, 15, 8, 8), 3), ((252,) * 5, None), ((8, 4), None), ((40, 3, 3), None)],
)
def test_the_best_is_flipped_where_pruning_leaves_an_iteration(schedule, expected):
    assert Pruning(schedule).flipping == expected


def used_program():
    """A program that has registered a box, and the observation it did so in, filtered in the whole image."""
    item = object_of(textured_box())
    frame, mask = scene_of(item, random_pose(3))
    runners = [make_runner(n(0.125).eval(), "eager") for n in (RefineNet, RefineNet, ScoreNet)]
    config = PoseConfig(register_iterations=3, register_schedule="12,8,8")
    estimator = PoseEstimator([item], WarpRenderer([item], "cpu"), Networks(*runners), config, "cpu")
    observation = prepared(estimator, frame).everywhere()
    estimator.register(observation, "thing", mask)
    (program,) = estimator._registers.values()
    return program, observation


def test_turns_of_the_best_take_the_place_of_the_last():
    program, _ = used_program()
    before = program.views.poses.clone()
    program._try_turns(8)
    after = program.views.poses
    tried = [i for i in range(8) if not torch.allclose(after[i], before[i])]
    assert tried and min(tried) >= 4 and int(program._turned.sum()) >= 3
    for axis in np.eye(3):  # a box turns onto itself so
        half = torch.eye(4)
        half[:3, :3] = torch.tensor(Rotation.from_rotvec(np.pi * axis).as_matrix(), dtype=torch.float32)
        assert min(float((after[i] - before[0] @ half).abs().max()) for i in tried) < 0.05


class ReadOnTheHost(TorchDispatchMode):
    """Writes down what reads a value of a tensor on the host: on a GPU it waits, and cannot be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("item", "_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_what_a_gpu_captures_reads_nothing_on_the_host():
    program, observation = used_program()
    # As on a GPU, where nothing is filtered in part.
    program._observation = dataclasses.replace(observation, parts=None)
    with torch.inference_mode(), ReadOnTheHost() as host:
        packed, *_ = program.run()
    assert host.found == []
    assert torch.isfinite(packed).all()
    with ReadOnTheHost() as host:
        torch.arange(3)[torch.tensor(1)]
    assert host.found, "an index without dimensions is read"


class WithCoarse(FakeRunner):
    """A runner that has another one for some steps; both write down what they are asked."""

    def __init__(self, exact, coarse=None, steps=(Step.RESCORED,)) -> None:
        self._runner, self.coarse = exact, coarse
        self.coarse_for = frozenset(steps)
        self.asked: list[int] = []

    def prepare(self, batch, observed=None):
        self._runner.prepare(batch, observed)

    def __call__(self, rendered, observed):
        self.asked.append(len(rendered))
        return self._runner(rendered, observed)


class WithCoarseScores(WithCoarse):
    """A scorer in two steps. noise: of its embeddings, as a share of what tells them apart."""

    def __init__(self, network, noise=0.0, coarse=None, steps=(Step.RESCORED,)) -> None:
        super().__init__(make_runner(network, "eager"), coarse, steps)
        self._network, self._noise = network, noise

    def embed(self, rendered, observed):
        self.asked.append(len(rendered))
        with torch.inference_mode():
            found = self._network.encode(rendered, observed)
        noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(5))
        return found + self._noise * found.std(0) * noise

    def rank(self, embeddings):
        with torch.inference_mode():
            return self._network.rank(embeddings)


class Spoiled(WithCoarseScores):
    """Its answer about one of the first hypotheses it is asked about is NaN."""

    def embed(self, rendered, observed):
        found = super().embed(rendered, observed)
        found[1] = float("nan")
        return found


@pytest.fixture
def rescoring_eight(monkeypatch):
    """From nine hypotheses on, eight are rescored. A runner of the refiner that ships, and the scorer: to random weights all
    hypotheses are alike."""
    monkeypatch.setattr(register_program, "COARSE_FROM", 9)
    monkeypatch.setattr(register_program, "RESCORED", 8)
    refiner, _ = load_refiner(find(models_dir() / "pose", "refiner"))
    scorer, _ = load_scorer(find(models_dir() / "pose", "scorer"))
    return make_runner(refiner, "eager"), scorer


def registered(item, networks, **settings):
    """The estimate of an object that all these see alike."""
    frame, mask = scene_of(item, random_pose(3))
    estimator = PoseEstimator([item], WarpRenderer([item], "cpu"), networks, PoseConfig(**settings), "cpu")
    return estimator.register(prepared(estimator, frame), "thing", mask)


@pytest.mark.parametrize("spoiled", ["exact", "coarse"])
def test_a_score_that_is_not_finite_harms_no_other(rescoring_eight, spoiled):
    refiner, network = rescoring_eight
    rough = (Spoiled if spoiled == "coarse" else WithCoarseScores)(network)
    scorer = (Spoiled if spoiled == "exact" else WithCoarseScores)(network, coarse=rough)
    networks = Networks(refiner, WithCoarse(refiner, WithCoarse(refiner)), scorer)
    found = registered(object_of(textured_box()), networks, register_iterations=2, register_schedule="12")
    scores = found.ranking.scores[:8]
    unscored = scores == register_program.UNSCORED
    assert scores.isfinite().all() and unscored.sum() == (spoiled == "exact")
    assert not unscored[:7].any()


@pytest.mark.parametrize(
    ("schedule", "coarse", "exact", "scored"),
    [
        ("12", [12] * 6, [8] * 6, ([12], [8])),
        ("14,12,6", [], [14, 12, 6, 6, 6, 6], ([], [14, 12, 6])),
        ("7", [], [7] * 6, ([], [7])),
    ],
)
def test_what_decides_in_the_end_is_exact(rescoring_eight, schedule, coarse, exact, scored):
    refiner, network = rescoring_eight
    scorer = make_runner(network, "eager")
    rough, rough_scorer = WithCoarse(refiner), WithCoarseScores(network, noise=0.02)
    precise, precise_scorer = WithCoarse(refiner, rough), WithCoarseScores(network, coarse=rough_scorer)
    found = [
        registered(object_of(textured_box()), networks, register_iterations=6, register_schedule=schedule)
        for networks in (Networks(refiner, refiner, scorer), Networks(refiner, precise, precise_scorer))
    ]
    assert rough.asked == coarse and precise.asked == exact
    assert (rough_scorer.asked, precise_scorer.asked) == scored
    plain, both = found
    # Here the coarse refiner is as good, so that refining the best again must give what they had.
    np.testing.assert_allclose(both.T_cam_obj, plain.T_cam_obj, atol=1e-6)
    # Logits beside the embeddings of the others, which are coarse.
    torch.testing.assert_close(both.ranking.scores[:4], plain.ranking.scores[:4], atol=0.1, rtol=0)
    torch.testing.assert_close(both.ranking.poses[:4], plain.ranking.poses[:4])
    assert both.confidence == pytest.approx(plain.confidence)


@pytest.mark.parametrize(
    ("schedule", "coarse", "exact", "scored"),
    [
        ("14,12,6", [14, 12], [6, 6], ([14, 12], [6])),
        ("7", [], [7] * 4, ([], [7])),
    ],
)
def test_what_is_left_after_dropping_is_refined_and_scored_exactly(rescoring_eight, schedule, coarse, exact, scored):
    refiner, network = rescoring_eight
    rough, rough_scorer = WithCoarse(refiner), WithCoarseScores(network)
    precise = WithCoarse(refiner, rough, (Step.DROPPING,))
    precise_scorer = WithCoarseScores(network, coarse=rough_scorer, steps=(Step.DROPPING,))
    found = [
        registered(object_of(textured_box()), networks, register_iterations=4, register_schedule=schedule)
        for networks in (
            Networks(refiner, refiner, make_runner(network, "eager")),
            Networks(refiner, precise, precise_scorer),
        )
    ]
    assert (rough.asked, precise.asked) == (coarse, exact)
    assert (rough_scorer.asked, precise_scorer.asked) == scored
    np.testing.assert_allclose(found[1].T_cam_obj, found[0].T_cam_obj, atol=1e-6)


@pytest.mark.parametrize("steps", [(), (Step.TRACKING,)])
def test_a_coarse_runner_tracks_where_it_is_precise_enough(rescoring_eight, steps):
    refiner, network = rescoring_eight
    rough = WithCoarse(refiner)
    precise = WithCoarse(refiner, rough, steps)
    item, pose = object_of(textured_box()), random_pose(3)
    networks = Networks(precise, refiner, make_runner(network, "eager"))
    estimator = PoseEstimator([item], WarpRenderer([item], "cpu"), networks, PoseConfig(), "cpu")
    estimator.track(prepared(estimator, scene_of(item, pose)[0]), [TrackRequest("thing", pose)])
    assert (bool(rough.asked), bool(precise.asked)) == (bool(steps), not steps)
