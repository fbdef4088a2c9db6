"""Messages as bytes (CDR), where making Python messages would cost more than what is in them changes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from numpy.typing import NDArray
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from ..types import ObjectPose
from . import messages

# A header's stamp follows the four bytes that name the representation.
_STAMP = 4
# A pixel that is easily found.
_PIXEL = 7
_POSE = (0.5, 1.5, 2.5, 0.0, 0.6, 0.0, 0.8)


def _order(message: bytes | NDArray[np.uint8]) -> str:
    """Of the bytes of numbers, as struct names it: the lowest bit of the second byte says it."""
    return "<" if message[1] & 1 else ">"


def stamp(message: NDArray[np.uint8], stamp_ns: int) -> None:
    """Write another stamp into a serialized message, (N,) uint8, that begins with a header."""
    struct.pack_into(f"{_order(message)}iI", message.data, _STAMP, *divmod(stamp_ns, 1_000_000_000))


class PoseBytes:
    """Serialized PoseStamped messages of one camera: as rclpy serializes the first, with other numbers.

    A Python message and its conversion hold a pose up by half a millisecond; this takes a tenth of it.
    """

    def __init__(self) -> None:
        self._frame_id: str | None = None
        self._message = bytearray()
        self._stamp = self._numbers = struct.Struct("")
        self._at = 0
        self._fits = False

    def __call__(self, found: ObjectPose) -> bytes:
        """The message of a pose, for a publisher of PoseStamped."""
        if found.frame_id != self._frame_id:
            self._begin(found.frame_id)
        if not self._fits:
            return bytes(serialize_message(messages.pose_stamped(found)))
        rows = found.T_cam_obj.tolist()
        self._stamp.pack_into(self._message, _STAMP, *divmod(found.stamp_ns, 1_000_000_000))
        self._numbers.pack_into(self._message, self._at, *(row[3] for row in rows[:3]), *messages.unit_quaternion(rows))
        return bytes(self._message)

    def _begin(self, frame_id: str) -> None:
        x, y, z, *rotation = _POSE
        qx, qy, qz, qw = rotation
        pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        message = bytes(serialize_message(PoseStamped(header=messages.header(0, frame_id), pose=pose)))
        order = _order(message)
        self._stamp, self._numbers = struct.Struct(f"{order}iI"), struct.Struct(f"{order}7d")
        # A middleware may have another representation.
        self._fits = message.endswith(self._numbers.pack(*_POSE))
        self._frame_id, self._message = frame_id, bytearray(message)
        self._at = len(message) - self._numbers.size


class PictureBytes:
    """Serialized Image messages of rgb8 pictures: as rclpy serializes one of their size, with other pixels.

    rclpy copies a picture three times, and Python's lock is held for it.
    """

    def __init__(self) -> None:
        self._kind: tuple[Any, ...] = ()
        self._memory = np.empty(0, np.uint8)
        self._fits = False

    def __call__(self, rgb: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> NDArray[np.uint8] | None:
        """The message of a picture (H, W, 3), (N,) uint8, good until the next call; None where rclpy has to make it."""
        if (frame_id, *rgb.shape) != self._kind:
            self._begin(rgb, frame_id)
        if not self._fits:
            return None
        stamp(self._memory, stamp_ns)
        self._memory[-rgb.size :] = rgb.reshape(-1)
        return self._memory

    def _begin(self, rgb: NDArray[np.uint8], frame_id: str) -> None:
        height, width, _ = rgb.shape
        message = Image(
            header=messages.header(0, frame_id), height=height, width=width, encoding="rgb8", step=3 * width
        )
        message.data.append(_PIXEL)
        one = bytes(serialize_message(message))
        length = struct.Struct(f"{_order(one)}I")
        # A middleware may have another representation.
        self._fits = one.endswith(length.pack(1) + bytes([_PIXEL]))
        head = one[: -length.size - 1] + length.pack(rgb.size)
        self._memory = np.empty(len(head) + rgb.size, np.uint8)
        self._memory[: len(head)] = np.frombuffer(head, np.uint8)
        self._kind = (frame_id, *rgb.shape)


def serialized(pose: ObjectPose, pose_bytes: PoseBytes) -> tuple[bytes, bytes]:
    """What a published pose weighs on the wire: PoseStamped and TransformStamped, as the node serializes them."""
    return pose_bytes(pose), bytes(serialize_message(messages.transform_stamped(pose, "")))
