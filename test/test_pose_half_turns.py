"""Half turns about principal axes: they bring symmetric bodies onto themselves, however their mesh lies in its frame."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.pose.half_turns import half_turns, principal_axes

BODIES = {
    "box": (trimesh.creation.box((0.1, 0.06, 0.03)), 3),
    "square box": (trimesh.creation.box((0.05, 0.05, 0.12)), 3),
    "cube": (trimesh.creation.box((0.05, 0.05, 0.05)), 3),
    "can": (trimesh.creation.cylinder(0.03, 0.1, sections=48), 3),
    "cone": (trimesh.creation.cone(0.03, 0.1, sections=48), 1),
}


@pytest.mark.parametrize("name", BODIES)
def test_symmetric_bodies_come_onto_themselves(name):
    body, count = BODIES[name]
    body = body.subdivide().subdivide()
    found = sum(onto_itself(body.vertices, turn) for turn in half_turns(body.vertices, body.faces))
    assert found >= count


@pytest.mark.parametrize("name", ["box", "cone"])
def test_however_the_mesh_lies_in_its_frame(name):
    body, count = BODIES[name]
    body = body.subdivide().subdivide()
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", [40, -25, 70], degrees=True).as_matrix()
    T[:3, 3] = 0.3, -0.1, 0.2
    moved = body.copy().apply_transform(T)
    turns = half_turns(moved.vertices, moved.faces)
    assert sum(onto_itself(moved.vertices, turn) for turn in turns) >= count
    np.testing.assert_allclose(turns @ turns, np.tile(np.eye(4), (3, 1, 1)), atol=1e-9)


def test_equal_moments_leave_the_axes_of_the_mesh():
    for name in ("square box", "cube", "can"):
        body, _ = BODIES[name]
        axes, centroid = principal_axes(body.vertices, body.faces)
        np.testing.assert_allclose(np.sort(np.abs(axes), axis=None)[-3:], 1, atol=1e-6)
        np.testing.assert_allclose(np.abs(axes).max(0), 1, atol=1e-6)
        np.testing.assert_allclose(centroid, 0, atol=1e-9)


def test_a_mesh_without_surface_has_the_frame_s_axes():
    turns = half_turns(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    np.testing.assert_array_equal(turns[:, :3, 3], 0)
    np.testing.assert_array_equal(turns[0, :3, :3], np.diag([1, -1, -1]))


def onto_itself(vertices, turn):
    moved = vertices @ turn[:3, :3].T + turn[:3, 3]
    return cKDTree(vertices).query(moved)[0].max() < 1e-3
