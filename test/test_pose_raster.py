"""Rasterized views are what rays see."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from pose_scenes import CAMERA, cylinder, object_of, textured_box
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.pose import renderer as rendering
from rfdetr_foundationpose.pose.constants import MIN_Z
from rfdetr_foundationpose.pose.mesh_bank import boxed_area
from rfdetr_foundationpose.pose.raster_kernels import NOTHING
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.synth.scene import as_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTRINSICS = torch.tensor([[CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy]], device=DEVICE)


def views_of(items, n, distance, seed=0):
    """Poses, models, windows and diameters of n views, several models in turn."""
    poses = torch.eye(4).repeat(n, 1, 1)
    rotations = Rotation.random(n, rng=np.random.default_rng(seed)).as_matrix()
    poses[:, :3, :3] = torch.tensor(rotations, dtype=torch.float32)
    poses[:, :3, 3] = torch.tensor([0.03, -0.02, distance])
    model = torch.arange(n, dtype=torch.int32) % len(items)
    diameters = torch.tensor([items[int(i)].diameter for i in model])
    centre = torch.tensor([CAMERA.cx + CAMERA.fx * 0.03 / distance, CAMERA.cy - CAMERA.fy * 0.02 / distance])
    reach = CAMERA.fx * diameters[:, None] * 0.6 / distance
    windows = torch.cat([centre - reach, centre + reach], dim=1)
    return [t.to(DEVICE) for t in (poses, model, windows, diameters)]


def both_ways(items, n, distance, dtype=torch.float32, size=96, seed=0, cameras=INTRINSICS):
    """Network inputs (n, size, size, 6) by rays and rasterized."""
    renderer = WarpRenderer(items, DEVICE)
    poses, model, windows, diameters = views_of(items, n, distance, seed)
    scratch = renderer.scratch(n, size)
    assert scratch is not None
    found = []
    for given in (None, scratch):
        out = torch.full((n, size, size, 6), 7.0, dtype=dtype, device=DEVICE)
        renderer.render_inputs(poses, model, windows, cameras, diameters, MIN_Z["refiner"], out, given)
        found.append(out.float().cpu())
    assert bool((scratch == NOTHING).all()), "cleared for the next time"
    return found


def share_that_differs(rays, raster, by=1e-2):
    covered = (rays[..., 3:] != 0).any(-1).sum()
    assert covered > 1000
    return ((rays - raster).abs().amax(-1) > by).sum() / covered


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_objects_of_the_demo_look_the_same(dtype):
    items = [as_model(item) for item in demo_objects()]
    rays, raster = both_ways(items, 20, 0.8, dtype)
    assert share_that_differs(rays, raster) < 1e-3


def test_large_faces_and_plain_ones_look_the_same():
    items = [object_of(trimesh.creation.box((0.12, 0.08, 0.05))), object_of(cylinder()), object_of(textured_box())]
    rays, raster = both_ways(items, 18, 0.5, seed=3)
    assert share_that_differs(rays, raster) < 1e-3


def test_faces_that_reach_behind_the_camera_are_seen_where_they_are_in_front_of_it():
    """A camera inside a box, most of whose faces have corners behind it."""
    item = object_of(trimesh.creation.box((0.4, 0.4, 0.4)))
    rays, raster = both_ways([item], 16, 0.08, seed=1)
    assert (rays[..., 3:] != 0).any(-1).float().mean() > 0.3
    assert share_that_differs(rays, raster) < 1e-3


def test_more_views_than_are_rendered_at_once(monkeypatch):
    """Three objects and a camera for each view: what is taken from the wrong part of them looks wrong."""
    items = [object_of(textured_box()), object_of(cylinder()), object_of(trimesh.creation.box((0.05, 0.05, 0.1)))]
    monkeypatch.setattr(rendering, "VIEWS_AT_ONCE", 16)
    cameras = INTRINSICS.repeat(37, 1) * torch.linspace(0.97, 1.03, 37, device=DEVICE)[:, None]
    rays, raster = both_ways(items, 37, 0.6, cameras=cameras)
    assert share_that_differs(rays, raster) < 1e-3


def test_a_pose_that_is_not_finite_shows_nothing_and_harms_no_other():
    item = object_of(textured_box())
    renderer = WarpRenderer([item], DEVICE)
    poses, model, windows, diameters = views_of([item], 16, 0.6)
    expected = torch.zeros(16, 64, 64, 6, device=DEVICE)
    renderer.render_inputs(poses, model, windows, INTRINSICS, diameters, 0.001, expected)
    poses[3], windows[3] = float("nan"), float("nan")
    poses[5, 2, 3] = float("inf")
    out = torch.full_like(expected, 7.0)
    renderer.render_inputs(poses, model, windows, INTRINSICS, diameters, 0.001, out, renderer.scratch(16, 64))
    assert not out[3].nan_to_num().any() and not out[5].nan_to_num().any()
    others = [i for i in range(16) if i not in (3, 5)]
    assert share_that_differs(expected[others].cpu(), out[others].cpu()) < 1e-3


def test_what_rays_are_better_at_asks_for_no_scratch():
    few, many = object_of(cylinder()), object_of(trimesh.creation.icosphere(6, 0.05))
    assert len(many.arrays.faces) > max(rendering.MOST_FACES.values())
    assert WarpRenderer([few, many], DEVICE).scratch(252, 160) is None
    assert WarpRenderer([few], DEVICE).scratch(rendering.FEWEST_VIEWS - 1, 160) is None
    thin = object_of(trimesh.creation.cylinder(radius=0.033, height=0.1, sections=256))
    assert len(thin.arrays.faces) < min(rendering.MOST_FACES.values())
    assert WarpRenderer([few, thin], DEVICE).scratch(252, 160) is None
    renderer = WarpRenderer([few], DEVICE)
    scratch = renderer.scratch(252, 160)
    assert scratch.shape == (rendering.VIEWS_AT_ONCE, 160, 160)
    assert renderer.scratch(20, 160).data_ptr() == scratch.data_ptr(), "one for all programs"
    poses, model, windows, diameters = views_of([few], 20, 0.6)
    out = torch.zeros(20, 96, 96, 6, device=DEVICE)
    with pytest.raises(ValueError, match=r"scratch for \(160, 160\) pixels, output of \(96, 96\)"):
        renderer.render_inputs(poses, model, windows, INTRINSICS, diameters, 0.001, out, scratch)


def test_boxes_around_thin_faces_cover_much():
    box = object_of(trimesh.creation.box((0.1, 0.1, 0.1))).arrays
    assert boxed_area(box) == pytest.approx(12 * 2 / 3)  # the diagonal of a square face, squared, over that of the box
    moved = dataclasses.replace(box, vertices=5 * box.vertices + 1)
    assert boxed_area(moved) == pytest.approx(8, rel=1e-4)
    thin = object_of(trimesh.creation.cylinder(radius=0.033, height=0.1, sections=256)).arrays
    assert boxed_area(thin) > 10 * boxed_area(object_of(trimesh.creation.icosphere(3, 0.05)).arrays)
