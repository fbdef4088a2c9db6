"""The CUDA path of the pose stage, on a GPU: same poses as on the CPU, captured or not, and no waiting inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pose_scenes import object_of, prepared, random_pose, scene_of, textured_box

from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose.estimator import Networks, PoseEstimator, TrackRequest
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.pose.renderer import WarpRenderer

pytestmark = pytest.mark.gpu


def estimator_on(device: str, rung: str, item, width: float = 0.25, schedule: str = "64,16,8"):
    torch.manual_seed(0)
    refiner, scorer = RefineNet(width).eval(), ScoreNet(width).eval()
    runners = [make_runner(refiner, rung, device, print, label="refiner", fallback=False) for _ in range(2)]
    scoring = make_runner(scorer, rung, device, print, label="scorer", fallback=False)
    config = PoseConfig(register_schedule=schedule, register_iterations=3)
    return PoseEstimator([item], WarpRenderer([item], device), Networks(*runners, scoring), config, device)


@pytest.fixture
def case():
    item = object_of(textured_box())
    T = random_pose(3)
    frame, _ = scene_of(item, T)
    return item, T, frame


@pytest.mark.parametrize("rung", ["eager", "half", "cuda_graph"])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_tracking_equals_the_cpu(case, rung, k):
    item, T, frame = case
    results = {}
    for device, how in (("cpu", "eager"), ("cuda:0", rung)):
        estimator = estimator_on(device, how, item)
        requests = [TrackRequest("thing", item.from_centered(T))] * k
        for _ in range(2):
            results[device] = estimator.track(prepared(estimator, frame), requests)
    if rung != "eager":
        assert estimator._tracks[k].graph.captured
    for a, b in zip(results["cpu"], results["cuda:0"], strict=True):
        np.testing.assert_allclose(b.T_cam_obj, a.T_cam_obj, atol=2e-3)
        assert b.confidence == pytest.approx(a.confidence, abs=0.05)


def test_the_captured_step_waits_for_nothing(case):
    item, T, frame = case
    estimator = estimator_on("cuda:0", "cuda_graph", item)
    pose_frame = prepared(estimator, frame)
    estimator.track(pose_frame, [TrackRequest("thing", item.from_centered(T))])
    program = estimator._tracks[1]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            program.graph()
        program.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(program.result).all()


@pytest.mark.parametrize("rung", ["eager", "half", "cuda_graph"])
def test_registration_runs_on_the_gpu(case, rung):
    item, T, frame = case
    mask = scene_of(item, T, "cuda:0")[1]
    found = {}
    for device, how in (("cpu", "eager"), ("cuda:0", rung)):
        estimator = estimator_on(device, how, item)
        found[device] = estimator.register(prepared(estimator, frame), "thing", mask.to(device))
    assert np.isfinite(found["cuda:0"].T_cam_obj).all()
    np.testing.assert_allclose(found["cuda:0"].T_cam_obj[:3, 3], found["cpu"].T_cam_obj[:3, 3], atol=0.02)


def test_warp_renders_alike_on_cpu_and_gpu(case):
    item, T, _ = case
    frames = [scene_of(item, T, device)[0] for device in ("cpu", "cuda:0")]
    a, b = (f.depth for f in frames)
    both = (a > 0) & (b > 0)
    assert ((a > 0) != (b > 0)).mean() < 1e-4
    np.testing.assert_allclose(a[both], b[both], atol=1e-5)


def test_nvdiffrast_renders_what_warp_renders(case):
    pytest.importorskip("nvdiffrast.torch")
    from rfdetr_foundationpose.pose.nvdiffrast_renderer import NvdiffrastRenderer

    item, T, _ = case
    poses = torch.tensor(np.stack([T, random_pose(5)]), dtype=torch.float32, device="cuda:0")
    window = torch.tensor([[250.0, 130.0, 450.0, 330.0]], device="cuda:0").repeat(2, 1)
    camera = torch.tensor([[615.0, 610.0, 318.5, 241.5]], device="cuda:0")
    model = torch.zeros(2, dtype=torch.int32, device="cuda:0")
    renderings = [
        kind([item], "cuda:0").render(poses, model, window, camera, (160, 160))
        for kind in (WarpRenderer, NvdiffrastRenderer)
    ]
    a, b = renderings
    assert (a.mask != b.mask).float().mean() < 0.01
    both = a.mask & b.mask
    assert (a.xyz - b.xyz)[both].abs().max() < 2e-4
    assert (a.rgb - b.rgb)[both].abs().mean() < 0.01
