"""Which registration programs an estimator keeps."""

from __future__ import annotations

import dataclasses

from pose_scenes import object_of, prepared, random_pose, scene_of, textured_box

from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose.estimator import Networks, PoseEstimator
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.pose.renderer import WarpRenderer


def test_the_program_used_longest_ago_gives_way():
    item = object_of(textured_box())
    frame, mask = scene_of(item, random_pose(3))
    runners = [make_runner(n(0.125).eval(), "eager", "cpu", print) for n in (RefineNet, RefineNet, ScoreNet)]
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
