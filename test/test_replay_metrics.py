"""Pose errors against cases whose answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.objects import ContinuousSymmetry, DiscreteSymmetry, ObjectSpec
from rfdetr_foundationpose.replay.metrics import (
    ObjectGeometry,
    PoseError,
    percentiles,
    pose_error,
    recall,
    summarize,
    symmetry_group,
)


def pose(rotvec_deg=(0.0, 0.0, 0.0), t=(0.0, 0.0, 1.0)) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(np.deg2rad(rotvec_deg)).as_matrix()
    T[:3, 3] = t
    return T


@pytest.fixture
def cloud() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.05, 0.05, (500, 3))


def test_pure_translation_gives_its_length_everywhere(cloud):
    geometry = ObjectGeometry.from_points(cloud, 0.17)
    error = pose_error(pose(t=(0.003, 0.0, 1.004)), pose(), geometry)
    assert error.translation_mm == pytest.approx(5.0)
    assert error.rotation_deg == pytest.approx(0.0, abs=1e-6)
    assert error.add_mm == pytest.approx(5.0)
    assert error.adds_mm <= error.add_mm


def test_rotation_of_two_points_has_the_chord_as_add_and_zero_adds():
    # Two antipodal points turned by 180 degrees swap places: ADD is the distance, ADD-S zero.
    geometry = ObjectGeometry.from_points(np.array([[0.1, 0, 0], [-0.1, 0, 0]]), 0.2)
    swapped = pose_error(pose((0, 0, 180)), pose(), geometry)
    assert swapped.add_mm == pytest.approx(200.0)
    assert swapped.adds_mm == pytest.approx(0.0, abs=1e-9)
    quarter = pose_error(pose((0, 0, 60)), pose(), geometry)
    assert quarter.rotation_deg == pytest.approx(60.0)
    assert quarter.add_mm == pytest.approx(2 * 100 * np.sin(np.pi / 6))


def test_far_origin_does_not_leak_rotation_into_translation(cloud):
    offset = np.array([0.0, 0.0, 3.0])
    geometry = ObjectGeometry.from_points(cloud + offset, 0.17)
    centred = ObjectGeometry.from_points(cloud, 0.17)
    shift = np.eye(4)
    shift[:3, 3] = -offset
    estimate, truth = pose((5, 0, 0), (0.002, 0, 1)), pose()
    far = pose_error(estimate @ shift, truth @ shift, geometry)
    near = pose_error(estimate, truth, centred)
    for name in ("translation_mm", "rotation_deg", "add_mm", "adds_mm"):
        assert getattr(far, name) == pytest.approx(getattr(near, name), rel=1e-6)


def test_discrete_symmetry_is_forgiven_and_the_rest_measured(cloud):
    symmetry = DiscreteSymmetry(axis=(0, 0, 1), fold=4)
    geometry = ObjectGeometry.from_points(cloud, 0.17, [symmetry])
    assert pose_error(pose((0, 0, 90)), pose(), geometry).rotation_deg == pytest.approx(0.0, abs=1e-5)
    assert pose_error(pose((0, 0, 97)), pose(), geometry).rotation_deg == pytest.approx(7.0)
    assert pose_error(pose((30, 0, 0)), pose(), geometry).rotation_deg == pytest.approx(30.0)


def test_continuous_symmetry_removes_exactly_the_spin(cloud):
    geometry = ObjectGeometry.from_points(cloud, 0.17, continuous=[ContinuousSymmetry(axis=(0, 0, 1))])
    truth = pose((20, -35, 50))
    spin = np.eye(4)
    spin[:3, :3] = Rotation.from_rotvec([0, 0, 1.2345]).as_matrix()
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_rotvec(np.deg2rad([4.0, 0, 0])).as_matrix()
    assert pose_error(truth @ spin, truth, geometry).rotation_deg == pytest.approx(0.0, abs=1e-5)
    assert pose_error(truth @ tilt @ spin, truth, geometry).rotation_deg == pytest.approx(4.0, abs=1e-5)


def test_continuous_symmetry_about_a_point_off_the_origin_keeps_translation(cloud):
    axis = ContinuousSymmetry(axis=(0, 1, 0), point=(0.2, 0.0, 0.1))
    points = cloud + np.array(axis.point)
    points = np.concatenate([points, 2 * np.array(axis.point) - points])  # centred on the axis
    geometry = ObjectGeometry.from_points(points, 0.17, continuous=[axis])
    spun = pose() @ _about(axis, 77)
    error = pose_error(spun, pose(), geometry)
    assert error.translation_mm == pytest.approx(0.0, abs=1e-6)
    assert error.rotation_deg == pytest.approx(0.0, abs=1e-5)
    assert error.add_mm == pytest.approx(0.0, abs=1e-6)


def _about(symmetry: ContinuousSymmetry, degrees: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * np.array(symmetry.axis)).as_matrix()
    T[:3, 3] = np.array(symmetry.point) - T[:3, :3] @ np.array(symmetry.point)
    return T


def test_ball_has_no_rotation_error_but_keeps_translation(cloud):
    axes = [ContinuousSymmetry(axis=(0, 0, 1)), ContinuousSymmetry(axis=(1, 0, 0))]
    geometry = ObjectGeometry(cloud, 0.17, np.zeros(3), axes=tuple(axes))
    error = pose_error(pose((10, 80, -33), (0, 0.007, 1)), pose(), geometry)
    assert error.rotation_deg == pytest.approx(0.0, abs=1e-5)
    assert error.translation_mm == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("symmetries", "size"),
    [
        ([], 1),
        ([DiscreteSymmetry((0, 0, 1), 6)], 6),
        ([DiscreteSymmetry((0, 0, 1), 2), DiscreteSymmetry((1, 0, 0), 2)], 4),
        ([DiscreteSymmetry((0, 0, 1), 4), DiscreteSymmetry((1, 0, 0), 4)], 24),
    ],
)
def test_group_closure_has_the_known_order(symmetries, size):
    group = symmetry_group(symmetries)
    assert len(group) == size
    np.testing.assert_allclose(group[0], np.eye(4))
    np.testing.assert_allclose(np.linalg.det(group[:, :3, :3]), 1.0)


def test_geometry_of_a_mesh_file_lies_on_its_surface(tmp_path):
    mesh = trimesh.creation.box(extents=(100, 60, 40))
    mesh.apply_translation((1000, 0, 0))
    mesh.export(tmp_path / "box.ply")
    spec = ObjectSpec("box", tmp_path / "box.ply", scale=0.001, color=(200, 0, 0))
    geometry = ObjectGeometry.from_spec(spec)
    np.testing.assert_allclose(geometry.centre, (1.0, 0, 0), atol=1e-6)
    assert geometry.diameter == pytest.approx(np.linalg.norm([0.1, 0.06, 0.04]))
    local = np.abs(geometry.points - geometry.centre) / np.array([0.05, 0.03, 0.02])
    np.testing.assert_allclose(local.max(axis=1), 1.0, atol=1e-5)
    again = ObjectGeometry.from_spec(spec)
    np.testing.assert_array_equal(geometry.points, again.points)


def test_recall_counts_missing_poses_as_failures():
    good = PoseError(1, 1, 1, 1, 0.05, 0.05)
    bad = PoseError(90, 90, 90, 90, 0.2, 0.2)
    assert recall([good, bad, None, good]) == 0.5
    assert np.isnan(recall([]))


def test_summary_has_the_keys_of_result_json_and_null_without_poses():
    full = summarize([PoseError(1, 2, 3, 4, 0.05, 0.05), PoseError(3, 4, 5, 6, 0.05, 0.05)])
    assert full["translation_error_mm"] == {"p50": 2.0, "p95": pytest.approx(2.9)}
    assert full["rotation_error_deg"]["p50"] == 3.0
    assert full["adds_recall_0.1d"] == 1.0
    assert summarize([])["adds_recall_0.1d"] is None
    assert percentiles([], ("p50", "max")) == {"p50": None, "max": None}


def test_bad_geometry_is_refused(cloud):
    with pytest.raises(ValueError, match="diameter=0"):
        ObjectGeometry.from_points(cloud, 0.0)
    with pytest.raises(ValueError, match=r"expected \(P, 3\)"):
        ObjectGeometry(np.zeros((0, 3)), 0.1, np.zeros(3))
