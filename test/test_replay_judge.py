"""Instances are matched by nearness, and what is missing or too much is counted."""

from __future__ import annotations

import numpy as np
import pytest

from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.replay.judge import FoundPose, Judge, instance_names
from rfdetr_foundationpose.replay.metrics import ObjectGeometry
from rfdetr_foundationpose.replay.recording import GroundTruth, InstanceTruth


def at(x: float, z: float = 1.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = (x, 0, z)
    return T


@pytest.fixture
def judge(tmp_path) -> Judge:
    points = np.random.default_rng(1).uniform(-0.05, 0.05, (200, 3))
    geometry = ObjectGeometry.from_points(points, 0.17)
    specs = [ObjectSpec("can", tmp_path / "can.ply", max_instances=2), ObjectSpec("mug", tmp_path / "mug.ply")]
    return Judge({"can": geometry, "mug": geometry}, instance_names(specs))


def test_swapped_instance_numbers_are_no_error(judge):
    truth = GroundTruth((InstanceTruth("can", "can", at(-0.2)), InstanceTruth("can_1", "can", at(0.2))))
    errors = judge.judge([FoundPose("can", at(0.201)), FoundPose("can_1", at(-0.2))], truth)
    assert errors[0].translation_mm == pytest.approx(1.0)
    assert errors[1].translation_mm == pytest.approx(0.0)
    assert judge.missing == judge.spurious == 0


def test_missing_and_spurious_poses_are_counted(judge):
    truth = GroundTruth((InstanceTruth("can", "can", at(0.0), visibility=0.9),))
    assert judge.judge([FoundPose("mug", at(0.0))], truth) == [None]
    assert judge.missing_by_object == {"can": 1}
    assert judge.spurious == 1


def test_a_hidden_object_need_not_be_found(judge):
    truth = GroundTruth((InstanceTruth("can", "can", at(0.0), visibility=0.1),))
    assert judge.judge([], truth) == []
    judge.count_absent(truth, 5)
    assert judge.missing == 0


def test_frames_with_nothing_count_every_visible_object(judge):
    truth = GroundTruth((InstanceTruth("can", "can", at(0.0)), InstanceTruth("x", "unknown", at(0.3))))
    judge.count_absent(truth, 3)
    assert judge.missing == 3


def test_without_ground_truth_nothing_is_judged(judge):
    assert judge.judge([FoundPose("mug", at(0.0))], GroundTruth()) == [None]
    assert judge.missing == judge.spurious == 0
