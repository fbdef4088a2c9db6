"""The node over a real DDS graph, in a second process: poses, stamps, life cycle, services, parameters, end."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager

import pytest
from rcl_interfaces.msg import ParameterType
from ros_support import FRAME_ID, Camera, running_node, stamp_of, wait_for
from std_msgs.msg import Float64
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker, MarkerArray


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


def test_poses_markers_and_latency_of_a_stream(tmp_path):
    with running_node(tmp_path) as (node, graph):
        markers: list[MarkerArray] = []
        latency: list[Float64] = []
        graph.node.create_subscription(MarkerArray, "pose_node/markers", markers.append, 10)
        graph.node.create_subscription(Float64, "pose_node/latency/end_to_end", latency.append, 10)
        camera = Camera(graph)
        stamps = camera.stream(2.0)
        camera.stream_until_pose()
        known = [p for p, _ in graph.poses if stamp_of(p) in stamps]
        assert len(known) >= 10
        for pose in known:
            assert pose.header.frame_id == FRAME_ID
            assert pose.pose.position.z == pytest.approx(1.0)
            assert pose.pose.position.x == pytest.approx(0.2)
            assert pose.pose.orientation.w == pytest.approx(1.0)
        mesh, axes = markers[-1].markers
        assert mesh.mesh_resource == (tmp_path / "box.ply").as_uri()
        assert (mesh.type, axes.type) == (Marker.MESH_RESOURCE, Marker.LINE_LIST)
        assert stamp_of(mesh) in {stamp_of(p) for p, _ in graph.poses}
        assert latency
        assert 0 < latency[-1].data < 1000
        for package in ("vision_msgs", "tf2_ros", "message_filters"):
            assert f"{package} is not installed" in node.log
        values = graph.fresh_values("backend")
        assert any("vision_msgs" in v for k, v in values.items() if k.startswith("missing_"))


def test_life_cycle_under_a_running_stream(tmp_path):
    with running_node(tmp_path, "autostart:=false", active=False) as (node, graph):
        camera = Camera(graph)
        with streaming(camera):
            assert graph.state() == "unconfigured"
            assert not graph.transition("activate")
            for _ in range(2):
                assert graph.transition("configure")
                assert graph.state() == "inactive"
                assert f"warming up for {camera.width}x{camera.height}" in node.log
                assert graph.rgb.get_subscription_count() == 0
                for _ in range(2):
                    graph.poses.clear()
                    assert graph.transition("activate")
                    wait_for(lambda: len(graph.poses) > 3, "poses while active")
                    assert graph.transition("deactivate")
                    time.sleep(0.2)
                    graph.poses.clear()
                    time.sleep(0.3)
                    assert graph.poses == []
                assert graph.transition("cleanup")
                assert graph.state() == "unconfigured"
            assert graph.transition("configure")
            assert graph.transition("activate")
            assert graph.transition("shutdown")
            assert graph.state() == "finalized"
        assert graph.fresh_report("backend").message == "finalized"
        assert node.log.count("configured in") == 3
        assert "Traceback" not in node.log


def test_configure_that_fails_says_why_and_can_be_repeated(tmp_path):
    with running_node(tmp_path, "objects_file:=nowhere.yaml", active=False) as (node, graph):
        wait_for(
            lambda: graph.report("backend") is not None and graph.report("backend").level == b"\x02", "the failure"
        )
        assert "nowhere.yaml does not exist" in graph.report("backend").message
        assert graph.state() == "unconfigured"
        assert graph.set_parameter("objects_file", str(tmp_path / "objects.yaml")).successful
        assert graph.transition("configure")
        assert graph.transition("activate")
        Camera(graph).stream_until_pose()
        assert graph.fresh_report("backend").level == b"\x00"
        assert "cannot configure" in node.log


def test_unexpected_error_in_configure_goes_through_error_processing(tmp_path):
    environment = {"DOUBLE_BUILD_ERROR": "broken engine"}
    with running_node(tmp_path, active=False, environment=environment) as (node, graph):
        wait_for(lambda: "released everything" in node.log, "on_error")
        assert graph.state() == "unconfigured"
        assert "broken engine" in graph.fresh_report("backend").message


def test_reset_and_set_enabled(tmp_path):
    with running_node(tmp_path) as (_, graph):
        camera = Camera(graph)
        camera.stream_until_pose()
        answer = graph.call(Trigger, "reset", Trigger.Request())
        assert answer.success
        assert int(graph.fresh_values("objects")["resets"]) == 1
        assert graph.call(SetBool, "set_enabled", SetBool.Request(data=False)).success
        time.sleep(0.3)
        graph.poses.clear()
        camera.stream(0.5)
        assert graph.poses == []
        values = graph.fresh_values()
        assert int(values["dropped_disabled"]) >= 5
        assert "disabled" in graph.report("processing").message
        assert graph.call(SetBool, "set_enabled", SetBool.Request(data=True)).success
        camera.stream_until_pose()


def test_parameters_describe_themselves_and_change_where_it_is_safe(tmp_path):
    with running_node(tmp_path) as (_, graph):
        threshold, rung, autostart, period = graph.describe(
            "detector.threshold", "pose.rung", "autostart", "detector.period_frames"
        )
        assert threshold.description == "lowest score of a detection"
        (score,) = threshold.floating_point_range
        assert (score.from_value, score.to_value) == (0.0, 1.0)
        assert not threshold.read_only
        assert "tensorrt" in rung.additional_constraints
        assert autostart.read_only
        assert autostart.type == ParameterType.PARAMETER_BOOL
        assert period.integer_range[0].to_value == 10000

        assert graph.set_parameter("detector.threshold", 0.7).successful
        for name, value, reason in (
            ("detector.threshold", 1.7, "out of range"),
            ("pose.rung", "tensorrt", "cannot change while the node is configured"),
            ("pose.lost_confidence", 0.9, "must not exceed pose.accept_confidence"),
            ("autostart", False, "read-only"),
        ):
            result = graph.set_parameter(name, value)
            assert not result.successful
            assert reason in result.reason

        assert graph.transition("deactivate")
        assert graph.transition("cleanup")
        assert graph.set_parameter("pose.rung", "eager").successful
        refused = graph.set_parameter("pose.rung", "warp9")
        assert not refused.successful
        assert "must be one of" in refused.reason


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("detector.threshold:=2.0", "range"),
        ("debug.image_rate:=10", "10.0, not 10"),
        ("pose.rung:=warp9", "must be one of"),
    ],
)
def test_wrong_parameters_at_start_end_the_process_with_a_reason(tmp_path, parameter, said):
    from ros_support import Node

    node = Node(tmp_path, "/wrong", ["-p", parameter], {})
    assert node.process.wait(30) == 1
    assert said in node.log
    assert "Traceback" not in node.log


def test_unknown_parameter_is_said(tmp_path):
    with running_node(tmp_path, "detector.treshold:=0.5") as (node, _):
        assert "did you mean 'detector.threshold'?" in node.log


def test_input_topics_follow_remapping_and_qos_parameters(tmp_path):
    remapped = ("-r", "rgb/image:=color/image_raw", "-p", "input.reliability:=reliable")
    with running_node(tmp_path, active=False, arguments=remapped) as (_, graph):
        topic = f"{graph.namespace}/color/image_raw"
        wait_for(lambda: graph.node.count_subscribers(topic) == 1, "subscription of the remapped topic")
        (info,) = graph.node.get_subscriptions_info_by_topic(topic)
        assert info.qos_profile.reliability.name == "RELIABLE"
        (depth,) = graph.node.get_subscriptions_info_by_topic(f"{graph.namespace}/depth/image")
        assert depth.qos_profile.durability.name == "VOLATILE"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_cleanly_under_a_stream(tmp_path, number):
    with running_node(tmp_path, environment={"DOUBLE_SECONDS": "0.1"}) as (node, graph):
        camera = Camera(graph)
        camera.stream_until_pose()
        with streaming(camera):
            assert node.stop(number) < 2.0
        assert node.process.returncode == 0
        assert "Traceback" not in node.log


@pytest.mark.parametrize("stuck", ["DOUBLE_SECONDS", "DOUBLE_BUILD_SECONDS"])
def test_ends_in_time_when_a_frame_or_the_configuration_takes_long(tmp_path, stuck):
    with running_node(tmp_path, active=False, environment={stuck: "30"}) as (node, graph):
        if stuck == "DOUBLE_SECONDS":
            graph.wait_active()
            Camera(graph).stream(0.5)
        else:
            wait_for(lambda: "loading weights" in node.log, "configure")
        assert node.stop() < 2.5
        assert node.process.returncode == 0
        assert "terminate called" not in node.log
