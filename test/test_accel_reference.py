"""The reference schedule is an honest stand-in: it computes what our pipeline computes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from rfdetr_foundationpose.accel.base import RunnerContext
from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.config import Config, PoseConfig
from rfdetr_foundationpose.device_frame import Uploader
from rfdetr_foundationpose.evaluate.bench_rows import ReferenceRow, metres
from rfdetr_foundationpose.evaluate.compare import pose_difference
from rfdetr_foundationpose.evaluate.reference import (
    ReferenceEstimator,
    back_project,
    crop_transforms,
    rendered_windows,
    so3_exp,
    warp_perspective,
)
from rfdetr_foundationpose.pose.depth import DepthFilter
from rfdetr_foundationpose.pose.estimator import PoseEstimator, TrackRequest
from rfdetr_foundationpose.pose.example_scene import ExampleScene
from rfdetr_foundationpose.pose.networks import RefineNet
from rfdetr_foundationpose.pose.observation import Observation
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.runners import Networks
from rfdetr_foundationpose.pose.views import CropSettings, ViewSet
from rfdetr_foundationpose.synth import so3
from support.pose_scenes import object_of, textured_box

CPU = torch.device("cpu")
ROLES = ("refiner", "scorer")
CONFIG = Config(
    pose=PoseConfig(register_schedule="full", register_iterations=1, register_confidence=0.0, track_iterations=2)
)


class Likeness(nn.Module):
    """A scorer that tells hypotheses apart, as random weights do not: minus the mean difference of the crops."""

    def forward(self, rendered, observed):
        return -100 * (rendered - observed).abs().mean(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def case():
    """Object, frame, its true centred pose, both implementations with the same random weights."""
    item = object_of(textured_box())
    shown = ExampleScene([item], (180, 320), CPU).frame(2)
    torch.manual_seed(0)
    networks = {"refiner": RefineNet(0.125).eval(), "scorer": Likeness()}
    row = ReferenceRow([item], networks, CONFIG, CPU)
    row.warm_up(shown.frame.camera)
    runners = [make_runner(networks[role], "eager", RunnerContext(CPU)) for role in ("refiner", "refiner", "scorer")]
    networks_of_ours = Networks(*runners, official_crops=ROLES)
    ours = PoseEstimator([item], WarpRenderer([item], CPU), networks_of_ours, CONFIG.pose, CPU)
    few = ours.rotations[0][::12].contiguous()
    ours.rotations[0] = few
    reference = row._estimators[item.name]
    reference.item = dataclasses.replace(reference.item, rotations=few.numpy())
    return item, shown, row, ours


@pytest.mark.parametrize("role", ["refiner", "scorer"])
def test_network_inputs_are_equal(case, role):
    item, shown, row, _ = case
    frame, camera = shown.frame, shown.frame.camera
    reference: ReferenceEstimator = row._estimators[item.name]
    poses = torch.tensor(item.to_centered(shown.truths[item.name]), dtype=torch.float32).repeat(3, 1, 1)
    poses[1, :3, 3] += torch.tensor([0.02, -0.01, 0.03])
    poses[2, :3, 3] += torch.tensor([0.25, 0.1, 0.0])  # half outside of the image
    filtered = DepthFilter(CPU, CONFIG.pose.min_depth, CONFIG.pose.max_depth)(torch.from_numpy(metres(frame)))
    views = ViewSet(WarpRenderer([item], CPU), 3, CPU, CropSettings(official_crops=ROLES))
    views.poses.copy_(poses)
    views.diameters.fill_(item.diameter)
    intrinsics = torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]], dtype=torch.float32)
    pairs = views.pairs(3, Observation(torch.from_numpy(frame.rgb), filtered, intrinsics), role)
    image = torch.from_numpy(frame.rgb).float().permute(2, 0, 1)
    xyz = torch.from_numpy(back_project(filtered.numpy(), camera.K)).permute(2, 0, 1)
    measured = xyz if role == "refiner" else filtered[None]
    expected = reference._crops(role, image, measured, camera.K, poses)
    for ours, theirs, silhouettes in zip(pairs, expected, (3e-3, 0.0), strict=True):
        assert theirs.abs().amax(dim=(0, 2, 3)).min() > 0.05
        different = (ours - theirs).abs() > 2e-3
        assert different[:, :3].float().mean() < 1e-4
        assert different[:, 3:].float().mean() <= silhouettes  # rasterized here, ray by ray there


def test_tracking_gives_the_same_poses(case):
    item, shown, row, ours = case
    start = shown.truths[item.name].copy()
    start[:3, 3] += [0.01, -0.005, 0.01]
    expected = row.track(shown.frame, {item.name: start})[item.name]
    (found,) = ours.track(ours.prepare(Uploader(CPU)(shown.frame)), [TrackRequest(item.name, start)])
    assert pose_difference(start, expected)[1] > 0.5, "the networks must have moved the pose"
    mm, deg = pose_difference(expected, found.T_cam_obj)
    assert mm < 0.1 and deg < 0.1


def test_registration_gives_the_same_scores_and_pose(case):
    item, shown, row, ours = case
    expected = row.register(shown.frame, item.name)
    scores = np.sort(row._estimators[item.name].scores)[::-1]
    mask = torch.from_numpy(shown.frame.masks[item.name])
    found = ours.register(ours.prepare(Uploader(CPU)(shown.frame)), item.name, mask)
    assert found.ranking is not None and len(scores) == 21
    spread = float(np.ptp(scores))
    assert spread > 1
    np.testing.assert_allclose(found.ranking.scores.numpy(), scores, atol=0.01 * spread, rtol=0)
    mm, deg = pose_difference(expected, item.from_centered(found.ranking.poses[0].double().numpy()))
    assert mm < 0.1 and deg < 0.1


def test_a_useless_mask_is_refused(case):
    item, shown, row, _ = case
    frame = shown.frame
    with pytest.raises(ValueError, match="mask has 0 pixels"):
        row._estimators[item.name].register(
            frame.rgb, metres(frame), np.zeros_like(frame.masks[item.name]), frame.camera.K
        )


def test_warp_reads_where_the_official_one_reads():
    """Crop pixel i is read at u W / (W - 1) - 0.5 of the image coordinate u that it stands for."""
    width, height, size = 40, 30, 8
    ramp = torch.arange(width, dtype=torch.float32).expand(1, 1, height, width)
    tf = torch.eye(3)[None].clone()
    left, right = 6.0, 22.0
    tf[0, 0, 0], tf[0, 0, 2] = size / (right - left), -left * size / (right - left)
    tf[0, 1, 1], tf[0, 1, 2] = size / 16.0, -4.0 * size / 16.0
    found = warp_perspective(ramp, tf, size, "bilinear")[0, 0, 3]
    u = left + torch.arange(size) * (right - left) / size
    torch.testing.assert_close(found, u * width / (width - 1) - 0.5, atol=1e-4, rtol=0)


def test_crop_window_is_one_pixel_smaller_when_rendered():
    pose = torch.eye(4)[None].clone()
    pose[0, :3, 3] = torch.tensor([0.1, 0.0, 1.0])
    k = torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    tf = crop_transforms(pose, k, 0.2, 160)
    corners = torch.linalg.inv(tf[0]) @ torch.tensor([[0.0, 160.0], [0.0, 160.0], [1.0, 1.0]])
    torch.testing.assert_close(corners[:2].T.reshape(-1), torch.tensor([40.0, 20.0, 80.0, 60.0]), atol=1e-3, rtol=0)
    expected = torch.tensor([[40.0, 20.0, 40 + 40 * 159 / 160, 20 + 40 * 159 / 160]])
    torch.testing.assert_close(rendered_windows(tf, 160), expected, atol=1e-3, rtol=0)


def test_exponential_map():
    v = torch.tensor([[0.3, -0.2, 0.1], [1e-8, 0.0, 0.0], [0.0, 2.0, -1.0]])
    R = so3_exp(v)
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(so3.log(R), v, atol=1e-4, rtol=0)


def test_networks_run_as_the_official_seed_leaves_cudnn(case, monkeypatch):
    item, shown, row, _ = case
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)
    monkeypatch.setattr(cudnn, "deterministic", False)
    seen = []
    refiner = row._estimators[item.name]._networks["refiner"]
    hook = refiner.register_forward_hook(lambda *_: seen.append((cudnn.benchmark, cudnn.deterministic)))
    try:
        row.track(shown.frame, {item.name: shown.truths[item.name]})
    finally:
        hook.remove()
    assert seen == [(False, True)] * CONFIG.pose.track_iterations
    assert (cudnn.benchmark, cudnn.deterministic) == (True, False), "others on the fallback order search"
