"""The CUDA path of the pose stage, on a GPU: the same poses on every backend, captured or not, and no waiting inside."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.accel.base import RunnerContext
from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose.agreement_columns import DESCRIBED, FEATURES, POSE, RESULT_COLUMNS
from rfdetr_foundationpose.pose.checkpoints import find, load_refiner, load_scorer
from rfdetr_foundationpose.pose.estimator import PoseEstimator, RegistrationError, TrackRequest
from rfdetr_foundationpose.pose.example_crops import example_pairs
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.pose.renderer import Views, WarpRenderer
from rfdetr_foundationpose.pose.runners import Networks
from rfdetr_foundationpose.pose.symmetry import rotation_angle
from rfdetr_foundationpose.resources import models_dir
from support.pose_scenes import object_of, prepared, random_pose, scene_of, textured_box

pytestmark = pytest.mark.gpu


def estimator_on(device: str, backend: str, item, width: float = 0.25, schedule: str = "64,16,8"):
    torch.manual_seed(0)
    refiner, scorer = RefineNet(width).eval(), ScoreNet(width).eval()
    runners = [make_runner(refiner, backend, RunnerContext(device, label="refiner"), fallback=False) for _ in range(2)]
    scoring = make_runner(scorer, backend, RunnerContext(device, label="scorer"), fallback=False)
    config = PoseConfig(register_schedule=schedule, register_iterations=3)
    return PoseEstimator([item], WarpRenderer([item], device), Networks(*runners, scoring), config, device)


@pytest.fixture
def case():
    item = object_of(textured_box())
    T = random_pose(3)
    frame, mask = scene_of(item, T, "cuda:0")
    return item, T, frame, mask


@pytest.mark.parametrize("backend", ["half", "cuda_graph"])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_tracking_equals_eager(case, backend, k):
    item, T, frame, _ = case
    results = []
    for how in ("reference", backend):
        estimator = estimator_on("cuda:0", how, item)
        requests = [TrackRequest("thing", item.from_centered(T))] * k
        for _ in range(2):
            found = estimator.track(prepared(estimator, frame), requests)
        assert estimator._tracks[k].graph.captured == (how == backend)
        results.append(found)
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b.T_cam_obj, a.T_cam_obj, atol=2e-3)
        assert b.confidence == pytest.approx(a.confidence, abs=0.05)


def test_the_captured_step_waits_for_nothing(case):
    item, T, frame, _ = case
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


def needs_capability(backend: str) -> None:
    """Skip where the GPU is too old for the backend."""
    if backend == "fp8" and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("FP8 needs compute capability 9.0")


def shipped(backend: str, item, schedule: str = "auto") -> PoseEstimator:
    """With the shipped weights, whose answers mean something."""
    directory = models_dir() / "pose"
    refiner, _ = load_refiner(find(directory, "refiner"))
    scorer, _ = load_scorer(find(directory, "scorer"))
    made = [
        make_runner(network, backend, RunnerContext("cuda:0", label=label, examples=example_pairs), fallback=False)
        for network, label in ((refiner, "refiner"), (refiner, "register refiner"), (scorer, "scorer"))
    ]
    return PoseEstimator(
        [item], WarpRenderer([item], "cuda:0"), Networks(*made), PoseConfig(register_schedule=schedule), "cuda:0"
    )


def difference(a, b) -> tuple[float, float]:
    """mm and degrees between two poses (4, 4)."""
    return 1e3 * np.linalg.norm(a[:3, 3] - b[:3, 3]), np.degrees(rotation_angle(a[:3, :3].T @ b[:3, :3]))


@pytest.mark.parametrize(("backend", "schedule"), [("half", "auto"), ("cuda_graph", "auto"), ("fp8", "full")])
def test_registration_equals_eager(case, backend, schedule):
    needs_capability(backend)
    item, _, frame, mask = case
    found = [shipped(how, item, schedule) for how in ("eager", backend)]
    for estimator in found:
        estimator.register(prepared(estimator, frame), "thing", ~mask)  # replays must forget what they saw before
    estimates = [e.register(prepared(e, frame), "thing", mask) for e in found]
    assert found[1].degraded == []
    (program,) = found[1]._registers.values()
    assert program.graph.captured and program.graph.counters.replays >= 2  # more where one is searched twice
    assert (program._coarse is not None) == (backend == "fp8")
    millimetres, degrees = difference(*(e.T_cam_obj for e in estimates))
    assert millimetres < 0.5
    assert degrees < 0.5
    assert estimates[0].confidence == pytest.approx(estimates[1].confidence, abs=0.05)


@pytest.mark.parametrize("backend", ["cuda_graph", "fp8"])
@pytest.mark.parametrize("schedule", ["full", "auto", "100,40,8"])
def test_the_captured_registration_waits_for_nothing(case, schedule, backend):
    needs_capability(backend)
    item, _, frame, mask = case
    # FP8 has no tiles for networks as narrow as others are tested with.
    estimator = estimator_on("cuda:0", backend, item, width=0.5 if backend == "fp8" else 0.25, schedule=schedule)
    estimator.register(prepared(estimator, frame), "thing", mask)
    (program,) = estimator._registers.values()
    assert program.graph.captured, estimator.degraded
    expected = [t.clone() for t in program.graph()]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [t.clone() for t in program.graph()]  # outputs hold until something else of the pool runs
        eagerly = [t.clone() for t in program.run()]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # Agreement counts are sums of floats in any order, and near ties of the previews may fall either way.
    torch.testing.assert_close(found[0][POSE], expected[0][POSE], atol=1e-3, rtol=0)  # of the first
    described = [dict(zip(FEATURES, packed[DESCRIBED], strict=True)) for packed in (found[0], expected[0])]
    for update in ("step", "turn"):  # square roots
        a, b = (features[update].square() for features in described)
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1][:1], expected[1][:1], atol=2e-2, rtol=2e-2)
    assert all(torch.isfinite(t).all() for t in eagerly)
    assert len(eagerly[0]) == program.top_k * (RESULT_COLUMNS + 2) + 2
    torch.testing.assert_close(eagerly[0][-2:], expected[0][-2:])  # pixels of the mask


def test_a_mask_without_depth_is_refused(case):
    item, _, frame, mask = case
    estimator = estimator_on("cuda:0", "cuda_graph", item)
    empty = prepared(estimator, dataclasses.replace(frame, depth=np.zeros_like(frame.depth)))
    with pytest.raises(RegistrationError, match="have depth in"):
        estimator.register(empty, "thing", mask)
    with pytest.raises(RegistrationError, match="mask is empty"):
        estimator.register(prepared(estimator, frame), "thing", torch.zeros_like(mask))


def test_registration_in_a_thread_disturbs_neither_itself_nor_tracking(case):
    item, T, frame, mask = case
    estimator = shipped("cuda_graph", item)
    request = [TrackRequest("thing", item.from_centered(T))]
    pose_frame = prepared(estimator, frame)
    alone = estimator.track(pose_frame, request)[0].T_cam_obj
    registered = estimator.register(pose_frame, "thing", mask).T_cam_obj
    torch.cuda.synchronize()
    results = []

    def register() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            results.extend(estimator.register(pose_frame, "thing", mask).T_cam_obj for _ in range(10))

    thread = threading.Thread(target=register)
    thread.start()
    tracked = [estimator.track(prepared(estimator, frame), request)[0].T_cam_obj for _ in range(500)]
    thread.join()
    assert len(results) == 10
    for found, expected in [(t, alone) for t in tracked] + [(r, registered) for r in results]:
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_warp_renders_alike_on_cpu_and_gpu(case):
    item, T, on_gpu, _ = case
    try:
        on_cpu, _ = scene_of(item, T, "cpu")
    except AttributeError:
        pytest.skip("this Warp has no CPU backend (warp-clang)")
    a, b = on_cpu.depth, on_gpu.depth
    both = (a > 0) & (b > 0)
    assert ((a > 0) != (b > 0)).mean() < 1e-4
    np.testing.assert_allclose(a[both], b[both], atol=1e-5)


def test_nvdiffrast_renders_what_warp_renders(case):
    pytest.importorskip("nvdiffrast.torch")
    from rfdetr_foundationpose.pose.nvdiffrast_renderer import NvdiffrastRenderer

    item, T, _, _ = case
    poses = torch.tensor(np.stack([T, random_pose(5)]), dtype=torch.float32, device="cuda:0")
    window = torch.tensor([[250.0, 130.0, 450.0, 330.0]], device="cuda:0").repeat(2, 1)
    camera = torch.tensor([[615.0, 610.0, 318.5, 241.5]], device="cuda:0")
    model = torch.zeros(2, dtype=torch.int32, device="cuda:0")
    views = Views(poses, model, window, camera)
    renderings = [kind([item], "cuda:0").render(views, (160, 160)) for kind in (WarpRenderer, NvdiffrastRenderer)]
    a, b = renderings
    assert (a.mask != b.mask).float().mean() < 0.01
    both = a.mask & b.mask
    assert (a.xyz - b.xyz)[both].abs().max() < 2e-4
    assert (a.rgb - b.rgb)[both].abs().mean() < 0.01
