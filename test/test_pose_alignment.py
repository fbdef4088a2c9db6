"""Poses aligned with the image by its depth and texture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import warp as wp
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose import alignment_kernels as kernels
from rfdetr_foundationpose.pose.alignment import Alignment
from rfdetr_foundationpose.pose.estimator import PoseEstimator, TrackRequest
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.pose.observation import Observation
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.runners import Networks
from rfdetr_foundationpose.pose.views import CropSettings, ViewSet
from support.pose_scenes import (
    CAMERA,
    Oracle,
    object_of,
    oracle_estimator,
    prepared,
    random_pose,
    scene_of,
    textured_box,
)

CPU = torch.device("cpu")


def patterned_box():
    """``textured_box`` with squares of a centimetre, lighter and darker, on every side."""
    mesh = textured_box().subdivide().subdivide().subdivide()
    mesh.unmerge_vertices()
    squares = np.floor(mesh.triangles_center / 0.0101 + 100).sum(1) % 2
    colors = np.asarray(mesh.visual.face_colors, float)
    colors[:, :3] *= 0.5 + 0.5 * squares[:, None]
    mesh.visual.face_colors = colors.astype(np.uint8)
    return mesh


def moved(T, seed, *, mm=4.0, degrees=3.0):
    """A pose that is off by so much, in a random direction."""
    rng = np.random.default_rng(seed)
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    other = T.copy()
    other[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix() @ T[:3, :3]
    other[:3, 3] += 1e-3 * mm * way
    return other


def apart(a, b):
    """Millimetres and degrees between poses."""
    turn = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude()
    return 1e3 * np.linalg.norm(a[:3, 3] - b[:3, 3]), np.degrees(turn)


def observation_of(frame):
    camera = torch.tensor([[CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy]], dtype=torch.float32)
    return Observation(torch.tensor(frame.rgb), torch.tensor(frame.depth, dtype=torch.float32), camera)


def aligned(item, observation, starts):
    """(N, 4, 4) poses of one object, aligned together."""
    renderer = WarpRenderer([item], "cpu")
    views = ViewSet(renderer, len(starts), CPU, CropSettings(paired=False, compared=0))
    views.poses.copy_(torch.tensor(np.stack(starts), dtype=torch.float32))
    views.diameters.fill_(item.diameter)
    Alignment(renderer, len(starts), CPU)(views, len(starts), observation)
    return views.poses.numpy().astype(np.float64)


@pytest.mark.parametrize("seed", range(4))
def test_a_pose_that_is_off_comes_nearer(seed):
    item, truth = object_of(patterned_box()), random_pose(seed)
    frame, _ = scene_of(item, truth)
    starts = [moved(truth, 10 * seed + i) for i in range(4)]
    for start, end in zip(starts, aligned(item, observation_of(frame), starts), strict=True):
        mm, degrees = apart(end, truth)
        assert mm < 1.2 and degrees < 1.2, (apart(start, truth), mm, degrees)


def test_the_true_pose_stays():
    item, truth = object_of(patterned_box()), random_pose(5)
    frame, _ = scene_of(item, truth)
    mm, degrees = apart(aligned(item, observation_of(frame), [truth])[0], truth)
    assert mm < 0.3 and degrees < 0.3


def test_depth_alone_leaves_what_it_cannot_tell():
    """A grey box seen from the front: texture says nothing, depth nothing of what lies across the line of sight."""
    mesh = textured_box()
    mesh.visual.face_colors = np.full((len(mesh.faces), 4), (128, 128, 128, 255), np.uint8)
    item, truth = object_of(mesh), np.eye(4)
    truth[:3, 3] = [0.01, 0.02, 0.6]
    frame, _ = scene_of(item, truth)
    start = truth.copy()
    start[:3, 3] += [0.003, 0.0, 0.004]
    (end,) = aligned(item, observation_of(frame), [start])
    assert abs(end[2, 3] - truth[2, 3]) < 0.0005, "along the line of sight"
    assert abs(end[0, 3] - truth[0, 3]) < 0.0045, "and across it not far from where it was"


def test_texture_tells_what_depth_cannot():
    item, truth = object_of(patterned_box()), np.eye(4)
    truth[:3, 3] = [0.01, 0.02, 0.6]
    frame, _ = scene_of(item, truth)
    start = truth.copy()
    start[:3, 3] += [0.003, -0.002, 0.002]
    mm, degrees = apart(aligned(item, observation_of(frame), [start])[0], truth)
    assert mm < 0.8 and degrees < 0.8


def test_what_hides_a_part_and_touches_it_does_not_pull():
    item, truth = object_of(patterned_box()), random_pose(1)
    frame, mask = scene_of(item, truth)
    rows, columns = torch.nonzero(mask, as_tuple=True)
    half = int(columns.float().median())
    rgb, depth = frame.rgb.copy(), frame.depth.copy()
    hidden = np.zeros(depth.shape, bool)
    hidden[int(rows.min()) - 20 : int(rows.max()) + 20, half - 60 : half] = True
    depth[hidden] = truth[2, 3] - 0.12
    rgb[hidden] = (250, 20, 120)
    observation = observation_of(dataclasses.replace(frame, rgb=rgb, depth=depth))
    start = moved(truth, 3, mm=3.0, degrees=2.0)
    mm, degrees = apart(aligned(item, observation, [start])[0], truth)
    assert mm < 2.0 and degrees < 2.0


@pytest.mark.parametrize(
    "what", ["no depth", "somewhere else", "outside of the image", "behind the camera", "no number"]
)
def test_a_pose_that_nothing_is_seen_of_stays(what):
    item, truth = object_of(patterned_box()), random_pose(2)
    frame, _ = scene_of(item, truth)
    start = truth.copy()
    if what == "no depth":
        frame = dataclasses.replace(frame, depth=np.zeros_like(frame.depth))
    elif what == "somewhere else":
        start[:3, 3] = [-0.2, 0.1, 0.5]
    elif what == "outside of the image":
        start[0, 3] = 3.0
    elif what == "behind the camera":
        start[2, 3] = -0.4
    else:
        start[0, 3] = np.nan
    ends = aligned(item, observation_of(frame), [start, moved(truth, 1)])
    np.testing.assert_array_equal(ends[0], start.astype(np.float32))
    if what != "no depth":
        assert apart(ends[1], truth)[0] < 1.5, "the one beside it is aligned all the same"


def test_poses_do_not_depend_on_those_beside_them():
    item, truth = object_of(patterned_box()), random_pose(7)
    frame, _ = scene_of(item, truth)
    starts = [moved(truth, i) for i in range(3)]
    together = aligned(item, observation_of(frame), starts)
    alone = [aligned(item, observation_of(frame), [start])[0] for start in starts]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_in_two_threads_and_whatever_mode_the_caller_is_in():
    """Threads of a pool write to the buffers outside of inference mode, and for two objects there are two."""
    item, truth = object_of(patterned_box()), random_pose(3)
    frame, _ = scene_of(item, truth)
    runners = [make_runner(n(0.125).eval(), "eager") for n in (RefineNet, RefineNet, ScoreNet)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        estimator = PoseEstimator(
            [item], WarpRenderer([item], "cpu"), Networks(*runners), PoseConfig(align="always"), "cpu"
        )
        with torch.inference_mode():
            requests = [TrackRequest("thing", item.from_centered(truth), 1.0)] * 2
            first, second = estimator.track(prepared(estimator, frame), requests)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(first.T_cam_obj, second.T_cam_obj, atol=1e-6)


def test_a_hole_in_the_depth_does_not_hide_the_texture():
    item, truth = object_of(patterned_box()), random_pose(4)
    frame, _ = scene_of(item, truth)
    depth = frame.depth.copy()
    rng = np.random.default_rng(0)
    depth[rng.random(depth.shape) < 0.5] = 0.0
    observation = observation_of(dataclasses.replace(frame, depth=depth))
    mm, degrees = apart(aligned(item, observation, [moved(truth, 2)])[0], truth)
    assert mm < 1.5 and degrees < 1.5


@wp.kernel
def solved(A: wp.array(dtype=kernels.mat66), b: wp.array(dtype=kernels.vec6), x: wp.array(dtype=kernels.vec6)):
    i = wp.tid()
    x[i] = kernels.solve(A[i], b[i])


@wp.kernel
def vectors(R: wp.array(dtype=wp.mat33f), out: wp.array(dtype=wp.vec3f)):
    i = wp.tid()
    out[i] = kernels.rotation_vector(R[i])


def test_the_step_is_solved_as_numpy_solves_it():
    rng = np.random.default_rng(0)
    J = rng.normal(size=(20, 12, 6)) * [1, 2, 3, 0.1, 1, 5]
    A, b = (J.transpose(0, 2, 1) @ J).astype(np.float32), rng.normal(size=(20, 6)).astype(np.float32)
    x = wp.zeros(20, dtype=kernels.vec6, device="cpu")
    given = [wp.array(A, dtype=kernels.mat66, device="cpu"), wp.array(b, dtype=kernels.vec6, device="cpu")]
    wp.launch(solved, 20, [*given, x], device="cpu")
    expected = np.linalg.solve(A.astype(np.float64), b[..., None].astype(np.float64))[..., 0]
    np.testing.assert_allclose(x.numpy(), expected, rtol=2e-3, atol=1e-4)


def test_rotation_vectors():
    rng = np.random.default_rng(1)
    rotations = Rotation.from_rotvec(rng.normal(size=(50, 3)) * np.geomspace(1e-7, 1.2, 50)[:, None])
    out = wp.zeros(50, dtype=wp.vec3f, device="cpu")
    R = wp.array(rotations.as_matrix().astype(np.float32), dtype=wp.mat33f, device="cpu")
    wp.launch(vectors, 50, [R, out], device="cpu")
    np.testing.assert_allclose(out.numpy(), rotations.as_rotvec(), atol=2e-6)


@pytest.mark.parametrize(
    ("asked", "official", "device", "expected"),
    [
        ("auto", (), "cpu", True),
        ("auto", ("refiner",), "cpu", False),
        ("auto", (), "cuda", False),
        ("always", ("refiner",), "cuda", True),
        ("never", (), "cpu", False),
    ],
)
def test_where_poses_are_aligned(asked, official, device, expected):
    item, truth = object_of(patterned_box()), random_pose(3)
    estimator = oracle_estimator(item, truth, PoseConfig())
    estimator.apply(PoseConfig(align=asked))
    estimator.device = torch.device(device)
    estimator._networks = dataclasses.replace(estimator._networks, official_crops=official)
    assert estimator._aligns is expected


@pytest.mark.parametrize("align", ["never", "always"])
def test_registration_and_tracking_are_aligned_where_asked(align):
    """The networks know a pose that is off; the image knows better."""
    item, truth = object_of(patterned_box()), random_pose(3)
    believed = moved(truth, 1)
    frame, mask = scene_of(item, truth)
    estimator = oracle_estimator(
        item, believed, PoseConfig(align=align, register_schedule="24,8", register_iterations=5)
    )
    observation = prepared(estimator, frame)
    registered = estimator.register(observation, "thing", mask)
    (tracked,) = estimator.track(observation, [TrackRequest("thing", moved(truth, 4))])
    for estimate in (registered, tracked):
        mm, degrees = apart(item.to_centered(estimate.T_cam_obj), truth)
        if align == "always":
            assert mm < 1.2 and degrees < 1.2
        else:
            assert mm > 3.0 and degrees > 2.0


class Misled(Oracle):
    """A refiner that something pulls far away from the object."""

    def __call__(self, rendered, observed):
        trans = torch.zeros(len(rendered), 3)
        trans[:, 0] = 0.9
        return trans, torch.zeros(len(rendered), 3)


@pytest.mark.parametrize(("confidence", "stays"), [(0.9, True), (0.2, False)])
def test_a_pose_that_was_trusted_stays_where_the_refiner_leaves_it_wrongly(confidence, stays):
    item, truth = object_of(patterned_box()), random_pose(3)
    frame, _ = scene_of(item, truth)
    estimator = oracle_estimator(item, truth, PoseConfig(align="always"))
    refiner = estimator._networks.track_refiner
    misled = Misled(refiner.poses, refiner.truth, refiner.symmetries, refiner.diameter)
    estimator._networks = dataclasses.replace(estimator._networks, track_refiner=misled)
    request = TrackRequest("thing", moved(truth, 2, mm=2.0, degrees=1.0), confidence)
    (estimate,) = estimator.track(prepared(estimator, frame), [request])
    mm, _ = apart(item.to_centered(estimate.T_cam_obj), truth)
    assert bool(mm < 1.0) == stays and bool(estimate.confidence > 0.5) == stays
    if not stays:
        assert mm > 50


@pytest.mark.parametrize(("mm", "expected"), [(1.0, 1), (20.0, 2)])
def test_on_a_cpu_a_small_step_is_the_last(mm, expected):
    item, truth = object_of(patterned_box()), random_pose(3)
    frame, _ = scene_of(item, truth)
    estimator = oracle_estimator(item, truth, PoseConfig(align="always", track_iterations=2))
    asked = []
    refiner = estimator._networks.track_refiner
    counting = Counting(refiner.poses, refiner.truth, refiner.symmetries, refiner.diameter)
    counting.asked = asked
    estimator._networks = dataclasses.replace(estimator._networks, track_refiner=counting)
    estimator.track(prepared(estimator, frame), [TrackRequest("thing", moved(truth, 2, mm=mm, degrees=1.0))])
    assert len(asked) == expected


class Counting(Oracle):
    """An oracle that writes down what it is asked."""

    asked: list[int]

    def __call__(self, rendered, observed):
        self.asked.append(len(rendered))
        return super().__call__(rendered, observed)
