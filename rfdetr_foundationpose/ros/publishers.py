"""The pose path's outputs: PoseStamped, tf, Detection3DArray, markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from visualization_msgs.msg import MarkerArray

from ..config import OutputConfig
from ..objects import ObjectSpec
from ..types import ObjectPose, TrackState
from . import compat, messages
from .serialization import PoseBytes

if TYPE_CHECKING:
    from ..pipeline import FrameResult

# The publishers keep this many messages.
DEPTH = 10


def instance_names(specs: Sequence[ObjectSpec]) -> list[str]:
    """Names of poses and masks: ``mug`` for the first instance, ``mug_1`` for the second, up to max_instances."""
    return [name for s in specs for name in s.instance_names]


class Outputs:
    """Publishers of one configured node. ``publish`` is for the worker thread; what nobody reads is not made."""

    def __init__(self, node: Any, specs: Sequence[ObjectSpec], shapes: Mapping[str, messages.Shape]) -> None:
        self._node = node
        self._shapes = shapes
        self._poses = {
            n: node.create_lifecycle_publisher(PoseStamped, f"~/pose/{n}", DEPTH) for n in instance_names(specs)
        }
        self._pose_bytes = PoseBytes()
        self._uncertain: dict[str, Any] = {}
        self._markers = node.create_lifecycle_publisher(MarkerArray, "~/markers", DEPTH)
        self._detections: Any = None
        if compat.vision_msgs is not None:
            self._detections = node.create_lifecycle_publisher(
                compat.vision_msgs.Detection3DArray, "~/detections", DEPTH
            )
        self._tf: Any = compat.tf2_ros.TransformBroadcaster(node) if compat.tf2_ros is not None else None

    def publish(self, result: FrameResult, config: OutputConfig) -> int:
        """Publish everything of one frame; returns the number of poses published."""
        tracked = [p for p in result.poses if p.state is TrackState.TRACKING]
        for found in tracked:
            self._poses[found.name].publish(self._pose_bytes(found))
            if config.covariance:
                self._with_covariance(found)
        # tf2 would refuse a transform without a parent, and say so in every listener.
        if self._tf is not None and config.tf and tracked and result.frame.frame_id:
            self._tf.sendTransform([messages.transform_stamped(p, config.tf_prefix) for p in tracked])
        if self._detections is not None and config.detections:
            head = messages.header(result.frame.stamp_ns, result.frame.frame_id)
            self._detections.publish(messages.detection_array(tracked, self._shapes, head, uncertain=config.covariance))
        if config.markers and result.poses and self._markers.get_subscription_count() > 0:
            self._markers.publish(messages.marker_array(result.poses, self._shapes))
        return len(tracked)

    def _with_covariance(self, found: ObjectPose) -> None:
        if found.name not in self._uncertain:  # nobody without the setting sees the topics
            topic = f"~/pose_with_covariance/{found.name}"
            self._uncertain[found.name] = self._node.create_publisher(PoseWithCovarianceStamped, topic, DEPTH)
        self._uncertain[found.name].publish(messages.pose_with_covariance(found, self._shapes[found.object]))

    def destroy(self) -> None:
        for publisher in self._uncertain.values():
            self._node.destroy_publisher(publisher)
        self._uncertain = {}
        for publisher in [*self._poses.values(), self._markers, self._detections]:
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)
        if self._tf is not None:
            self._node.destroy_publisher(self._tf.pub_tf)  # the broadcaster has no destroy of its own
        self._poses = {}
        self._detections = self._tf = None
