"""Input of other kinds: calibration that is late, latched or of a part of the image, approximate stamps, compressed images, masks,
simulated time."""

from __future__ import annotations

import array
import time
from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from support.ros_publishing import publish_until, publish_until_dropped
from support.ros_support import PATIENCE, Camera, running_node, stamp_of, wait_for


def test_camera_info_missing_for_three_seconds(tmp_path):
    with running_node(tmp_path, active=False) as (_, graph):
        graph.wait_active(calibrate=False)
        camera = Camera(graph)
        camera.with_info = False
        publish_until_dropped(graph, ("no_camera_info",), 10, camera.publish)
        publish_until(lambda: "camera_info" in graph.report("input").message, "it to be said", camera.publish)
        assert graph.poses == []
        camera.with_info = True
        assert camera.stream_until_pose().pose.position.z == pytest.approx(1.0)


def test_camera_info_that_comes_once_and_latched(tmp_path):
    with running_node(tmp_path, active=False, latched_info=True) as (_, graph):
        camera = Camera(graph)
        graph.info.publish(camera.camera_info(time.time_ns()))
        camera.with_info = False
        graph.wait_active(calibrate=False)
        camera.stream_until_pose()


def test_depth_shifted_by_20_ms_is_matched_approximately(tmp_path):
    with running_node(tmp_path, "input.sync:=approximate", "input.sync_slop:=0.03") as (_, graph):
        camera = Camera(graph)
        stamps: list[int] = []
        publish_until(lambda: len(graph.poses) > 10, "poses", lambda: stamps.append(camera.publish(depth_shift=0.02)))
        assert {stamp_of(p) for p, _ in graph.poses} <= set(stamps)


def test_garbage_jpeg_and_compressed_streams(tmp_path):
    import cv2

    with running_node(tmp_path, "input.image_transport:=compressed", compressed=True) as (node, graph):
        camera = Camera(graph)

        def rgb(stamp: int, garbage: bool) -> CompressedImage:
            pixels = np.zeros((120, 160, 3), np.uint8)
            pixels[..., 2] = 200  # OpenCV encodes from BGR
            data = cv2.imencode(".jpg", pixels)[1].tobytes()
            message = CompressedImage(format="rgb8; jpeg compressed bgr8")
            message.data = array.array("B", data[:20] + b"garbage" * 40 if garbage else data)
            camera.head(message, stamp)
            return message

        def depth(stamp: int) -> CompressedImage:
            png = cv2.imencode(".png", np.full((120, 160), 1000, np.uint16))[1].tobytes()
            message = CompressedImage(format="16UC1; compressedDepth png", data=array.array("B", bytes(12) + png))
            camera.head(message, stamp)
            return message

        def publish(garbage: bool) -> None:
            stamp = time.time_ns()
            camera.publish(stamp, rgb=rgb(stamp, garbage), depth=depth(stamp))

        publish_until(lambda: bool(graph.poses), "a pose", lambda: publish(False))
        publish_until_dropped(graph, ("bad_compressed",), 5, lambda: publish(True))
        seen = len(graph.poses)
        publish_until(lambda: len(graph.poses) > seen, "poses after garbage", lambda: publish(False))
        pose = graph.poses[-1][0].pose
        assert pose.position.z == pytest.approx(1.0)
        assert pose.position.x == pytest.approx(0.2, abs=0.005)
        assert "terminate" not in node.log


def test_masks_of_a_recording_join_their_frame_also_when_they_come_late_or_not_at_all(tmp_path):
    with running_node(tmp_path, "input.use_mask_topics:=true") as (_, graph):
        masks = graph.node.create_publisher(Image, "mask/box", 10)
        wait_for(lambda: masks.get_subscription_count() > 0, "mask subscription")
        camera = Camera(graph)
        half = np.zeros((camera.height, camera.width), np.uint8)
        half[: camera.height // 2] = 255

        def covered(delay: float | None) -> list[float]:
            """What the pipeline saw of masks that come so many seconds after their frame."""
            graph.poses.clear()

            def seen() -> list[float]:
                return [p.pose.position.y for p, _ in list(graph.poses)]

            def publish() -> None:
                stamp = camera.publish()
                time.sleep(delay or 0.0)
                if delay is not None:
                    masks.publish(camera.message(half, "mono8", stamp))
                time.sleep(0.1)

            expected = 0.0 if delay is None else 0.5
            publish_until(lambda: seen().count(expected) >= 3, "poses", publish)
            return seen()

        covered(0.0)
        covered(0.03)
        graph.settle()
        assert set(covered(None)) == {0.0}


def test_mask_topic_as_detector_reads_the_masks_of_every_instance_of_the_objects_file(tmp_path):
    two = tmp_path / "two.yaml"
    two.write_text("objects:\n  - {name: box, mesh: box.ply, max_instances: 2}\n")
    with running_node(tmp_path, "detector.source:=mask-topic", f"objects_file:={two}") as (node, graph):
        for name in ("box", "box_1"):
            topic = f"{graph.namespace}/mask/{name}"
            wait_for(lambda topic=topic: graph.node.count_subscribers(topic) == 1, f"subscription of {topic}")
        camera = Camera(graph)
        camera.stream_until_pose()
        assert f"nobody publishes {graph.namespace}/mask/box, {graph.namespace}/mask/box_1" in node.log


def test_jump_of_the_ros_clock_resets_sync_and_tracks(tmp_path):
    from rosgraph_msgs.msg import Clock

    with running_node(tmp_path, "use_sim_time:=true", active=False) as (node, graph):
        clock = graph.node.create_publisher(Clock, "/clock", 10)
        camera = Camera(graph)

        def play(start_s: float, until: Callable[[], bool] = lambda: True) -> None:
            """Two seconds, and on until that is so."""
            deadline = time.monotonic() + PATIENCE
            for i in count():
                if i >= 40 and until():
                    return
                assert time.monotonic() < deadline
                now = round((start_s + i * 0.05) * 1e9)
                message = Clock()
                message.clock.sec, message.clock.nanosec = divmod(now, 10**9)
                clock.publish(message)
                camera.publish(now)
                time.sleep(0.03)

        graph.wait_active()
        wait_for(lambda: clock.get_subscription_count() > 0, "clock subscription")
        play(100.0, lambda: bool(graph.poses))
        play(100.0, lambda: "ROS time jumped" in node.log)
        wait_for(lambda: int(graph.fresh_values("objects")["resets"]) >= 1, "the reset")
        graph.settle()
        graph.poses.clear()
        play(1000.0, lambda: bool(graph.poses))
        assert all(stamp_of(p) >= 1000e9 for p, _ in list(graph.poses))


def test_camera_info_message_is_read_from_p_and_roi():
    from rfdetr_foundationpose.camera.calibration import read_calibration

    info = CameraInfo(width=640, height=480, k=[500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0])
    assert read_calibration(info).rectified.fx == 500.0
    info.p = [400.0, 0.0, 310.0, 0.0, 0.0, 410.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 40, 320, 200
    info.binning_x = info.binning_y = 2
    camera = read_calibration(info).rectified
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (200.0, 205.0, 105.0, 95.0)
    assert (camera.width, camera.height) == (160, 100)
