"""Diagnostics levels: each says one thing, and only while it is so."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticStatus

from rfdetr_foundationpose.latency import StageStats
from rfdetr_foundationpose.pipeline import PipelineStatus
from rfdetr_foundationpose.ros.diagnostics import Diagnostics, Health
from rfdetr_foundationpose.ros.worker import Tally

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

WELL = Health(
    node="pose_node",
    state="active",
    hardware_id="camera_color_optical_frame",
    since=100.0,
    tally=Tally(300, 300, 0, {}),
    images={"rgb": 300, "depth": 300, "pairs": 300, "unmatched_rgb": 0, "unmatched_depth": 0},
    rate=30.0,
    processed_rate=25.0,
    silence=0.01,
    age=0.02,
    min_rate=10.0,
    status=PipelineStatus(
        "rf-detr", "eager", "default", "cuda_graph", "default", "cuda:0", 2**30, {"registered": 1}, {"mug": "tracking"}
    ),
    thresholds={"mug": 0.5},
    latency={"end_to_end": StageStats(300, 9.0, 9.0, 8.5, 11.0, 15.0)},
)


def report(health: Health, before: Health | None = None) -> dict[str, DiagnosticStatus]:
    diagnose = Diagnostics()
    if before is not None:
        diagnose(before)
    return {s.name.removeprefix("pose_node: "): s for s in diagnose(health)}


def test_all_is_well():
    statuses = report(WELL, WELL)
    assert {s.level for s in statuses.values()} == {OK}
    assert {s.hardware_id for s in statuses.values()} == {"camera_color_optical_frame"}
    assert statuses["input"].message == "30.0 Hz"
    assert statuses["processing"].message == "end to end p50 8.5 ms, p95 11.0 ms"
    assert statuses["objects"].message == "1 tracked"
    assert statuses["backend"].message == "rf-detr eager + pose cuda_graph on cuda:0"
    values = {v.key: v.value for v in statuses["backend"].values}
    assert values["gpu_memory_mib"] == "1024.0"
    values = {v.key: v.value for v in statuses["processing"].values}
    assert values["end_to_end_ms_p50_p95_max"] == "8.50 11.00 15.00"
    assert values["rate_hz"] == "25.00"


@pytest.mark.parametrize(
    ("change", "status", "level", "words"),
    [
        ({"silence": 2.5}, "input", ERROR, "input stalled: no image pair for 2.5 s; neither rgb nor depth arrives"),
        ({"silence": None, "since": 3.0}, "input", ERROR, "no image pair for 3.0 s"),
        ({"silence": 3.0, "images": {"rgb": 330, "depth": 300}}, "input", ERROR, "depth does not arrive"),
        ({"silence": 3.0, "images": {"rgb": 330, "depth": 330}}, "input", ERROR, "input.sync:=approximate"),
        ({"rate": 5.0, "silence": 0.5}, "input", WARN, "input rate low: 5.0 Hz, expected at least 10 Hz"),
        (
            {"depth_frame": "camera_depth_frame"},
            "input",
            WARN,
            "depth is in frame camera_depth_frame, colour in camera_color_optical_frame, and is taken for registered",
        ),
        ({"nameless": True}, "input", WARN, "neither the images nor camera_info have a frame_id: no tf is broadcast"),
        ({"distortion": "its lens distorts", "distorted": 30}, "input", WARN, "its lens distorts"),
        ({"waiting_for_clock": True}, "input", ERROR, "no /clock arrives"),
        (
            {"error_counts": {"telemetry_image": 2}, "errors": {"telemetry_image": "no memory"}},
            "processing",
            WARN,
            "2 x telemetry_image: no memory",
        ),
        (  # each of the frames failed on its early image too, which cost no frame more
            {
                "tally": Tally(302, 300, 0, {"pipeline_error": 2}),
                "error_counts": {"pipeline_error": 2, "early_upload_error": 2},
                "errors": {"pipeline_error": "no device", "early_upload_error": "no device"},
            },
            "processing",
            ERROR,
            "2 frames failed: no device; 2 x early_upload_error: no device",
        ),
        ({"has_camera": False}, "input", ERROR, "waiting for rgb/camera_info"),
        ({"age": -3.0}, "input", WARN, "3.00 s in the future"),
        (
            {"tally": Tally(330, 320, 0, {"size_mismatch": 10}), "errors": {"size_mismatch": "depth is 80x60"}},
            "input",
            WARN,
            "10 frames dropped (size_mismatch): depth is 80x60",
        ),
        ({"tally": Tally(330, 310, 0, {"replaced": 20})}, "processing", WARN, "falling behind: 10 of 30 new frames"),
        ({"tally": Tally(330, 326, 0, {"replaced": 4})}, "processing", WARN, "falling behind: 26 of 30 new frames"),
        ({"busy_for": 4.2}, "processing", WARN, "one frame has taken 4.2 s so far"),
        (
            {"tally": Tally(301, 300, 0, {"pipeline_error": 1}), "errors": {"pipeline_error": "out of memory"}},
            "processing",
            ERROR,
            "1 frames failed: out of memory",
        ),
        ({"failure": "ConfigError: no such mesh", "state": "unconfigured"}, "backend", ERROR, "no such mesh"),
    ],
)
def test_what_is_wrong_is_said_where_it_belongs(change, status, level, words):
    statuses = report(replace(WELL, **change), WELL)
    assert statuses[status].level == level
    assert words in statuses[status].message
    assert {s.level for name, s in statuses.items() if name != status} == {OK}


def with_status(**change: object) -> Health:
    assert WELL.status is not None
    return replace(WELL, status=replace(WELL.status, **change))


def test_no_detection_names_best_score_and_threshold():
    statuses = report(with_status(states={"mug": "searching"}, best_below={"mug": 0.31}))
    assert statuses["objects"].level == WARN
    assert statuses["objects"].message == "mug: no detection, best score 0.31 below the threshold 0.50"


@pytest.mark.parametrize(
    "sent, came, lost", [(5, 5, False), (5, 4, False), (5, 3, True), (30, 25, False), (30, 20, True)]
)
def test_images_get_lost_where_more_than_one_is_missing(sent, came, lost):
    """The camera_info of an image that comes after the report may have come before it."""
    before = {**WELL.images, "camera_info": 300}
    after = {**before, "rgb": 300 + came, "depth": 300 + sent, "camera_info": 300 + sent}
    statuses = report(replace(WELL, images=after), replace(WELL, images=before))
    assert ("images get lost on the way" in statuses["input"].message) == lost


def test_lost_differs_from_never_found():
    lost = with_status(states={"mug": "searching"}, counters={"registered": 1, "lost": 1})
    statuses = report(lost, WELL)
    assert statuses["objects"].level == WARN
    assert "mug: lost, searched again" in statuses["objects"].message
    assert "1 lost since the last report" in statuses["objects"].message


def test_an_uncertain_object_is_neither_lost_nor_tracked():
    statuses = report(with_status(states={"mug": "uncertain"}, best_below={"mug": 0.31}), WELL)
    assert statuses["objects"].level == WARN
    assert statuses["objects"].message == "mug: uncertain, its pose is held back and it is searched near where it was"


def test_degraded_backend():
    statuses = report(with_status(degraded=["pose estimation runs eager although tensorrt was asked for"]), WELL)
    assert statuses["backend"].level == WARN
    assert "backend degraded: pose estimation runs eager" in statuses["backend"].message


def test_one_frame_in_ten_that_a_newer_one_replaces_is_no_falling_behind():
    assert report(replace(WELL, tally=Tally(330, 327, 0, {"replaced": 3})), WELL)["processing"].level == OK


def test_old_drops_are_no_news():
    dropped = replace(WELL, tally=Tally(330, 300, 0, {"size_mismatch": 30}))
    assert report(dropped, dropped)["input"].level == OK


def test_an_inactive_node_does_not_complain_of_silence():
    statuses = report(replace(WELL, state="inactive", silence=None, since=1e6, images={}), WELL)
    assert {s.level for s in statuses.values()} == {OK}
    assert statuses["input"].message == "inactive"


def test_a_slow_camera_is_no_stall_before_five_periods():
    slow = replace(WELL, rate=0.5, silence=8.0, min_rate=0.0)
    assert report(slow, WELL)["input"].level == OK
    assert report(replace(slow, silence=11.0), WELL)["input"].level == ERROR
