"""Hypotheses around the view sphere, symmetries, and the first guess of the translation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.objects import ContinuousSymmetry, DiscreteSymmetry
from rfdetr_foundationpose.pose.hypotheses import guess_translation, hypothesis_rotations, view_rotations
from rfdetr_foundationpose.pose.symmetry import nearest_equivalent, rotation_angle, symmetry_transforms

ANY = torch.tensor([torch.inf])
NONE = symmetry_transforms((), (), np.zeros(3))
HALF_TURN = symmetry_transforms((DiscreteSymmetry((0, 0, 1), 2),), (), np.zeros(3))
BOX = symmetry_transforms((DiscreteSymmetry((0, 0, 1), 2), DiscreteSymmetry((1, 0, 0), 2)), (), np.zeros(3))
AXIS = symmetry_transforms((), (ContinuousSymmetry((0, 0, 1)),), np.zeros(3))


def test_252_views_cover_all_rotations():
    rotations = view_rotations()
    assert rotations.shape == (252, 3, 3)
    np.testing.assert_allclose(rotations @ np.swapaxes(rotations, 1, 2), np.eye(3)[None].repeat(252, 0), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    samples = Rotation.random(500, rng=np.random.default_rng(0)).as_matrix()
    angles = rotation_angle(np.einsum("sij,nkj->snik", samples, rotations)).min(1)
    assert np.degrees(angles.max()) < 42


def test_the_camera_looks_at_the_object_upright():
    R_cam_obj = view_rotations()[0]
    z_cam_in_obj = R_cam_obj[2]
    position = -z_cam_in_obj  # on the unit sphere
    np.testing.assert_allclose(R_cam_obj @ (np.zeros(3) - position), [0, 0, 1], atol=1e-9)
    assert abs(R_cam_obj[0] @ [0, 0, 1]) < 1e-9  # x_cam is level: up x z


@pytest.mark.parametrize(("symmetries", "expected"), [(NONE, 252), (HALF_TURN, 126), (BOX, 63)])
def test_symmetry_thins_the_hypotheses(symmetries, expected):
    kept = hypothesis_rotations(symmetries)
    assert 0.5 * expected <= len(kept) <= expected
    # What was dropped is within 30 degrees of a kept one, up to symmetry.
    looks = np.einsum("nij,kjl->nkil", kept, symmetries[:, :3, :3]).reshape(-1, 3, 3)
    angles = rotation_angle(np.einsum("sij,nkj->snik", view_rotations(), looks)).min(1)
    assert np.degrees(angles.max()) < 30


def test_a_round_object_needs_few_hypotheses():
    """20 by an angle of 30 degrees; 32 by one of 20."""
    assert len(hypothesis_rotations(AXIS)) == 20


def test_symmetry_group_is_closed_and_about_the_centre():
    assert len(BOX) == 4
    assert len(AXIS) == 72
    for a in BOX:
        for b in BOX:
            assert np.isclose(BOX, a @ b, atol=1e-9).all((1, 2)).any()
    center = np.array([0.3, 0.1, -0.2])
    off = symmetry_transforms((DiscreteSymmetry((0, 0, 1), 3, (0.3, 0.1, 0.0)),), (), center)
    assert len(off) == 3
    for T in off:
        np.testing.assert_allclose(T @ [0, 0, 0.5, 1], [0, 0, 0.5, 1], atol=1e-9)


def test_symmetries_that_contradict_each_other_are_refused():
    skew = (DiscreteSymmetry((0, 0, 1), 5), DiscreteSymmetry((0, 0.6, 0.8), 7))
    with pytest.raises(ConfigError, match="more than 120 looks"):
        symmetry_transforms(skew, (), np.zeros(3))


def test_nearest_equivalent_follows_the_reference():
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", [0.3, 0.2, 0.1]).as_matrix()
    for S in AXIS[::9]:
        np.testing.assert_allclose(nearest_equivalent(T @ S, T, AXIS), T, atol=1e-9)
    np.testing.assert_array_equal(nearest_equivalent(T, np.eye(4), NONE), T)


def test_rotation_angle_is_exact_for_small_and_large_angles():
    for angle in (1e-8, 1e-3, 1.0, np.pi - 1e-6):
        R = Rotation.from_rotvec([0, angle, 0]).as_matrix()
        assert rotation_angle(R) == pytest.approx(angle, rel=1e-6)


def test_first_translation():
    depth = torch.zeros(60, 80)
    mask = torch.zeros(60, 80, dtype=torch.bool)
    mask[10:21, 30:51] = True
    depth[10:21, 30:41] = 0.8
    depth[10:21, 41:45] = 1.0
    K = torch.tensor([[100.0, 0, 40], [0, 110.0, 30], [0, 0, 1]])
    t, pixels, valid = guess_translation(depth, mask, K, ANY)
    assert (int(pixels), int(valid)) == (231, 165)
    np.testing.assert_allclose(t, [0.0, (15 - 30) / 110 * 0.8, 0.8], atol=1e-6)
    # Of an even number of depths the median lies between the two in the middle.
    depth[10:21, 30:33] = 0.6
    depth[10:21, 33:36] = 0.7
    depth[10:21, 36:42] = 1.0
    depth[10:21, 42:45] = 0.0
    t, _, valid = guess_translation(depth, mask, K, ANY)
    assert int(valid) % 2 == 0 and float(t[2]) == pytest.approx(0.85)
    for bad_depth, bad_mask in ((depth * 0, mask), (depth, torch.zeros_like(mask))):
        assert 0 in [int(v) for v in guess_translation(bad_depth, bad_mask, K, ANY)[1:]]


def test_a_mask_of_which_more_is_background_than_object_is_told_by_the_nearer_quarter():
    depth = torch.full((100, 100), 2.0)
    mask = torch.zeros(100, 100, dtype=torch.bool)
    mask[40:60, 40:60] = True
    depth[43:57, 43:57] = 1.0 + torch.linspace(0, 0.05, 14)  # 196 of 400 pixels
    K = torch.tensor([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    reach = torch.tensor([0.1])
    assert guess_translation(depth, mask, K, ANY)[0][2] == 2.0, "the median of the mask"
    found, pixels, valid = guess_translation(depth, mask, K, reach)
    assert 1.0 < found[2] < 1.05 and pixels == valid == 400
    depth[mask] = 1.0 + torch.linspace(0, 0.09, 400)  # as deep as an object may be
    assert torch.equal(guess_translation(depth, mask, K, reach)[0], guess_translation(depth, mask, K, ANY)[0])
    depth[mask] = 0.0
    assert guess_translation(depth, mask, K, reach)[2] == 0
