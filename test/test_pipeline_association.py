"""Projected boxes, overlap, and the assignment of detections to instances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.device import resolve_device
from rfdetr_foundationpose.pipeline.association import (
    Matching,
    Registering,
    associate,
    choose_instance,
    without_duplicates,
)
from rfdetr_foundationpose.pipeline.extent import ObjectExtent, box_iou, detection_point
from rfdetr_foundationpose.pipeline.tracks import Track
from rfdetr_foundationpose.types import CameraIntrinsics, Detection

CAMERA = CameraIntrinsics(500.0, 500.0, 320.0, 240.0, 640, 480)


def sphere(radius: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2000, 3))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True)


def pose(x: float, y: float, z: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def detection(box, depth=None, score=0.9, object="mug") -> Detection:
    return Detection(object, object, score, np.array(box, np.float32), None, "rf-detr", depth)


EXTENT = ObjectExtent.from_vertices(sphere())


def matching(iou_threshold: float) -> Matching:
    return Matching(EXTENT, CAMERA, iou_threshold)


def test_projected_box_is_nearly_that_of_all_vertices():
    vertices = sphere() * (1.0, 0.5, 2.0) + (0.3, 0.0, 0.1)
    extent = ObjectExtent.from_vertices(vertices)
    T = pose(0.05, -0.1, 0.8)
    p = vertices + T[:3, 3]
    u, v = 500 * p[:, 0] / p[:, 2] + 320, 500 * p[:, 1] / p[:, 2] + 240
    exact = np.array([u.min(), v.min(), u.max(), v.max()])
    assert box_iou(extent.project(T, CAMERA), exact) > 0.93
    assert len(extent.points) <= 98


def test_no_box_behind_the_camera_or_outside_the_image():
    assert EXTENT.project(pose(0, 0, -1), CAMERA) is None
    assert EXTENT.project(pose(0, 0, 0.02), CAMERA) is None
    assert EXTENT.project(pose(5, 0, 1), CAMERA) is None
    assert EXTENT.project(pose(np.nan, 0, 1), CAMERA) is None
    x0, _, x1, _ = EXTENT.project(pose(0.64, 0, 1), CAMERA)
    assert 0 <= x0 < x1 == 640


def test_box_iou_known_cases():
    a = np.array([0.0, 0.0, 10.0, 10.0])
    assert box_iou(a, a) == 1.0
    assert box_iou(a, a + 10) == 0.0
    assert box_iou(a, np.array([5.0, 0.0, 15.0, 10.0])) == pytest.approx(1 / 3)


def test_detection_point_is_on_the_ray_of_the_box():
    np.testing.assert_allclose(detection_point(detection([310, 230, 430, 350], 2.0), CAMERA), [0.2, 0.2, 2.0])
    assert detection_point(detection([310, 230, 430, 350]), CAMERA) is None
    assert detection_point(detection([310, 230, 430, 350], 0.0), CAMERA) is None


def test_assignment_is_optimal_not_greedy():
    tracks = [Track("mug", 0, T_cam_obj=pose(0.0, 0, 1)), Track("mug", 1, T_cam_obj=pose(0.06, 0, 1))]
    boxes = [EXTENT.project(pose(x, 0, 1), CAMERA) for x in (0.03, -0.05)]
    assert associate([detection(b) for b in boxes], tracks, matching(0.1)) == {0: 1, 1: 0}


def test_depth_tells_two_instances_on_one_ray_apart():
    tracks = [Track("mug", 0, T_cam_obj=pose(0, 0, 1.0)), Track("mug", 1, T_cam_obj=pose(0, 0, 1.2))]
    box = EXTENT.project(pose(0, 0, 1.05), CAMERA)
    assert associate([detection(box, 1.16)], tracks, matching(0.1)) == {0: 1}


def test_pairs_without_overlap_or_nearness_are_impossible():
    tracks = [Track("mug", 0, T_cam_obj=pose(0, 0, 1)), Track("mug", 1)]
    far = EXTENT.project(pose(0.3, 0, 1), CAMERA)
    assert associate([detection(far)], tracks, matching(0.3)) == {}
    assert associate([], tracks, matching(0.3)) == {}
    assert associate([detection(far)], [], matching(0.3)) == {}


def test_a_detection_near_in_space_is_the_track_whatever_the_boxes_say_but_not_from_farther_away():
    """Half a diameter, 8.6 cm, is near; the boxes of both detections do not meet that of the track."""
    track = Track("mug", 0, T_cam_obj=pose(0, 0, 1))
    apart = np.array([0.0, 0.0, 4.0, 4.0])
    for depth, expected in ((1.08, {0: 0}), (1.10, {})):
        u, v = (np.array((0.0, 0.0)) / depth * 500 + (320, 240)).tolist()
        box = apart + np.array([u, v, u, v]) - 2  # a speck in the middle of the track's box: an IoU of next to nothing
        assert associate([detection(box, depth)], [track], matching(0.3)) == expected


@pytest.mark.parametrize("reach, expected", [(0.5, {}), (np.inf, {0: 0})])
def test_an_instance_under_registration_is_found_within_its_reach(reach, expected):
    before = detection(EXTENT.project(pose(0, 0, 1), CAMERA), 1.0)
    moved = detection(EXTENT.project(pose(0.3, 0, 1), CAMERA), 1.0)
    assert associate([moved], [], matching(0.3), Registering(before, reach)) == expected
    near = detection(EXTENT.project(pose(0.05, 0, 1), CAMERA), 1.0)
    assert associate([near], [], matching(0.3), Registering(before, reach)) == {0: 0}


def test_of_two_far_detections_the_nearer_one_is_the_instance_under_registration():
    """Both are farther than where the slope ends; only a trace of the distance tells them apart."""
    before = detection(EXTENT.project(pose(-0.4, 0, 1), CAMERA), 1.0)
    far, nearer = (detection(EXTENT.project(pose(x, 0, 1), CAMERA), 1.0) for x in (0.5, 0.2))
    for seen, expected in (([far, nearer], {1: 0}), ([nearer, far], {0: 0})):
        assert associate(seen, [], matching(0.3), Registering(before, np.inf)) == expected


def test_beyond_two_diameters_overlap_decides_and_not_distance():
    """Far is far: 3.5 diameters behind with a box that overlaps is likelier than 2.5 diameters aside with none."""
    before = detection(EXTENT.project(pose(0, 0, 1), CAMERA), 1.0)
    behind = detection(before.box + [20, 0, 20, 0], 1.6)
    aside = detection(EXTENT.project(pose(0.45, 0, 1), CAMERA), 1.0)
    assert box_iou(before.box, behind.box) > 0.3 and box_iou(before.box, aside.box) == 0
    assert associate([aside, behind], [], matching(0.5), Registering(before, np.inf)) == {1: 0}


def test_duplicates_are_counted_and_the_best_stays():
    first, again, apart = (
        detection([0, 0, 10, 10], score=0.6),
        detection([0, 0, 10, 9.5], score=0.8, object="can"),
        detection([20, 0, 30, 10], score=0.5),
    )
    kept, dropped = without_duplicates([first, again, apart])
    assert kept == [again, apart] and dropped == 1
    kept, dropped = without_duplicates([first, apart], claimed=[again])
    assert kept == [apart] and dropped == 1


def test_new_detection_prefers_the_instance_last_seen_there_then_an_unused_one():
    here, unused, elsewhere = (
        Track("mug", 2, T_cam_obj=pose(0, 0, 1)),
        Track("mug", 1),
        Track("mug", 0, T_cam_obj=pose(0.4, 0, 1)),
    )
    found = detection(EXTENT.project(pose(0.01, 0, 1), CAMERA), 0.95)
    assert choose_instance(found, [elsewhere, unused, here], EXTENT, CAMERA) is here
    assert choose_instance(found, [elsewhere, unused], EXTENT, CAMERA) is unused
    assert choose_instance(found, [elsewhere], EXTENT, CAMERA) is elsewhere


def test_resolve_device_names_what_is_wrong():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="not a torch device"):
        resolve_device("gpu0")
    with pytest.raises(ConfigError, match="not supported"):
        resolve_device("meta")
    count = torch.cuda.device_count()
    with pytest.raises(ConfigError, match="CUDA device"):
        resolve_device(f"cuda:{count}")
