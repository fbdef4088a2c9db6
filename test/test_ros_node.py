"""The node over a real DDS graph, in a second process: outputs, life cycle, services, parameters, end."""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import partial

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import ParameterType
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker, MarkerArray

from support.ros_support import FRAME_ID, PATIENCE, ROOT, Camera, Node, on_idle, running_node, stamp_of, wait_for


@contextmanager
def streaming(camera):
    """Frames at 20 Hz from a thread."""
    stop = threading.Event()

    def run():
        while not stop.wait(0.05):
            camera.publish()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """One active node, with the shipped parameter file and a parameter that does not exist, and a camera."""
    folder = tmp_path_factory.mktemp("node")
    arguments = ("--params-file", str(ROOT / "config" / "pose.yaml"))
    with running_node(folder, "detector.treshold:=0.5", arguments=arguments, fresh=True) as (node, graph):
        camera = Camera(graph)
        camera.stream_until_pose()
        yield node, graph, camera


def test_poses_markers_and_latency_of_a_stream(scene):
    node, graph, camera = scene
    markers: list[MarkerArray] = []
    latency: list[Float64] = []
    graph.node.create_subscription(MarkerArray, "pose_node/markers", markers.append, 10)
    graph.node.create_subscription(Float64, "pose_node/latency/end_to_end", latency.append, 10)
    graph.poses.clear()
    camera.stream_until(lambda: markers and latency and len(graph.poses) >= 10, "poses, markers and latency")
    for pose, _ in list(graph.poses):
        assert pose.header.frame_id == FRAME_ID
        assert pose.pose.position.z == pytest.approx(1.0)
        assert pose.pose.position.x == pytest.approx(0.2)
        assert pose.pose.orientation.w == pytest.approx(1.0)
    mesh, axes = markers[-1].markers
    assert (mesh.type, axes.type) == (Marker.TRIANGLE_LIST, Marker.LINE_LIST)
    assert len(mesh.points) == 36  # a box; no other machine has its file
    wait_for(lambda: stamp_of(mesh) in {stamp_of(p) for p, _ in list(graph.poses)}, "the pose of the marker")
    assert 0 < latency[-1].data < 1000 * PATIENCE
    values = graph.fresh_values("backend")
    for package in ("vision_msgs", "tf2_ros"):
        if f"{package} is not installed" in node.log:
            assert any(package in v for k, v in values.items() if k.startswith("missing_"))
    assert "did you mean 'detector.threshold'?" in node.log


def test_debug_images_raw_and_compressed_are_drawn_only_when_watched(scene):
    _, graph, camera = scene
    camera.stream(0.5)
    assert "visualize_ms_p50_p95_max" not in graph.fresh_values()
    raw: list[Image] = []
    jpeg: list[CompressedImage] = []
    graph.node.create_subscription(Image, "pose_node/debug_image", raw.append, 1)
    graph.node.create_subscription(CompressedImage, "pose_node/debug_image/compressed", jpeg.append, 1)
    camera.stream_until(lambda: len(raw) > 2 and len(jpeg) > 2, "debug images")
    picture = raw[-1]
    assert (picture.width, picture.height, picture.encoding, picture.step) == (160, 120, "rgb8", 480)
    assert stamp_of(picture) in {stamp_of(p) for p, _ in graph.poses}
    pixels = np.frombuffer(picture.data, np.uint8).reshape(120, 160, 3)
    assert (pixels != (200, 0, 0)).any(2).sum() > 100
    decoded = cv2.imdecode(np.frombuffer(jpeg[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (120, 160, 3)
    assert decoded[60, 5, 2] > 150  # red, in OpenCV's order


OUTPUTS = {
    "pose/box": ("geometry_msgs/msg/PoseStamped", PoseStamped),
    "markers": ("visualization_msgs/msg/MarkerArray", MarkerArray),
    "debug_image": ("sensor_msgs/msg/Image", Image),
    "debug_image/compressed": ("sensor_msgs/msg/CompressedImage", CompressedImage),
    "latency/end_to_end": ("std_msgs/msg/Float64", Float64),
    "latency/track": ("std_msgs/msg/Float64", Float64),
}


def test_a_recording_of_the_outputs_is_read_by_rosbags(scene, tmp_path):
    """What went over the wire, into MCAP as it came, and out again with rosbags' own message definitions."""
    _, graph, camera = scene
    store = get_typestore(Stores.ROS2_KILTED)
    graph.settle()
    wire: list[tuple[str, bytes]] = []
    subscriptions = [
        graph.node.create_subscription(kind, f"pose_node/{topic}", partial(append_raw, wire, topic), 100, raw=True)
        for topic, (_, kind) in OUTPUTS.items()
    ]
    subscriptions.append(
        graph.node.create_subscription(
            DiagnosticArray, "diagnostics", partial(append_raw, wire, "diagnostics"), 100, raw=True
        )
    )
    names = {
        **{topic: name for topic, (name, _) in OUTPUTS.items()},
        "diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    }
    stamps: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while {topic for topic, _ in wire} != set(names):
        assert time.monotonic() < deadline, f"only { ({topic for topic, _ in wire}) } came"
        stamps.append(camera.publish())
        time.sleep(0.05)
    for subscription in subscriptions:
        graph.node.destroy_subscription(subscription)

    with Writer(tmp_path / "outputs", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {t: writer.add_connection(f"/{t}", name, typestore=store) for t, name in names.items()}
        for i, (topic, data) in enumerate(wire):
            writer.write(connections[topic], time.time_ns() + i, data)

    read = defaultdict(list)
    with AnyReader([tmp_path / "outputs"]) as reader:
        for connection, _, data in reader.messages():
            read[connection.topic[1:]].append(reader.deserialize(data, connection.msgtype))
    for topic in ("pose/box", "debug_image", "debug_image/compressed"):
        assert {stamp_of(m) for m in read[topic]} <= set(stamps)
        assert {m.header.frame_id for m in read[topic]} == {FRAME_ID}
    assert {m.header.frame_id for a in read["markers"] for m in a.markers} == {FRAME_ID}
    (z,) = {m.pose.position.z for m in read["pose/box"]}
    assert z == pytest.approx(1.0)
    assert all(0 < m.data < 1000 * PATIENCE for m in read["latency/end_to_end"])
    statuses = {s.name for m in read["diagnostics"] for s in m.status}
    node_name = f"{graph.namespace.lstrip('/')}/pose_node"  # of two cameras' nodes each has its own
    assert statuses == {f"{node_name}: {part}" for part in ("input", "processing", "objects", "backend")}
    assert {s.hardware_id for s in read["diagnostics"][-1].status} == {FRAME_ID}


def append_raw(wire, topic, data):
    wire.append((topic, data))


def test_reset_and_set_enabled(scene):
    _, graph, camera = scene
    before = int(graph.fresh_values("objects")["resets"])
    assert graph.call(Trigger, "reset", Trigger.Request()).success
    assert int(graph.fresh_values("objects")["resets"]) == before + 1
    assert graph.call(SetBool, "set_enabled", SetBool.Request(data=False)).success
    graph.settle()
    graph.poses.clear()
    camera.stream_until(lambda: int(graph.values().get("dropped_disabled", 0)) >= 5, "frames to be dropped")
    assert graph.poses == []
    assert "disabled" in graph.report("processing").message
    assert graph.call(SetBool, "set_enabled", SetBool.Request(data=True)).success
    camera.stream_until_pose()


def test_parameters_describe_themselves_and_change_where_it_is_safe(scene):
    _, graph, _ = scene
    threshold, backend, autostart, period = graph.describe(
        "detector.threshold", "pose.backend", "autostart", "detector.period_frames"
    )
    assert threshold.description == "lowest score of a detection"
    (score,) = threshold.floating_point_range
    assert (score.from_value, score.to_value) == (0.0, 1.0)
    assert not threshold.read_only
    assert "tensorrt" in backend.additional_constraints
    assert autostart.read_only
    assert autostart.type == ParameterType.PARAMETER_BOOL
    assert period.integer_range[0].to_value == 10000

    assert graph.set_parameter("detector.threshold", 1).successful, "a whole number does for a float"
    assert graph.set_parameter("detector.threshold", 0.7).successful
    for name, value, reason in (
        ("detector.threshold", 1.7, "out of range"),
        ("pose.backend", "tensorrt", "cannot change while the node is configured"),
        ("pose.lost_confidence", 0.9, "must not exceed pose.accept_confidence"),
        ("autostart", False, "read-only"),
    ):
        result = graph.set_parameter(name, value)
        assert not result.successful
        assert reason in result.reason


def test_life_cycle_under_a_running_stream(tmp_path):
    # The whole number of a float, as YAML and the command line have it.
    with running_node(tmp_path, "autostart:=false", "input.max_age:=5", active=False) as (node, graph):
        camera = Camera(graph)
        with streaming(camera):
            assert graph.state() == "unconfigured"
            assert not graph.transition("activate")
            assert graph.set_parameter("pose.backend", "eager").successful
            refused = graph.set_parameter("pose.backend", "warp9")
            assert not refused.successful
            assert "must be one of" in refused.reason
            for _ in range(2):
                assert graph.transition("configure")
                assert graph.state() == "inactive"
                assert f"warming up for {camera.width}x{camera.height}" in node.log
                wait_for(lambda: graph.rgb.get_subscription_count() == 0, "images to be unsubscribed")
                for _ in range(2):
                    graph.poses.clear()
                    assert graph.transition("activate")
                    wait_for(lambda: len(graph.poses) > 3, "poses while active")
                    assert graph.transition("deactivate")
                    inactive_ns = time.time_ns()
                    time.sleep(0.5)
                    assert all(stamp_of(p) < inactive_ns for p, _ in list(graph.poses))
                assert graph.transition("cleanup")
                assert graph.state() == "unconfigured"
            assert graph.transition("configure")
            for _ in range(10):
                assert graph.transition("activate")
                assert graph.transition("deactivate")
            assert graph.transition("activate")
            assert graph.transition("shutdown")
            assert graph.state() == "finalized"
        assert graph.fresh_report("backend").message == "finalized"
        assert node.log.count("configured in") == 3
        assert "Traceback" not in node.log


def test_configure_that_fails_says_why_and_can_be_repeated(tmp_path):
    """First as a user's mistake, then as an exception that nobody foresaw."""
    broken = tmp_path / "broken"
    environment = {"DOUBLE_BUILD_ERROR": str(broken)}
    with running_node(tmp_path, "objects_file:=nowhere.yaml", active=False, environment=environment) as (node, graph):
        wait_for(
            lambda: graph.report("backend") is not None and graph.report("backend").level == b"\x02", "the failure"
        )
        assert "nowhere.yaml does not exist" in graph.report("backend").message
        assert graph.state() == "unconfigured"
        assert graph.set_parameter("objects_file", str(tmp_path / "objects.yaml")).successful
        broken.write_text("engine on fire")
        assert not graph.transition("configure")
        assert graph.state() == "unconfigured"
        assert "cannot configure: RuntimeError: engine on fire" in node.log
        assert "engine on fire" in graph.fresh_report("backend").message
        broken.unlink()
        assert graph.transition("configure")
        assert graph.transition("activate")
        Camera(graph).stream_until_pose()
        assert graph.fresh_report("backend").level == b"\x00"


def test_wrong_parameters_at_start_end_the_process_with_a_reason(tmp_path):
    nodes = {
        Node(tmp_path, "/wrong", ["-p", parameter], {}): said
        for parameter, said in (
            ("debug.image_rate:=1000", "out of range Min: 0.1, Max: 120.0"),
            ("detector.period_frames:=3.5", "expecting type 'INTEGER'"),
            ("pose.backend:=warp9", "must be one of"),
        )
    }
    for node, said in nodes.items():
        assert node.wait(PATIENCE) == 1
        assert said in node.log
        assert "Traceback" not in node.log


def test_input_topics_follow_remapping_and_qos_parameters_and_sigterm_ends_cleanly(tmp_path):
    qos = tmp_path / "qos.yaml"
    override = "qos_overrides: {/qos_test/depth/image: {subscription: {reliability: best_effort, depth: 3}}}"
    qos.write_text(f"/**:\n  ros__parameters:\n    {override}\n")
    remapped = (
        "-r",
        "rgb/image:=color/image_raw",
        "-r",
        "depth/image:=/qos_test/depth/image",
        "--params-file",
        str(qos),
    )
    how = {"arguments": remapped, "environment": {"DOUBLE_DEGRADED": "1"}, "fresh": True, "active": False}
    with running_node(tmp_path, "input.reliability:=reliable", **how) as (node, graph):
        topic = f"{graph.namespace}/color/image_raw"
        wait_for(lambda: graph.node.count_subscribers(topic) == 1, "subscription of the remapped topic")
        (info,) = graph.node.get_subscriptions_info_by_topic(topic)
        assert info.qos_profile.reliability.name == "RELIABLE"
        topic = "/qos_test/depth/image"  # discovered by itself, perhaps later
        wait_for(lambda: graph.node.count_subscribers(topic) == 1, "subscription of the other remapped topic")
        (depth,) = graph.node.get_subscriptions_info_by_topic(topic)
        assert depth.qos_profile.reliability.name == "BEST_EFFORT"
        assert depth.qos_profile.durability.name == "VOLATILE"
        assert "unknown" not in node.log
        assert graph.fresh_report("backend").level == b"\x01"
        assert "backend degraded: tensorrt failed" in graph.report("backend").message
        with streaming(Camera(graph)):
            assert node.stop(signal.SIGTERM) < on_idle(2.0)
        assert node.returncode == 0
        assert "Traceback" not in node.log


@pytest.mark.parametrize("stuck", ["DOUBLE_SECONDS", "DOUBLE_BUILD_SECONDS", "DOUBLE_CLOSE_SECONDS"])
def test_ends_in_time_when_a_frame_or_the_configuration_or_the_end_takes_long(tmp_path, stuck):
    with running_node(tmp_path, active=False, environment={stuck: "30"}) as (node, graph):
        if stuck == "DOUBLE_BUILD_SECONDS":
            wait_for(lambda: "loading weights" in node.log, "configure")
        else:
            graph.wait_active()
        if stuck == "DOUBLE_SECONDS":
            Camera(graph).stream_until(lambda: graph.values().get("in_flight", "0") != "0", "a frame in work")
        assert node.stop() < on_idle(2.0)
        assert node.returncode == 0
        assert "terminate called" not in node.log
