"""Turns after which a shape is nearly where it was."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.objects import DiscreteSymmetry
from rfdetr_foundationpose.pose.near_symmetries import APART, MOST_TURNS, near_symmetries
from support.pose_scenes import object_of

HALF, QUARTER = np.pi, np.pi / 2


def turns_of(mesh, **spec):
    return near_symmetries(object_of(mesh, **spec))


def holds(turns, axis, angle, tolerance=0.14):
    wanted = Rotation.from_rotvec(np.asarray(axis, float) * angle)
    return any((Rotation.from_matrix(T[:3, :3]) * wanted.inv()).magnitude() < tolerance for T in turns)


def test_a_box_has_its_half_turns():
    turns = turns_of(trimesh.creation.box((0.12, 0.08, 0.05)))
    assert len(turns) == 3
    assert all(holds(turns, axis, HALF, 1e-3) for axis in np.eye(3))


def test_a_nearly_square_box_also_has_quarter_turns():
    turns = turns_of(trimesh.creation.box((0.100, 0.096, 0.05)))
    assert holds(turns, (0, 0, 1), QUARTER) and holds(turns, (0, 0, 1), -QUARTER)
    assert all(holds(turns, axis, HALF, 1e-3) for axis in np.eye(3))


def test_a_can_has_turns_about_its_axis_besides_the_half_one():
    turns = turns_of(trimesh.creation.cylinder(0.03, 0.1, sections=64))
    about = [T for T in turns if T[2, 2] > 0.99]
    assert len(turns) == MOST_TURNS and len(about) >= 2


def test_what_is_alike_nowhere_still_tries_half_turns():
    wedge = trimesh.convex.convex_hull([[0, 0, 0], [0.1, 0, 0], [0, 0.07, 0], [0.02, 0.01, 0.04], [0.09, 0.02, 0.02]])
    turns = turns_of(wedge)
    assert 1 <= len(turns) <= MOST_TURNS
    for T in turns:
        np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(T[:3, :3]) == pytest.approx(1)


def test_declared_symmetries_are_not_tried():
    box = trimesh.creation.box((0.12, 0.08, 0.05))
    declared = tuple(DiscreteSymmetry(axis, 2, (0.0, 0.0, 0.0)) for axis in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    assert len(turns_of(box, discrete=declared)) == 0


def test_turns_lie_apart_and_are_the_same_each_time():
    mesh = trimesh.creation.icosphere(3, 0.05)
    turns = turns_of(mesh)
    np.testing.assert_array_equal(turns, turns_of(mesh))
    rotations = Rotation.from_matrix(np.concatenate([np.eye(3)[None], turns[:, :3, :3]]))
    for i, a in enumerate(rotations):
        assert all((a * b.inv()).magnitude() > APART for j, b in enumerate(rotations) if j != i)


def test_a_mesh_away_from_its_origin_turns_in_place():
    mesh = trimesh.creation.box((0.12, 0.08, 0.05)).apply_translation((0.4, -0.2, 0.3))
    item = object_of(mesh)
    moved = near_symmetries(item) @ np.append(item.arrays.vertices.mean(0), 1)
    np.testing.assert_allclose(moved[:, :3], np.broadcast_to(item.arrays.vertices.mean(0), (len(moved), 3)), atol=2e-3)
