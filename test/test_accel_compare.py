"""Differences between two ways to run the networks: units, symmetry, order of scores, verdict."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.evaluate.compare import Differences, OrderChanges, pose_difference


def pose(rotvec_deg, t) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(np.deg2rad(rotvec_deg)).as_matrix()
    T[:3, 3] = t
    return T


@pytest.mark.parametrize("angle", [1e-6, 0.01, 0.2, 30.0, 89.0, 91.0, 179.0])
def test_millimetres_and_degrees(angle):
    base = pose([10, -70, 30], [0.1, 0.2, 0.7])
    other = base @ pose([0, 0, angle], [0, 0, 0])
    other[:3, 3] += [0.0003, 0.0, 0.0004]
    mm, deg = pose_difference(base, other)
    assert mm == pytest.approx(0.5, rel=1e-9)
    assert deg == pytest.approx(angle, rel=1e-4)


def test_symmetric_poses_are_equal():
    half_turn = pose([0, 0, 180], [0.02, 0, 0])  # about an axis off the origin
    symmetries = np.stack([np.eye(4), half_turn])
    base = pose([20, 5, -3], [0, 0, 0.6])
    mm, deg = pose_difference(base, base @ half_turn, symmetries)
    assert mm < 1e-9 and deg < 1e-4
    assert pose_difference(base, base @ half_turn)[1] == pytest.approx(180)


def test_verdict_is_about_the_95th_percentile():
    d = Differences()
    with pytest.raises(ValueError, match="no differences"):
        d.within()
    for _ in range(97):
        d.add(0.1, 0.05)
    for _ in range(3):
        d.add(40.0, 20.0)
    assert d.within()
    assert d.percentiles()["mm"]["max"] == 40.0
    for _ in range(5):
        d.add(40.0, 0.05)
    assert not d.within()
    broken = Differences()
    broken.add(float("nan"), 0.0)
    assert not broken.within()


def test_order_changes():
    changes = OrderChanges()
    changes.add([1.0, 2.0, 3.0], [1.1, 2.1, 2.9])
    changes.add([1.0, 2.0, 3.0], [1.0, 3.0, 2.5])
    found = changes.summary()
    assert (found["compared"], found["winner_changed"]) == (2, 1)
    assert found["pairs_swapped_mean"] == pytest.approx((0 + 1 / 3) / 2)
    assert found["winner_margin_lost_max"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="equal score vectors"):
        changes.add([1.0, 2.0], [1.0])
