"""Crop windows, observed crops against kornia, network input, pose updates and the depth filter against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import warp as wp
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.pose import warp_kernels as kernels
from rfdetr_foundationpose.pose.agreement_columns import SHAPE_SUMS
from rfdetr_foundationpose.pose.agreement_kernels import LANES, agreement
from rfdetr_foundationpose.pose.constants import CROP_RATIO, MIN_Z, ROT_NORMALIZER
from rfdetr_foundationpose.pose.depth import DepthFilter
from rfdetr_foundationpose.pose.observation import Observation
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.views import CropSettings, ViewSet
from support.pose_scenes import CAMERA, object_of, random_pose, scene_of, textured_box

K = torch.tensor([[CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy]])


def views_of(item, poses: np.ndarray) -> ViewSet:
    views = ViewSet(WarpRenderer([item], "cpu"), len(poses), "cpu")
    views.poses.copy_(torch.tensor(poses, dtype=torch.float32))
    views.diameters.fill_(item.diameter)
    return views


def expected_window(T: np.ndarray, diameter: float, ratio: float) -> np.ndarray:
    r = diameter * ratio / 2
    t = T[:3, 3]
    offsets = np.array([[0, 0, 0], [r, 0, 0], [-r, 0, 0], [0, r, 0], [0, -r, 0]]) + t
    u = CAMERA.fx * offsets[:, 0] / offsets[:, 2] + CAMERA.cx
    v = CAMERA.fy * offsets[:, 1] / offsets[:, 2] + CAMERA.cy
    radius = max(np.abs(u - u[0]).max(), np.abs(v - v[0]).max())
    return np.round([u[0] - radius, v[0] - radius, u[0] + radius, v[0] + radius])


@pytest.mark.parametrize("role", ["refiner", "scorer"])
def test_crop_windows(role):
    item = object_of(textured_box())
    poses = np.stack([random_pose(i, 0.5 + 0.1 * i) for i in range(6)])
    views = views_of(item, poses)
    rgb, depth = torch.zeros(480, 640, 3, dtype=torch.uint8), torch.zeros(480, 640)
    views.pairs(6, Observation(rgb, depth, K), role)
    for T, observed, rendered in zip(poses, views._window_observed, views._window_rendered, strict=True):
        window = expected_window(T, item.diameter, CROP_RATIO[role])
        np.testing.assert_allclose(observed, window, atol=1e-3)
        # The rendered window spans crop corners 0 and 159 of 160.
        low, high = window[:2], window[2:]
        np.testing.assert_allclose(rendered, [*low, *(low + (high - low) * 159 / 160)], atol=1e-3)


def test_observed_crops_equal_kornia():
    warp_perspective = pytest.importorskip("kornia.geometry.transform").warp_perspective
    item = object_of(textured_box())
    poses = np.stack([random_pose(i, 0.6) for i in range(3)])
    poses[1, :2, 3] = [0.28, 0.2]  # the window leaves the image
    poses[2, 2, 3] = 0.25  # the crop magnifies less
    views = views_of(item, poses)
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(256, (480, 640, 3), generator=generator, dtype=torch.uint8)
    depth = torch.rand(480, 640, generator=generator) + 0.5
    depth[torch.rand(480, 640, generator=generator) < 0.1] = 0
    views.agree(3, Observation(rgb, depth, K))

    v, u = torch.meshgrid(torch.arange(480.0), torch.arange(640.0), indexing="ij")
    xyz = torch.stack([(u - K[0, 2]) * depth / K[0, 0], (v - K[0, 3]) * depth / K[0, 1], depth])
    for i in range(3):
        left, top, right, bottom = views._window_observed[i].tolist()
        scale = torch.diag(torch.tensor([160 / (right - left), 160 / (bottom - top), 1.0]))
        shift = torch.tensor([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
        tf = (scale @ shift)[None]
        image = rgb.permute(2, 0, 1)[None].float()
        color = warp_perspective(image, tf, (160, 160), mode="bilinear", align_corners=False)[0] / 255
        points = warp_perspective(xyz[None], tf, (160, 160), mode="nearest", align_corners=False)[0]
        assert (views._rgb_o[i].permute(2, 0, 1) - color).abs().max() < 2e-3
        # A coordinate that falls midway between two pixels may round either way in float32.
        assert ((views._xyz_o[i].permute(2, 0, 1) - points).abs().amax(0) > 1e-5).float().mean() < 2e-3


def test_overlap_is_intersection_over_union_of_silhouette_and_mask():
    item = object_of(textured_box())
    poses = np.stack([random_pose(2, 0.5), random_pose(3, 0.5), random_pose(2, 0.5)])
    poses[2, 0, 3] += item.diameter / 4
    frame, mask = scene_of(item, poses[0])
    views = ViewSet(WarpRenderer([item], "cpu"), 3, "cpu", CropSettings(paired=False, outlined=True))
    views.poses.copy_(torch.tensor(poses, dtype=torch.float32))
    views.diameters.fill_(item.diameter)
    image = Observation(torch.from_numpy(frame.rgb), torch.from_numpy(frame.depth), K)
    views.agree(3, image)
    found = views.overlap(3, mask)
    for i, T in enumerate(poses):
        _, silhouette = scene_of(item, T)
        # What is nearer than the model by more than the tolerance occludes it.
        rendered = torch.from_numpy(scene_of(item, T)[0].depth)
        nearer = silhouette & (image.depth > 0) & (image.depth < rendered - 0.05 * item.diameter)
        inside, outside = silhouette & mask, silhouette & ~mask & ~nearer
        expected = inside.sum() / (mask | outside).sum()
        assert found[i] == pytest.approx(expected.item(), abs=0.03)
    assert found[0] > 0.96 and found[1:].max() < 0.8
    # An occluder before one half: what it hides of the model is not held against the pose.
    occluded = image.depth.clone()
    left = torch.zeros_like(mask)
    left[:, : int(torch.nonzero(mask)[:, 1].float().mean())] = True
    occluded[left] = 0.2
    views.agree(3, Observation(image.rgb, occluded, K))
    assert views.overlap(3, mask & ~left)[0] > 0.95


def test_a_pose_that_is_not_finite_overlaps_nothing():
    item = object_of(textured_box())
    frame, mask = scene_of(item, random_pose(2, 0.5))
    views = ViewSet(WarpRenderer([item], "cpu"), 2, "cpu", CropSettings(paired=False, outlined=True))
    views.poses[0] = torch.tensor(random_pose(2, 0.5), dtype=torch.float32)
    views.poses[1] = torch.nan
    views.diameters.fill_(item.diameter)
    views.agree(2, Observation(torch.from_numpy(frame.rgb), torch.from_numpy(frame.depth), K))
    found = views.overlap(2, mask)
    assert found[0] > 0.95 and found[1] == 0


def test_what_lies_beyond_the_image_counts_for_no_overlap():
    item = object_of(textured_box())
    T = random_pose(2, 0.5)
    T[0, 3] = -0.5 * 330 / CAMERA.fx  # about half of it is out of view
    frame, mask = scene_of(item, T)
    views = ViewSet(WarpRenderer([item], "cpu"), 1, "cpu", CropSettings(paired=False, outlined=True))
    views.poses.copy_(torch.tensor(T[None], dtype=torch.float32))
    views.diameters.fill_(item.diameter)
    views.agree(1, Observation(torch.from_numpy(frame.rgb), torch.from_numpy(frame.depth), K))
    assert mask[:, 0].any() and views.overlap(1, mask)[0] > 0.95


@pytest.mark.parametrize("role", ["refiner", "scorer"])
def test_network_input(role):
    item = object_of(textured_box())
    T = random_pose(2, 0.5)
    frame, _ = scene_of(item, T)
    views = views_of(item, T[None])
    depth = torch.from_numpy(frame.depth).clone()
    depth[:, :330] = 0.05  # valid for the refiner only, and far from the object
    image = Observation(torch.from_numpy(frame.rgb), depth, K)
    rendered, observed = views.pairs(1, image, role)
    crops = [torch.zeros(1, 160, 160, 3) for _ in range(2)]
    views._launch(
        kernels.crop_observed, (1, 160, 160), *views._observed(slice(0, 1), image), *map(wp.from_torch, crops)
    )
    renderings = [torch.zeros(1, 160, 160, 3) for _ in range(2)]
    views.renderer.render_into(views._rendered(slice(0, 1), image), *renderings)
    assert rendered.shape == observed.shape == (1, 6, 160, 160)
    assert rendered.is_contiguous(memory_format=torch.channels_last)
    # The silhouettes of what is rasterized and what rays see differ by a pixel here and there.
    for pair, (rgb, xyz), edges, tolerance in ((rendered, renderings, 20, 1e-4), (observed, crops, 0, 1e-5)):
        relative = (xyz[0] - torch.tensor(T[:3, 3], dtype=torch.float32)) / (item.diameter / 2)
        expected = torch.where((xyz[0, ..., 2:] >= MIN_Z[role]) & (relative.abs() < 2), relative, 0)
        found = torch.cat([pair[0, 3:].permute(1, 2, 0), pair[0, :3].permute(1, 2, 0)], dim=2)
        differs = (found - torch.cat([expected, rgb[0]], dim=2)).abs().amax(2) > tolerance
        assert differs.sum() <= edges and (found != 0).any(2).sum() > 1000


def test_pose_update_transposes_the_exponential_map():
    item = object_of(textured_box())
    T = np.stack([random_pose(i) for i in range(4)])
    views = views_of(item, T)
    rng = np.random.default_rng(0)
    trans, rot = rng.normal(0, 0.3, (4, 3)), rng.normal(0, 2, (4, 3))
    views.update(4, torch.tensor(trans, dtype=torch.float32), torch.tensor(rot, dtype=torch.float32))
    v = np.tanh(rot) * ROT_NORMALIZER
    R = np.swapaxes(Rotation.from_rotvec(v).as_matrix(), 1, 2) @ T[:, :3, :3]
    t = T[:, :3, 3] + trans * item.diameter / 2
    np.testing.assert_allclose(views.poses[:, :3, :3], R, atol=1e-5)
    np.testing.assert_allclose(views.poses[:, :3, 3], t, atol=1e-6)
    np.testing.assert_allclose(views.delta[:, 1], np.linalg.norm(v, axis=1), atol=1e-5)


def test_rotations_stay_orthonormal_over_many_updates():
    views = views_of(object_of(textured_box()), random_pose(1)[None])
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        views.update(1, torch.zeros(1, 3), torch.randn(1, 3, generator=generator))
    R = views.poses[0, :3, :3].double()
    torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)


def erode_in_numpy(depth: np.ndarray) -> np.ndarray:
    out = np.zeros_like(depth)
    for y, x in np.ndindex(*depth.shape):
        d = depth[y, x]
        if d < 0.001:
            continue
        window = depth[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        bad = (window < 0.001) | (np.abs(window - d) > 0.001)
        out[y, x] = 0 if bad.mean() > 0.8 else d
    return out


def bilateral_in_numpy(depth: np.ndarray) -> np.ndarray:
    out = np.zeros_like(depth)
    for y, x in np.ndindex(*depth.shape):
        ys, xs = np.mgrid[max(y - 2, 0) : min(y + 3, depth.shape[0]), max(x - 2, 0) : min(x + 3, depth.shape[1])]
        window = depth[ys, xs]
        valid = window >= 0.001
        if not valid.any():
            continue
        close = valid & (np.abs(window - window[valid].mean()) < 0.01)
        weight = np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / 8 - (depth[y, x] - window) ** 2 / 2e10) * close
        if weight.sum() > 0:
            out[y, x] = (weight * window).sum() / weight.sum()
    return out


def test_depth_filter_equals_its_definition():
    rng = np.random.default_rng(0)
    depth = (0.7 + 0.0004 * rng.normal(size=(40, 50)) + (np.arange(50) > 25) * 0.2).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = 0
    depth[10:14, 10:14] = 0
    depth[30, 5] = 3.0
    found = DepthFilter("cpu")(torch.from_numpy(depth)).numpy()
    np.testing.assert_allclose(found, bilateral_in_numpy(erode_in_numpy(depth)), atol=2e-6)
    assert (depth == 0).sum() > (found == 0).sum() > 0


def test_depth_filter_serves_calls_inside_and_outside_of_inference_mode():
    """The first call makes the buffers that all others write to."""
    depth = torch.full((20, 20), 1.0)
    filtered = DepthFilter("cpu")
    with torch.inference_mode():
        inside = filtered(depth).clone()
    assert torch.equal(filtered(depth), inside)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_depth_is_filtered_as_it_comes(kind):
    """Raw units, with a scale that may change from call to call; no number is no measure."""
    rng = np.random.default_rng(1)
    raw = (1000 + rng.integers(0, 3, (30, 40))).astype(kind)
    filtered = DepthFilter("cpu", 0.1, 4.0)
    for scale in (1e-3, 1e-4, 1e-3):
        if kind is np.float32:
            raw[4, 5], raw[8, 9], raw[12, 13] = np.nan, np.inf, -np.inf
        metres = np.nan_to_num(raw.astype(np.float32), posinf=0, neginf=0) * np.float32(scale)
        expected = DepthFilter("cpu", 0.1, 4.0)(torch.from_numpy(metres))
        torch.testing.assert_close(filtered(torch.from_numpy(raw), scale), expected)
        assert expected.count_nonzero() > 1000


def test_depth_limits():
    depth = torch.full((20, 20), 1.0)
    depth[:, 10:] = 5.0
    assert (DepthFilter("cpu", 0.1, 4.0)(depth)[:, 12:] == 0).all()
    assert (DepthFilter("cpu", 2.0, 10.0)(depth)[:, :8] == 0).all()


def test_agreement_counts():
    rendered_z = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]).reshape(1, 1, 5)
    observed_z = torch.tensor([1.002, 0.8, 1.3, 0.0, 1.0]).reshape(1, 1, 5)
    rgb = [torch.full((1, 1, 5, 3), value) for value in (0.5, 0.6)]
    xyz = [torch.stack([z * 0, z * 0, z], -1) for z in (rendered_z, observed_z)]
    partial = torch.full((1, SHAPE_SUMS, int(LANES)), torch.nan)
    images = [wp.from_torch(t) for t in (rgb[0], xyz[0], rgb[1], xyz[1])]
    pose = wp.from_torch(torch.eye(4)[None], dtype=wp.mat44f)
    wp.launch(
        agreement,
        (1, 1, LANES),
        [*images, pose, wp.from_torch(torch.tensor([0.1])), wp.from_torch(partial)],
        device="cpu",
    )
    np.testing.assert_allclose(partial[0].sum(1), [4, 1, 1, 1, 0.002 / 0.005, 0.1], atol=1e-4)
