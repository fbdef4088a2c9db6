"""What cameras and networks do to a node: it survives, says what happened, and is right again afterwards."""

from __future__ import annotations

import array
import time
from collections.abc import Callable

import numpy as np
import pytest
from sensor_msgs.msg import Image

from support.ros_publishing import publish_until, publish_until_dropped
from support.ros_support import FRAME_ID, PATIENCE, Camera, Graph, Node, running_node, stamp_of, wait_for

Trouble = Callable[[Camera, Graph, Node], None]


def bad_frames(kind: str, spoil: Callable[[Image], None], which: str = "rgb") -> Trouble:
    """Frames with one spoiled message each, counted under ``kind``."""

    def trouble(camera: Camera, graph: Graph, node: Node) -> None:
        def publish() -> None:
            stamp = time.time_ns()
            message = getattr(camera, which)(stamp)
            spoil(message)
            camera.publish(stamp, **{which: message})

        publish_until_dropped(graph, (kind,), 5, publish)
        assert f"frame dropped ({kind})" in node.log

    return trouble


def truncate(message: Image) -> None:
    message.data = message.data[: len(message.data) // 2]


def wrong_step(message: Image) -> None:
    message.step = 7


def empty(message: Image) -> None:
    message.width = message.height = message.step = 0
    message.data = array.array("B")


def unknown_encoding(message: Image) -> None:
    message.encoding = "thermal13"


def camera_stops(camera: Camera, graph: Graph, node: Node) -> None:
    """For five seconds."""
    begin = time.monotonic()
    wait_for(lambda: (s := graph.report("input")) is not None and "stalled" in s.message, "stalled to be said")
    assert graph.report("input").level == b"\x02"
    time.sleep(max(begin + 5.0 - time.monotonic(), 0.0))


def depth_stops(camera: Camera, graph: Graph, node: Node) -> None:
    def said() -> bool:
        return "depth does not arrive" in graph.report("input").message

    camera.stream_until(said, "the missing depth to be said", depth=None)


def depth_shifted_by_200_ms(camera: Camera, graph: Graph, node: Node) -> None:
    def said() -> bool:
        return "stamps do not match" in graph.report("input").message

    camera.stream_until(said, "unmatched stamps to be said", depth_shift=0.213)
    assert int(graph.values("input")["unmatched_depth"]) > 0


def nan_depth(camera: Camera, graph: Graph, node: Node) -> None:
    def nan(stamp: int) -> Image:
        return camera.message(np.full((camera.height, camera.width), np.nan, np.float32), "32FC1", stamp)

    def said() -> bool:
        return "box: lost" in graph.report("objects").message

    deadline = time.monotonic() + PATIENCE
    while not said() and time.monotonic() < deadline:
        stamp = time.time_ns()
        camera.publish(stamp, depth=nan(stamp))
        time.sleep(0.05)
    assert said()


def zero_depth(camera: Camera, graph: Graph, node: Node) -> None:
    camera.metres = 0.0
    camera.stream_until(lambda: "box: lost" in graph.report("objects").message, "lost to be said")
    camera.metres = 1.0


def resolution_changes(camera: Camera, graph: Graph, node: Node) -> None:
    camera.width, camera.height = 320, 240
    pose = camera.stream_until_pose()
    assert pose.pose.position.z == pytest.approx(1.0)
    assert "warming up for 320x240" in node.log
    camera.width, camera.height = 160, 120


def depth_of_another_size(camera: Camera, graph: Graph, node: Node) -> None:
    small = Camera(graph, 80, 60)

    def publish() -> None:
        stamp = time.time_ns()
        camera.publish(stamp, depth=small.depth(stamp))

    publish_until_dropped(graph, ("size_mismatch",), 5, publish)
    assert "aligned" in node.log


def frame_id_changes(camera: Camera, graph: Graph, node: Node) -> None:
    camera.frame_id = "other_optical_frame"
    pose = camera.stream_until_pose()
    assert pose.header.frame_id == "other_optical_frame"
    assert int(graph.fresh_values("objects")["resets"]) >= 1
    camera.frame_id = FRAME_ID


def no_frame_id(camera: Camera, graph: Graph, node: Node) -> None:
    camera.frame_id = ""

    def said() -> bool:
        return "have a frame_id: no tf is broadcast" in graph.report("input").message

    camera.stream_until(said, "the missing frame_id to be said")
    assert camera.stream_until_pose().header.frame_id == ""
    camera.frame_id = FRAME_ID


def depth_in_another_frame(camera: Camera, graph: Graph, node: Node) -> None:
    def said() -> bool:
        return "is taken for registered to colour" in graph.report("input").message

    deadline = time.monotonic() + PATIENCE
    while not said() and time.monotonic() < deadline:
        stamp = time.time_ns()
        message = camera.depth(stamp)
        message.header.frame_id = "camera_depth_optical_frame"
        camera.publish(stamp, depth=message)
        time.sleep(0.05)
    assert said()


def time_jumps_back(camera: Camera, graph: Graph, node: Node) -> None:
    """As a recording that starts again: its stamps are an hour old, then as old again."""
    assert graph.set_parameter("input.max_age", 0.0).successful
    for _ in range(2):
        start = time.time_ns() - 3600 * 10**9
        for i in range(20):
            camera.publish(start + i * 50_000_000)
            time.sleep(0.03)
        wait_for(lambda: graph.poses and stamp_of(graph.poses[-1][0]) < time.time_ns() - 10**12, "poses of the past")
        graph.poses.clear()
    assert int(graph.fresh_values("objects")["resets"]) >= 1
    assert "jumped back" in node.log
    assert graph.set_parameter("input.max_age", 0.5).successful


def no_stamps(camera: Camera, graph: Graph, node: Node) -> None:
    publish_until_dropped(graph, ("no_stamp",), 5, lambda: camera.publish(0))
    assert "has to fill in header.stamp" in node.log


def stale_frames(camera: Camera, graph: Graph, node: Node) -> None:
    publish_until_dropped(graph, ("stale", "out_of_order"), 5, lambda: camera.publish(time.time_ns() - 900_000_000))
    time.sleep(0.5)


def bad_camera_info(camera: Camera, graph: Graph, node: Node) -> None:
    info = camera.camera_info(time.time_ns())
    info.k = [0.0] * 9
    camera.with_info = False

    def publish() -> None:  # one alone would be no reason to leave the calibration that was good so far
        graph.info.publish(info)
        camera.publish()

    publish_until_dropped(graph, ("bad_camera_info",), 3, publish)
    camera.with_info = True


def pipeline_raises(camera: Camera, graph: Graph, node: Node) -> None:
    pixels = np.full((camera.height, camera.width, 3), (255, 0, 255), np.uint8)

    def publish() -> None:
        stamp = time.time_ns()
        camera.publish(stamp, rgb=camera.message(pixels, "rgb8", stamp))

    publish_until_dropped(graph, ("pipeline_error",), 3, publish)
    assert "RuntimeError: magenta frame" in node.log


def two_cameras(camera: Camera, graph: Graph, node: Node) -> None:
    """On one topic, of one size, each with its calibration: the frames of the one that came first go on."""
    resets = int(graph.fresh_values("objects").get("resets", 0))
    other = Camera(graph)
    other.frame_id, other.metres = "other_optical_frame", 2.0
    graph.poses.clear()

    def publish() -> None:
        camera.stream_until_pose()  # a node that is late takes the newest alone, which would always be the other's
        other.publish()

    publish_until_dropped(graph, ("other_camera",), 10, publish)
    assert "images of other_optical_frame (160x120) come between those of camera_color_optical_frame" in node.log
    assert f"published by {graph.namespace}/test" in node.log
    assert {p.header.frame_id for p, _ in graph.poses} == {FRAME_ID}
    assert int(graph.fresh_values("objects").get("resets", 0)) == resets
    pose = other.stream_until_pose()  # the first is unplugged
    assert pose.pose.position.z == pytest.approx(2.0)


def two_calibrations(camera: Camera, graph: Graph, node: Node) -> None:
    """As two cameras with the same frame_id."""

    def publish() -> None:
        camera.publish()
        info = camera.camera_info(time.time_ns())
        info.k[0] *= 1.1
        graph.info.publish(info)

    def said() -> bool:
        return any("two calibrations alternate" in s.message for a in graph.diagnostics for s in a.status)

    publish_until(said, "the calibrations to be said", publish)


def images_lost_on_the_way(camera: Camera, graph: Graph, node: Node) -> None:
    def said() -> bool:
        return "images get lost on the way" in graph.report("input").message

    def publish() -> None:
        camera.publish()
        for _ in range(4):
            graph.info.publish(camera.camera_info(time.time_ns()))

    publish_until(said, "the loss to be said", publish)
    assert any("(best_effort)" in s.message for a in graph.diagnostics for s in a.status if "get lost" in s.message)


TROUBLES: dict[str, Trouble] = {
    "two cameras": two_cameras,
    "two calibrations": two_calibrations,
    "images lost on the way": images_lost_on_the_way,
    "camera stops": camera_stops,
    "depth stops": depth_stops,
    "depth shifted by 200 ms": depth_shifted_by_200_ms,
    "NaN depth": nan_depth,
    "zero depth": zero_depth,
    "resolution changes": resolution_changes,
    "depth of another size": depth_of_another_size,
    "depth in another frame": depth_in_another_frame,
    "frame_id changes": frame_id_changes,
    "no frame_id": no_frame_id,
    "no stamps": no_stamps,
    "truncated rgb": bad_frames("truncated_image", truncate),
    "truncated depth": bad_frames("truncated_image", truncate, "depth"),
    "wrong step": bad_frames("bad_step", wrong_step),
    "empty frames": bad_frames("empty_image", empty),
    "unknown encoding": bad_frames("bad_encoding", unknown_encoding),
    "bad camera_info": bad_camera_info,
    "time jumps back": time_jumps_back,
    "stale frames": stale_frames,
    "pipeline raises": pipeline_raises,
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """One node for all troubles: what one leaves behind would show in the next."""
    with running_node(tmp_path_factory.mktemp("node")) as (node, graph):
        camera = Camera(graph)
        camera.stream_until_pose()
        yield camera, graph, node


@pytest.mark.parametrize("name", TROUBLES)
def test_survives_says_and_recovers(scene, name):
    camera, graph, node = scene
    TROUBLES[name](camera, graph, node)
    since = time.time_ns()
    pose = camera.stream_until_pose(since)
    assert pose.header.frame_id == FRAME_ID
    assert pose.pose.position.z == pytest.approx(1.0)

    def well() -> bool:
        return all(graph.report(n).level == b"\x00" for n in ("input", "objects", "backend"))

    camera.stream_until(well, "diagnostics to be OK again")
    values = graph.fresh_values()
    drops = sum(int(v) for k, v in values.items() if k.startswith("dropped_"))
    assert int(values["received"]) == int(values["processed"]) + drops + int(values["in_flight"])
    assert node.returncode is None
