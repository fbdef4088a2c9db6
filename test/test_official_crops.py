"""Observed crops as the official code samples them: not a pixel may differ from its warps, whatever the window."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import warp as wp
from torch import Tensor

from rfdetr_foundationpose.config import Config
from rfdetr_foundationpose.evaluate.reference import crop_points, warp_perspective
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.pose import build as building
from rfdetr_foundationpose.pose import checkpoints
from rfdetr_foundationpose.pose import warp_kernels as kernels
from rfdetr_foundationpose.pose.constants import CROP_RATIO, MIN_Z
from rfdetr_foundationpose.pose.estimator import TrackRequest
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.pose.observation import Observation
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.views import CropSettings, ViewSet
from rfdetr_foundationpose.resources import default_objects_file
from rfdetr_foundationpose.warp_setup import launch
from support.pose_scenes import object_of, textured_box

IMAGES = [(480, 640, 615.0, 160), (331, 517, 400.0, 160), (720, 1280, 900.0, 96)]
"""Rows, columns, focal length and crop size."""
HYPOTHESES = 40


def observed_scene(rows: int, columns: int, focal: float) -> tuple[Observation, Tensor]:
    """Random pixels, and hypotheses (N, 4, 4) near and far, in the middle, over each edge and outside of the image."""
    generator = torch.Generator().manual_seed(rows)
    rgb = torch.randint(256, (rows, columns, 3), generator=generator, dtype=torch.uint8)
    depth = torch.rand(rows, columns, generator=generator) * 0.1 + 0.5
    depth[torch.rand(rows, columns, generator=generator) < 0.1] = 0
    poses = torch.eye(4).repeat(HYPOTHESES, 1, 1)
    z = 0.2 + 1.2 * torch.rand(HYPOTHESES, generator=generator)
    across = (torch.rand(HYPOTHESES, 2, generator=generator) - 0.5) * 1.2
    poses[:, :2, 3] = across * torch.tensor([columns, rows]) / focal * z[:, None]
    poses[:, 2, 3] = z
    camera = torch.tensor([[focal, focal * 1.01, columns / 2 - 0.5, rows / 2 + 3.3]])
    return Observation(rgb, depth, camera), poses


def transforms(windows: Tensor, size: int) -> Tensor:
    """(N, 3, 3) image -> crop of windows (N, 4), in the official order of operations."""
    left, top, right, bottom = windows.T
    tf = torch.eye(3, device=windows.device).repeat(len(windows), 1, 1)
    tf[:, 0, 0], tf[:, 1, 1] = size / (right - left), size / (bottom - top)
    tf[:, 0, 2], tf[:, 1, 2] = -left * tf[:, 0, 0], -top * tf[:, 1, 1]
    return tf


def sampled_points(role: str, observation: Observation, tf: Tensor, size: int) -> Tensor:
    """(N, 3, R, R) points as the official code warps them."""
    fx, fy, cx, cy = observation.camera[0]
    depth = observation.depth
    if role == "scorer":
        k = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], device=tf.device)
        crops = warp_perspective(depth.expand(len(tf), 1, -1, -1), tf, size, "nearest")
        return crop_points(crops, tf, k, observation.size)
    v, u = torch.meshgrid(*(torch.arange(n, device=tf.device) for n in depth.shape), indexing="ij")
    xyz = torch.stack([(u - cx) * depth / fx, (v - cy) * depth / fy, depth])
    return warp_perspective(xyz.expand(len(tf), -1, -1, -1), tf, size, "nearest")


def crops_of(role: str, observation: Observation, poses: Tensor, size: int, official: tuple[str, ...]) -> ViewSet:
    item, device = object_of(textured_box()), poses.device
    crops = CropSettings(size, official_crops=official)
    views = ViewSet(WarpRenderer([item], device), len(poses), device, crops)
    views.poses.copy_(poses)
    views.diameters.fill_(item.diameter)
    views.observed = views.pairs(len(poses), observation, role)[1]  # type: ignore[attr-defined]
    return views


@pytest.fixture
def exact_products():
    """Without TF32, which a training in the same process turns on."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    yield
    matmul.allow_tf32 = before


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("role", ["refiner", "scorer"])
def test_no_window_is_another_pixel_wide(role, device, exact_products):
    """Of 100,000 hypotheses: torch's product with the camera matrix, and points at the radius on four sides.

    252 hypotheses at a time, as the official code has them: cuBLAS fuses the product of a few thousand points, and in TF32.
    """
    count, diameter = 100_000, 0.15
    generator = torch.Generator().manual_seed(3)
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, :3, 3] = torch.rand(count, 3, generator=generator) - 0.5
    poses[:, 2, 3] = 0.2 + 1.5 * torch.rand(count, generator=generator)
    camera = torch.tensor([[613.3, 611.9, 320.2, 241.7]])
    poses, camera = poses.to(device), camera.to(device)
    crops = CropSettings(size=4, compared=0)
    views = ViewSet(WarpRenderer([object_of(textured_box())], device), count, device, crops)
    views.poses.copy_(poses)
    views.diameters.fill_(diameter)
    blank = torch.zeros(8, 8, 3, dtype=torch.uint8, device=device), torch.zeros(8, 8, device=device)
    views._windows(count, Observation(*blank, camera), role)

    radius = float(np.float32(diameter)) * CROP_RATIO[role] / 2
    sides = torch.tensor([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], device=device) * radius
    points = (poses[:, None, :3, 3] + sides).reshape(-1, 3)
    fx, fy, cx, cy = camera[0]
    k = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], device=device)
    seen = torch.cat([(k @ some.T).T for some in points.split(252 * 5)])
    seen = (seen[:, :2] / seen[:, 2:]).reshape(count, 5, 2)
    reach = (seen - seen[:, :1]).abs().flatten(1).amax(1, keepdim=True)
    expected = torch.cat([seen[:, 0] - reach, seen[:, 0] + reach], 1).round()
    assert torch.equal(views._window_observed, expected)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("role", ["refiner", "scorer"])
@pytest.mark.parametrize(("rows", "columns", "focal", "size"), IMAGES)
def test_no_pixel_differs(role, rows, columns, focal, size, device):
    observation, poses = observed_scene(rows, columns, focal)
    observation = Observation(observation.rgb.to(device), observation.depth.to(device), observation.camera.to(device))
    poses = poses.to(device)
    views = crops_of(role, observation, poses, size, ("refiner", "scorer"))
    points = sampled_points(role, observation, transforms(views._window_observed, size), size)
    relative = (points - poses[:, :3, 3, None, None]) / (views.diameters[0] / 2)
    expected = relative.masked_fill((points[:, 2:] < MIN_Z[role]) | (relative.abs() >= 2), 0)
    found = views.observed
    assert int(((found[:, 3:] - expected).abs() > 1e-5).sum()) == 0
    inside = (expected != 0).any(1).flatten(1).float().mean(1)
    assert (inside > 0.1).sum() >= 10, "the scene shows little"
    left, top, right, bottom = views._window_observed.T
    assert all(bool(out.any()) for out in (left < 0, top < 0, right > columns, bottom > rows))

    direct = crops_of(role, observation, poses, size, ())
    # Only one of the two kernels fuses multiplications with additions on a GPU.
    assert torch.allclose(direct.observed[:, :3], found[:, :3], atol=1e-6), "colour is sampled once either way"
    differs = ((direct.observed[:, 3:] - expected).abs() > 1e-3).any(1).float().mean()
    assert differs > 0.01 if role == "scorer" else differs < 0.003


def test_each_role_is_sampled_as_its_own_weights_want():
    observation, poses = observed_scene(*IMAGES[1][:3])
    both, scorer, none = (
        crops_of("scorer", observation, poses, 160, official).observed
        for official in (("refiner", "scorer"), ("scorer",), ("refiner",))
    )
    assert torch.equal(both, scorer)
    assert not torch.equal(both, none)


@pytest.mark.parametrize(("rows", "columns", "focal", "size"), IMAGES)
def test_the_warps_are_those_of_kornia(rows, columns, focal, size):
    kornia = pytest.importorskip("kornia.geometry.transform")
    observation, poses = observed_scene(rows, columns, focal)
    windows = crops_of("scorer", observation, poses, size, ())._window_observed[:12]
    tf = transforms(windows, size)
    image = observation.depth.expand(12, 1, -1, -1)
    crops = kornia.warp_perspective(image, tf, (size, size), mode="nearest", align_corners=False)
    assert torch.equal(warp_perspective(image, tf, size, "nearest"), crops)
    back = kornia.warp_perspective(crops, tf.inverse(), (rows, columns), mode="nearest", align_corners=False)
    assert torch.equal(warp_perspective(crops, torch.linalg.inv(tf), (rows, columns), "nearest"), back)


def test_the_depth_filter_sums_down_the_columns():
    """A pixel at exactly the 1 cm limit is within or not by the last bit of the window's mean."""
    rng = np.random.default_rng(0)
    eroded = np.zeros((64, 84), np.float32)
    eroded[2:-2, 2:-2] = (0.7 + rng.integers(0, 21, (60, 80)) * 0.001).astype(np.float32)
    filtered = torch.zeros(60, 80)
    buffers = [wp.from_torch(torch.from_numpy(eroded)), kernels.NEARNESS, wp.from_torch(filtered)]
    launch(kernels.bilateral_depth, (60, 80), buffers, "cpu")
    found = filtered.numpy()
    limit = np.float32(0.01)
    at_the_limit = 0
    for y, x in np.ndindex(*found.shape):
        window = eroded[y : y + 5, x : x + 5]
        means = []
        for order in (window.T, window):
            total = np.float32(0)
            for d in order.ravel():
                total += d
            means.append(total / np.float32(max((window > 0).sum(), 1)))
        near = [(np.abs(window - mean) < limit) & (window > 0) for mean in means]
        weight = np.exp(-(np.mgrid[-2:3, -2:3] ** 2).sum(0) / 8) * near[0]
        at_the_limit += int((near[0] != near[1]).any())
        if weight.sum() > 0:
            assert found[y, x] == pytest.approx((weight * window).sum() / weight.sum(), abs=1e-6), (y, x)
    assert at_the_limit > 5, "no pixel tells one order from the other"


def test_weights_that_are_not_ours_are_official(tmp_path):
    scorer = ScoreNet(0.125)
    checkpoints.write(tmp_path / "scorer.safetensors", scorer, "for a test")
    assert not checkpoints.read(tmp_path / "scorer.safetensors").official
    official = tmp_path / checkpoints.OFFICIAL["scorer"] / "model_best.pth"
    official.parent.mkdir()
    torch.save({"model": scorer.state_dict()}, official)
    assert checkpoints.read(official).official
    checkpoints.save_file(scorer.state_dict(), str(tmp_path / "converted.safetensors"))
    assert checkpoints.read(tmp_path / "converted.safetensors").official


@pytest.mark.parametrize(
    ("setting", "expected"), [("auto", ["scorer"]), ("official", ["refiner", "scorer"]), ("direct", [])]
)
def test_setting(tmp_path, setting, expected, caplog):
    """auto goes by the weights, each network by its own; the estimator's programs sample accordingly."""
    checkpoints.write(tmp_path / "refiner.safetensors", RefineNet(0.125), "for a test")
    official = tmp_path / checkpoints.OFFICIAL["scorer"] / "model_best.pth"
    official.parent.mkdir()
    torch.save(ScoreNet(0.125).state_dict(), official)
    values = {"pose.weights": str(tmp_path), "pose.crop_sampling": setting, "pose.backend": "eager", "device": "cpu"}
    with caplog.at_level(logging.INFO):
        estimator = building.build_estimator(Config.from_dict(values), load_objects(default_objects_file())[:1])
    assert ("as in the official code" in caplog.text) == bool(expected)
    observation, _ = observed_scene(480, 640, 615.0)
    estimator.track(observation, [TrackRequest(estimator.objects[0].name, np.eye(4))])
    assert list(estimator._tracks[1].views.crops.official_crops) == expected
    assert list(estimator._register_program(0, observation).views.crops.official_crops) == expected
