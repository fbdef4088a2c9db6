"""Messages as bytes (CDR), where making Python messages would cost more than what is in them changes."""

from __future__ import annotations

import struct

from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from rclpy.serialization import serialize_message

from ..types import ObjectPose
from . import messages

# A header's stamp follows the four bytes that name the representation.
_STAMP = slice(4, 12)
_POSE = (0.5, 1.5, 2.5, 0.0, 0.6, 0.0, 0.8)


def _order(message: bytes) -> str:
    """Of the bytes of numbers, as struct names it: the lowest bit of the second byte says it."""
    return "<" if message[1] & 1 else ">"


def stamped(message: bytes, stamp_ns: int) -> bytes:
    """A serialized message that begins with a header, with another stamp."""
    stamp = struct.pack(f"{_order(message)}iI", *divmod(stamp_ns, 1_000_000_000))
    return message[: _STAMP.start] + stamp + message[_STAMP.stop :]


class PoseBytes:
    """Serialized PoseStamped messages of one camera: as rclpy serializes the first, with other numbers.

    A Python message and its conversion hold a pose up by half a millisecond; this takes a tenth of it.
    """

    def __init__(self) -> None:
        self._frame_id: str | None = None
        self._message = b""
        self._fits = False

    def __call__(self, found: ObjectPose) -> bytes:
        """The message of a pose, for a publisher of PoseStamped."""
        if found.frame_id != self._frame_id:
            self._begin(found.frame_id)
        if not self._fits:
            return bytes(serialize_message(messages.pose_stamped(found)))
        (x, y, z), R = found.T_cam_obj[:3, 3].tolist(), found.T_cam_obj[:3, :3]
        numbers = struct.pack(f"{_order(self._message)}7d", x, y, z, *messages.unit_quaternion(R))
        return stamped(self._message, found.stamp_ns) + numbers

    def _begin(self, frame_id: str) -> None:
        x, y, z, *rotation = _POSE
        qx, qy, qz, qw = rotation
        pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        message = bytes(serialize_message(PoseStamped(header=messages.header(0, frame_id), pose=pose)))
        end = struct.pack(f"{_order(message)}7d", *_POSE)
        # A middleware may have another representation.
        self._frame_id, self._fits, self._message = frame_id, message.endswith(end), message.removesuffix(end)


def serialized(pose: ObjectPose, pose_bytes: PoseBytes) -> tuple[bytes, bytes]:
    """What a published pose weighs on the wire: PoseStamped and TransformStamped, as the node serializes them."""
    return pose_bytes(pose), bytes(serialize_message(messages.transform_stamped(pose, "")))
