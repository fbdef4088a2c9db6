"""What is published for one result, and what is not, with and without the optional packages."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rfdetr_foundationpose.config import OutputConfig
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.ros import compat, messages
from rfdetr_foundationpose.ros.publishers import Outputs
from rfdetr_foundationpose.types import ObjectPose, TrackState

SPECS = [ObjectSpec("mug", Path("/meshes/mug.obj"), max_instances=2), ObjectSpec("box", Path("/meshes/box.obj"))]
SHAPES = {s.name: messages.Shape(s.mesh.as_uri(), 1.0, np.full(3, -0.05), np.full(3, 0.05)) for s in SPECS}


class RecordingNode:
    """Takes the place of the lifecycle node: remembers what its publishers were given."""

    def __init__(self, watchers: int = 1) -> None:
        self.watchers = watchers
        self.sent: dict[str, list] = {}
        self.destroyed = 0
        self.plain_destroyed: list = []

    def create_lifecycle_publisher(self, _kind, topic, _qos):
        sent = self.sent.setdefault(topic, [])
        return SimpleNamespace(publish=sent.append, get_subscription_count=lambda: self.watchers)

    def destroy_lifecycle_publisher(self, _publisher):
        self.destroyed += 1

    def destroy_publisher(self, publisher):
        self.plain_destroyed.append(publisher)


def pose(name: str, instance: int = 0, state: TrackState = TrackState.TRACKING) -> ObjectPose:
    return ObjectPose(name, instance, np.eye(4), 0.9, 0.9, state, 5_000_000_007, "camera")


def result(*poses: ObjectPose):
    return SimpleNamespace(frame=SimpleNamespace(stamp_ns=5_000_000_007, frame_id="camera"), poses=list(poses))


@pytest.fixture()
def installed(monkeypatch):
    """tf2_ros and vision_msgs by what Outputs uses of them; returns what was broadcast."""
    sent: list = []
    tf = SimpleNamespace(
        TransformBroadcaster=lambda _node: SimpleNamespace(sendTransform=sent.append, pub_tf="publisher of /tf")
    )
    vision = SimpleNamespace(Detection3DArray="Detection3DArray")
    monkeypatch.setattr(compat, "tf2_ros", tf)
    monkeypatch.setattr(compat, "vision_msgs", vision)
    monkeypatch.setattr(
        messages, "detection_array", lambda poses, _shapes, head, uncertain: (head, [p.name for p in poses])
    )
    return sent


def test_every_output_of_tracked_and_lost_objects(installed):
    node = RecordingNode()
    outputs = Outputs(node, SPECS, SHAPES)
    count = outputs.publish(
        result(pose("mug"), pose("mug", 1), pose("box", state=TrackState.LOST)), OutputConfig(tf_prefix="seen/")
    )
    assert count == 2
    assert len(node.sent["~/pose/mug"]) == len(node.sent["~/pose/mug_1"]) == 1
    assert node.sent["~/pose/box"] == []
    (transforms,) = installed
    assert [t.child_frame_id for t in transforms] == ["seen/mug", "seen/mug_1"]
    ((head, names),) = node.sent["~/detections"]
    assert names == ["mug", "mug_1"]
    assert (head.stamp.sec, head.stamp.nanosec, head.frame_id) == (5, 7, "camera")
    (markers,) = node.sent["~/markers"]
    assert len(markers.markers) == 6


def test_switches_and_unwatched_markers(installed):
    node = RecordingNode(watchers=0)
    outputs = Outputs(node, SPECS, SHAPES)
    outputs.publish(result(pose("mug")), OutputConfig(tf=False, detections=False))
    assert installed == []
    assert node.sent["~/detections"] == node.sent["~/markers"] == []
    assert len(node.sent["~/pose/mug"]) == 1


def test_without_a_frame_nothing_is_broadcast(installed):
    """Every listener would complain of each transform."""
    node = RecordingNode()
    found = result(pose("mug"))
    found.frame.frame_id = ""
    assert Outputs(node, SPECS, SHAPES).publish(found, OutputConfig()) == 1
    assert installed == [] and len(node.sent["~/pose/mug"]) == 1


def test_an_empty_result_is_an_empty_detection_array_and_nothing_else(installed):
    node = RecordingNode()
    assert Outputs(node, SPECS, SHAPES).publish(result(), OutputConfig()) == 0
    assert [names for _, names in node.sent["~/detections"]] == [[]]
    assert installed == []
    assert all(sent == [] for topic, sent in node.sent.items() if topic != "~/detections")


def test_without_the_optional_packages_poses_still_come(monkeypatch):
    monkeypatch.setattr(compat, "tf2_ros", None)
    monkeypatch.setattr(compat, "vision_msgs", None)
    node = RecordingNode()
    outputs = Outputs(node, SPECS, SHAPES)
    assert outputs.publish(result(pose("box")), OutputConfig()) == 1
    assert set(node.sent) == {"~/pose/mug", "~/pose/mug_1", "~/pose/box", "~/markers"}
    outputs.destroy()
    assert node.destroyed == 4


def test_destroy_takes_every_publisher_also_the_broadcasters(installed):
    node = RecordingNode()
    outputs = Outputs(node, SPECS, SHAPES)
    outputs.destroy()
    assert node.destroyed == len(node.sent)
    assert node.plain_destroyed == ["publisher of /tf"]
