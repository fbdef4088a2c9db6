"""Nothing in the captured steps reads a tensor back, said by torch itself: on a GPU each such place is a wait."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose.estimator import PoseEstimator, TrackRequest
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.runners import Networks
from support.pose_scenes import object_of, prepared, random_pose, scene_of, textured_box

WAITS = ("_local_scalar_dense", "nonzero", "_unique", "unique_", "masked_select", "is_nonzero", "equal.default")


class Readbacks(TorchDispatchMode):
    """Operators that wait for the device, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.operators = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operators += 1
        if any(word in str(func) for word in WAITS):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_a_readback():
    values = torch.arange(3)
    with Readbacks() as seen:
        values[torch.tensor(1)]  # an index of no dimension is read back
    assert seen.found


@pytest.mark.parametrize("schedule", ["12,8", "80,12,8"])
def test_registration_and_tracking_read_nothing_back(schedule):
    item = object_of(textured_box())
    T = random_pose(3)
    frame, mask = scene_of(item, T)
    torch.manual_seed(0)
    refiner, scorer = RefineNet(0.125).eval(), ScoreNet(0.125).eval()
    runners = [make_runner(network, "eager") for network in (refiner, refiner, scorer)]
    config = PoseConfig(register_schedule=schedule, register_iterations=3)
    estimator = PoseEstimator([item], WarpRenderer([item], "cpu"), Networks(*runners), config, "cpu")
    pose_frame = prepared(estimator, frame)
    estimator.register(pose_frame, "thing", mask)
    estimator.track(pose_frame, [TrackRequest("thing", item.from_centered(T))])
    for track in estimator._tracks.values():
        track._may_stop = False  # as on a GPU
    for program in (*estimator._registers.values(), *estimator._tracks.values()):
        with torch.inference_mode(), Readbacks() as seen:
            program.run()
        assert seen.operators > 20 and seen.found == [], program.graph.name


def test_a_refused_mask_costs_no_registration(monkeypatch):
    item = object_of(textured_box())
    frame, mask = scene_of(item, random_pose(3))
    runners = [make_runner(n(0.125).eval(), "eager") for n in (RefineNet, RefineNet, ScoreNet)]
    config = PoseConfig(register_schedule="4")
    estimator = PoseEstimator([item], WarpRenderer([item], "cpu"), Networks(*runners), config, "cpu")
    pose_frame = prepared(estimator, frame)
    estimator.register(pose_frame, "thing", mask)
    (program,) = estimator._registers.values()
    monkeypatch.setattr(program, "run", lambda: pytest.fail("registered for nothing"))
    with pytest.raises(RuntimeError, match="mask is empty"):
        estimator.register(pose_frame, "thing", torch.zeros_like(mask))
    with pytest.raises(RuntimeError, match="have depth in"):
        blind = dataclasses.replace(frame, depth=np.zeros_like(frame.depth))
        estimator.register(prepared(estimator, blind), "thing", mask)
