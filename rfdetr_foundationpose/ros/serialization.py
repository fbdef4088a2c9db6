"""What a published pose weighs on the wire: its messages, serialized as a publisher does it."""

from __future__ import annotations

from rclpy.serialization import serialize_message

from ..types import ObjectPose
from . import messages


def serialized(pose: ObjectPose) -> tuple[bytes, bytes]:
    """PoseStamped and TransformStamped of a pose, serialized."""
    return serialize_message(messages.pose_stamped(pose)), serialize_message(messages.transform_stamped(pose, ""))
