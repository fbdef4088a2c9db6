"""The light that shaded a scanned object: found beside its print, taken out of its colours, and not found where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from rfdetr_foundationpose.object_tools.fusion import View, paint
from rfdetr_foundationpose.object_tools.shading import PAPER, STRONGEST, Light, fit_light
from rfdetr_foundationpose.types import CameraIntrinsics


def lamp(normals, towards=(1.0, 0.4, 0.6), ambient=0.45):
    """Light of all sides and of a lamp, as no spherical harmonics of order two describe it exactly; 1 on the board."""
    direction = np.array(towards) / np.linalg.norm(towards)
    light = ambient + (1 - ambient) * np.clip(normals @ direction, 0, None)
    return light / (ambient + (1 - ambient) * direction[2])


def ball():
    mesh = trimesh.creation.icosphere(5, 0.05)
    return np.asarray(mesh.vertices) + (0, 0, 0.05), np.asarray(mesh.vertex_normals)


def striped(points):
    """White with grey, red and dark stripes, which a robust fit must tell from light."""
    colours = np.tile([225.0, 225.0, 220.0], (len(points), 1))
    turn = np.arctan2(points[:, 1], points[:, 0])
    colours[np.sin(6 * turn) > 0.6] = (120, 120, 120)
    colours[(points[:, 2] > 0.03) & (points[:, 2] < 0.045)] = (190, 30, 40)
    colours[points[:, 2] > 0.085] = (40, 44, 48)
    return colours


def spread(colours, truth):
    """By what factor colours and truth differ: 5th to 95th percentile."""
    ratio = np.log(colours.mean(1) / truth.mean(1))
    return float(np.exp(np.quantile(ratio, 0.95) - np.quantile(ratio, 0.05)))


def test_light_is_found_beside_the_print():
    points, normals = ball()
    truth = striped(points)
    noise = np.random.default_rng(1).normal(0, 2, truth.shape)
    seen = 0.8 * truth * lamp(normals)[:, None] + noise
    light = fit_light(points, normals, seen, points[:, 2] > 0.006)
    assert spread(seen, truth) > 2.0
    mended = seen / light.strength(normals)[:, None]
    assert spread(mended, truth) < 1.4
    # On the board it is 1, so that what faces up keeps its colour.
    np.testing.assert_allclose(light.strength(np.array([[0.0, 0.0, 1.0]])), 1.0)


def test_print_is_no_light():
    points, normals = ball()
    truth = striped(points)
    light = fit_light(points, normals, truth, np.ones(len(points), bool))
    assert spread(truth / light.strength(normals)[:, None], truth) < 1.1


def test_a_box_with_a_colour_for_each_side_keeps_them():
    points, normals = [], []
    rng = np.random.default_rng(3)
    for axis in range(3):
        for sign in (-1, 1):
            face = rng.uniform(-0.05, 0.05, (2000, 3))
            face[:, axis] = sign * 0.05
            points.append(face)
            normals.append(np.tile(sign * np.eye(3)[axis], (2000, 1)))
    points, normals = np.concatenate(points) + (0, 0, 0.05), np.concatenate(normals)
    sides = np.array([[200, 40, 40], [40, 170, 60], [60, 70, 200], [220, 210, 60], [200, 200, 200], [150, 60, 180]])
    truth = np.repeat(sides, 2000, axis=0).astype(float)
    light = fit_light(points, normals, truth, np.ones(len(points), bool))
    np.testing.assert_allclose(light.strength(normals), 1.0, atol=0.05)


@pytest.mark.parametrize("seen", [0, 60])
def test_too_few_points_say_nothing(seen):
    points, normals = ball()
    light = fit_light(points, normals, striped(points) * lamp(normals)[:, None], np.arange(len(points)) < seen)
    np.testing.assert_array_equal(light.strength(normals), 1.0)


def test_a_light_turns_with_the_object_and_is_limited():
    light = Light(np.array([0.3, 0, 0, 0, 0, 0, 0, 0]), np.eye(3))
    R = trimesh.transformations.rotation_matrix(np.pi / 2, (0, 0, 1))[:3, :3]
    normals = np.random.default_rng(0).normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    np.testing.assert_allclose(light.seen_from(R).strength(normals @ R.T), light.strength(normals))
    fierce = Light(np.full(8, 9.0), np.eye(3)).strength(normals)
    assert fierce.max() <= STRONGEST + 1e-9 and fierce.min() >= 1 / STRONGEST - 1e-9


def plate_view(rgb, depth, **changes):
    camera = CameraIntrinsics(100.0, 100.0, 31.5, 31.5, 64, 64)
    T = np.diag([1.0, -1.0, -1.0, 1.0])  # from above, 0.5 m
    T[2, 3] = 0.5
    return View(rgb, depth, camera, T, **changes)


def plate():
    mesh = trimesh.creation.box((0.16, 0.16, 0.002)).subdivide_to_size(0.01)
    mesh.apply_translation((0, 0, -0.001))
    return mesh


def test_exposure_and_white_balance_are_the_papers():
    """A grey of half the paper's brightness comes out as that, whatever the camera made of it in each view."""
    views = []
    for white in ((200.0, 180.0, 120.0), (90.0, 100.0, 110.0)):
        rgb = np.tile(np.array(white) / 2, (64, 64, 1)).round().astype(np.uint8)
        views.append(plate_view(rgb, np.full((64, 64), 0.5, np.float32), white=np.array(white)))
    painted = paint(plate(), views, 0.002).mesh
    top = painted.vertex_normals[:, 2] > 0.9
    colours = np.asarray(painted.visual.vertex_colors)[top, :3].astype(float)
    np.testing.assert_allclose(colours, PAPER / 2, atol=3)


def test_pixels_beside_a_step_of_depth_do_not_colour_what_others_see_well():
    """In one view something bright stands before half of the plate, and bleeds over its edge; the other view is free."""
    rgb, depth = np.full((64, 64, 3), 100, np.uint8), np.full((64, 64), 0.5, np.float32)
    before = rgb.copy(), depth.copy()
    before[0][:, 30:] = 250  # two pixels farther than the depth says
    before[1][:, 32:] = 0.3
    mixed, free = plate_view(*before), plate_view(rgb, depth)
    painted = paint(plate(), [mixed] * 20 + [free], 0.002).mesh
    top = painted.vertex_normals[:, 2] > 0.9
    assert np.abs(np.asarray(painted.visual.vertex_colors)[top, :3].astype(float) - 100).max() < 4


def test_what_nobody_saw_has_the_ground_of_the_print_and_not_its_lines():
    block = trimesh.creation.box((0.16, 0.16, 0.05)).subdivide_to_size(0.01)
    block.apply_translation((0, 0, -0.025))
    rgb = np.full((64, 64, 3), 40, np.uint8)
    rgb[:, ::8] = 250
    painted = paint(block, [plate_view(rgb, np.full((64, 64), 0.5, np.float32))], 0.002).mesh
    colours = np.asarray(painted.visual.vertex_colors)[:, :3].astype(float)
    assert colours[painted.vertex_normals[:, 2] > 0.9].max() > 120
    np.testing.assert_allclose(colours[painted.vertices[:, 2] < -0.04], 40, atol=15)


def test_what_only_mixed_pixels_show_at_a_slant_has_the_colour_around_it():
    """A strip that one view leaves out is seen by another, aslant, beside an edge whose white bleeds onto it."""
    rgb, depth = np.full((64, 64, 3), 100, np.uint8), np.full((64, 64), 0.5, np.float32)
    depth[:, 28:36] = 0
    c, s = np.cos(np.deg2rad(65)), np.sin(np.deg2rad(65))
    straight = plate_view(rgb, depth)
    T = straight.T_cam_board.copy()
    T[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ T[:3, :3]
    ray = np.dstack([*np.meshgrid((np.arange(64) - 31.5) / 100, (np.arange(64) - 31.5) / 100), np.ones((64, 64))])
    away = (T[:3, 2] @ T[:3, 3] / (ray @ T[:3, 2])).astype(np.float32)
    away[1::2] = 0.2  # every pixel beside an edge
    aslant = replace(straight, rgb=np.full_like(rgb, 250), depth=away, T_cam_board=T)
    painted = paint(plate(), [straight, aslant], 0.002)
    top = painted.mesh.vertex_normals[:, 2] > 0.9
    assert (painted.views[top & (np.abs(painted.mesh.vertices[:, 0]) < 0.015)] == 1).any()
    assert np.abs(np.asarray(painted.mesh.visual.vertex_colors)[top, :3].astype(float) - 100).max() < 10


def test_what_was_seen_below_the_board_is_coloured_as_it_was_seen():
    """The underside that a second pass adds lies as much below the first one's board as above it, by the noise of depth."""
    low = plate()
    low.apply_translation((0, 0, -0.003))
    rgb = np.full((64, 64, 3), 100, np.uint8)
    rgb[np.arange(64) // 8 % 2 == 0] = 200
    view = plate_view(rgb, np.full((64, 64), 0.503, np.float32))
    colours = [
        np.asarray(paint(m, [view], 0.002).mesh.visual.vertex_colors)[:, 0].astype(float) for m in (plate(), low)
    ]
    np.testing.assert_allclose(*colours, atol=12)
    assert np.std(colours[1][low.vertex_normals[:, 2] > 0.9]) > 25
