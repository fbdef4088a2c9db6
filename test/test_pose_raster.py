"""Rasterized views are what rays see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
import warp as wp
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.pose import renderer as rendering
from rfdetr_foundationpose.pose.constants import MIN_Z
from rfdetr_foundationpose.pose.mesh_bank import MeshArrays, MeshBank
from rfdetr_foundationpose.pose.raster_kernels import (
    NOTHING,
    OVERLAP,
    camera_corners,
    depth_key,
    intersect,
    rasterize,
    ray_factors,
)
from rfdetr_foundationpose.pose.render_kernels import BankData, pixel_ray
from rfdetr_foundationpose.pose.renderer import NEAR, Views, WarpRenderer
from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.synth.scene import as_model
from rfdetr_foundationpose.warp_setup import launch
from support.pose_scenes import CAMERA, cylinder, object_of, textured_box

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
    views = Views(poses, model, windows, cameras)
    scratch = renderer.scratch(n, size)
    assert scratch is not None
    found = []
    for given in (None, scratch):
        out = torch.full((n, size, size, 6), 7.0, dtype=dtype, device=DEVICE)
        renderer.render_inputs(views, diameters, MIN_Z["refiner"], out, given)
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
    renderer.render_inputs(Views(poses, model, windows, INTRINSICS), diameters, 0.001, expected)
    poses[3], windows[3] = float("nan"), float("nan")
    poses[5, 2, 3] = float("inf")
    out = torch.full_like(expected, 7.0)
    renderer.render_inputs(Views(poses, model, windows, INTRINSICS), diameters, 0.001, out, renderer.scratch(16, 64))
    assert not out[3].nan_to_num().any() and not out[5].nan_to_num().any()
    others = [i for i in range(16) if i not in (3, 5)]
    assert share_that_differs(expected[others].cpu(), out[others].cpu()) < 1e-3


def test_what_rays_are_better_at_asks_for_no_scratch():
    few, many = object_of(cylinder()), object_of(trimesh.creation.icosphere(6, 0.05))
    assert len(many.arrays.faces) > max(rendering.MOST_FACES.values())
    assert WarpRenderer([few, many], DEVICE).scratch(252, 160) is None
    assert WarpRenderer([few, many], DEVICE, rays=False).scratch(252, 160) is not None
    renderer = WarpRenderer([few], DEVICE)
    scratch = renderer.scratch(252, 160)
    assert scratch.shape == (rendering.VIEWS_AT_ONCE, 160, 160)
    assert renderer.scratch(20, 160).data_ptr() == scratch.data_ptr(), "one for all registrations"
    own = [renderer.scratch(4, 160) for _ in range(2)]
    assert own[0].shape == (4, 160, 160) and own[0].data_ptr() != own[1].data_ptr(), "tracking goes on beside them"
    poses, model, windows, diameters = views_of([few], 20, 0.6)
    out = torch.zeros(20, 96, 96, 6, device=DEVICE)
    with pytest.raises(ValueError, match=r"scratch for \(160, 160\) pixels, output of \(96, 96\)"):
        renderer.render_inputs(Views(poses, model, windows, INTRINSICS), diameters, 0.001, out, scratch)


def test_as_many_threads_share_a_face_as_keep_a_gpu_busy():
    assert rendering.lanes_a_face(126, 1400) == 2 and rendering.lanes_a_face(1, 1400) == 11
    assert rendering.lanes_a_face(126, 20_000) == 1 and rendering.lanes_a_face(1, 12) == rendering.MOST_LANES


@wp.kernel
def look_everywhere(
    bank: BankData,
    mesh_index: wp.array(dtype=wp.int32),
    poses: wp.array(dtype=wp.mat44f),
    windows: wp.array(dtype=wp.vec4f),
    cameras: wp.array(dtype=wp.vec4f),
    near: float,
    keys: wp.array3d(dtype=wp.int64),
):
    """What ``rasterize`` finds, of which every pixel is asked; launched over views, faces and rows."""
    n, face, y = wp.tid()
    mesh = mesh_index[n]
    if face >= bank.face_count[mesh]:
        return
    sides = ray_factors(camera_corners(bank, mesh, face, poses[n]))
    size = wp.vec2f(float(keys.shape[2]), float(keys.shape[1]))
    for x in range(keys.shape[2]):
        at = intersect(sides, pixel_ray(wp.vec2f(float(x), float(y)), windows[n], cameras[n % cameras.shape[0]], size))
        if at[0] >= -OVERLAP and at[1] >= -OVERLAP and at[0] + at[1] <= 1.0 + OVERLAP and at[2] >= near:
            wp.atomic_min(keys, n, y, x, depth_key(at[2], face))


def bank_of(corners):
    """Meshes (M, F, 3, 3) whose faces share no corners."""
    m, f = corners.shape[:2]
    vertices = corners.reshape(m, f * 3, 3).astype(np.float32)
    faces = np.arange(f * 3, dtype=np.int32).reshape(f, 3)
    return MeshBank([MeshArrays(v, faces, np.zeros_like(v), np.zeros_like(v)) for v in vertices], DEVICE)


def found_and_expected(corners, poses, windows, lanes, size=(28, 40)):
    """Keys (N, R, C) by rows and of every pixel; mesh i is seen in view i."""
    bank, n = bank_of(corners), len(corners)
    model, poses, windows = torch.arange(n, dtype=torch.int32), poses.float(), windows.float()
    model, poses, windows = (i.to(DEVICE).contiguous() for i in (model, poses, windows))
    scene = [bank.data, wp.from_torch(model), wp.from_torch(poses, dtype=wp.mat44f)]
    scene += [wp.from_torch(i.contiguous(), dtype=wp.vec4f) for i in (windows, INTRINSICS)]
    found, expected = (torch.full((n, *size), NOTHING, dtype=torch.int64, device=DEVICE) for _ in range(2))
    launch(rasterize, (n, bank.most_faces, lanes), [*scene, NEAR, lanes, wp.from_torch(found)], DEVICE)
    launch(look_everywhere, (n, bank.most_faces, size[0]), [*scene, NEAR, wp.from_torch(expected)], DEVICE)
    return found.cpu(), expected.cpu()


def some_faces(kind, rng, n=100, f=6):
    """Corners (n, f, 3, 3), in the frame of a camera that looks at (0, 0, 0.5)."""
    corners = rng.normal(0, 0.03, (n, f, 3, 3)) + rng.normal(0, 0.02, (n, f, 1, 3)) + [0, 0, 0.5]
    some = rng.random((n, f, 3)) < 0.5
    if kind == "small":
        corners = corners.mean(2, keepdims=True) + 0.1 * (corners - corners.mean(2, keepdims=True))
    elif kind == "thin":
        corners[..., 2, :] = corners[..., 0, :] + 0.02 * (corners[..., 2, :] - corners[..., 0, :])
    elif kind == "across the near plane":
        corners[..., 2] = rng.uniform(-0.3, 0.5, (n, f, 3))
    elif kind == "close":
        corners = corners * rng.choice([1, 0.003, 0.01, 0.1], (n, f, 3, 1))
    elif kind == "at the camera":
        corners[..., 2] = np.where(some, rng.choice([1e-6, -1e-6, 1e-30, 0.0], (n, f, 3)), corners[..., 2])
    elif kind == "just beyond the near plane":
        corners[..., 2] = np.where(some, NEAR * (1 + 1e-3), corners[..., 2])
        corners[..., :2] *= rng.choice([1, 1e3, 1e6, 1e12], (n, f, 3, 1))
    elif kind == "far outside":
        corners[..., :2] *= rng.choice([1, 1e2, 1e4, 1e8], (n, f, 3, 1))
    return corners


KINDS = (
    "plain",
    "small",
    "thin",
    "across the near plane",
    "close",
    "at the camera",
    "just beyond the near plane",
    "far outside",
)


def central_windows(n, rng):
    """(n, 4) around the optical axis, of 20 to 200 pixels."""
    half = torch.tensor(rng.uniform(10, 100, (n, 2)))
    centre = torch.tensor([CAMERA.cx, CAMERA.cy], dtype=torch.float64)
    return torch.cat([centre - half, centre + half], dim=1)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_hold_every_pixel_of_a_face(kind, lanes):
    rng = np.random.default_rng(KINDS.index(kind))
    corners = some_faces(kind, rng)
    poses = torch.eye(4).repeat(len(corners), 1, 1)
    found, expected = found_and_expected(corners, poses, central_windows(len(corners), rng), lanes)
    assert (expected != NOTHING).sum() > 500
    assert torch.equal(found, expected)


def test_faces_without_an_area_in_view_are_no_more_than_lines():
    """Faces that the camera is in the plane of, along rows and columns, and faces whose corners are one or in a line."""
    across, along = [0.02, 0.0, 0.0], [0.0, 0.0, 0.1]
    start = np.array([-0.011, 0.0, 0.5])
    faces = np.array(
        [
            [start, start + across, start + along],  # a row
            [start[[1, 0, 2]], start[[1, 0, 2]] + [0, 0.02, 0], start[[1, 0, 2]] + along],  # a column
            [start, start, start],
            [start, start + across, start],
            [start, start + across, start + 2 * np.array(across)],
            [[0, 0, 0.5], [0, 0, 0.6], [0, 0, 0.7]],  # a point
        ]
    )
    poses = torch.eye(4).repeat(6, 1, 1)
    windows = torch.tensor([[CAMERA.cx - 20, CAMERA.cy - 14, CAMERA.cx + 20, CAMERA.cy + 14]]).repeat(6, 1)
    for odd in (0.0, 0.5):  # between pixels, and through their centres
        found, expected = found_and_expected(faces[:, None], poses, windows + odd, 1)
        assert torch.equal(found, expected)
        assert (found != NOTHING).flatten(1).sum(1).max() <= 2 * 40


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e30, 1e20])
def test_numbers_beyond_all_pixels_end(value):
    """In every part of a pose and of a window, with faces that reach behind the camera and with others."""
    rng = np.random.default_rng(5)
    kinds = ("plain", "across the near plane")
    corners = np.concatenate([some_faces(kind, rng, 16, 4) for kind in kinds])
    poses = torch.eye(4).repeat(32, 1, 1)
    windows = central_windows(32, rng).float()
    for view in range(32):
        if view % 16 < 12:
            poses[view, view % 16 // 4, view % 4] = value
        else:
            windows[view, view % 4] = value
    found, expected = found_and_expected(corners, poses, windows, 1)
    assert ((found == expected) | (found == NOTHING)).all(), "nothing that is not there"
    assert (found != NOTHING).any() == (expected != NOTHING).any()
