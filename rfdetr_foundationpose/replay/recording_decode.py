"""Recorded bytes as messages: of ROS 2 (CDR) and of ROS 1, whose definitions of these types never changed.

The definitions that a bag carries are not needed, so that a broken or strange one of another topic does no harm.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from rosbags.typesys import Stores, get_typestore

from .recording_messages import STORE, TYPES

STORE_ROS1 = get_typestore(Stores.ROS1_NOETIC)
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
IMAGES = (IMAGE, COMPRESSED)
# The stamp of a header and its frame; names are short.
HEAD = 512


class DamagedMessage(ValueError):
    """Bytes that are no message of their type."""


class Head(NamedTuple):
    """What the beginning of a message says. stamp: ns. frame: without the slash that ROS 1 put before it.

    encoding: of an Image, or CompressedImage's format. size: width and height, (0, 0) of a CompressedImage.
    """

    stamp: int
    frame: str
    encoding: str = ""
    size: tuple[int, int] = (0, 0)


def read_head(data: bytes, kind: str, encoding: str) -> Head:
    """The header, and of images and calibrations the fields behind it, from the first ``HEAD`` bytes. Raises DamagedMessage."""
    ros1 = encoding == "ros1"
    try:
        order = "<" if ros1 or data[1] & 1 else ">"
        # Behind ROS 1's sequence number, or the four bytes that say how CDR is written.
        seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
        stamp = seconds * 1_000_000_000 + nanoseconds
        frame, at = _string(data, 12, order)
        frame = frame.lstrip("/")
        if kind == COMPRESSED:
            return Head(stamp, frame, _string(data, _aligned(at, ros1), order)[0])
        if kind not in (IMAGE, CAMERA_INFO):
            return Head(stamp, frame)
        at = _aligned(at, ros1)
        height, width = struct.unpack_from(f"{order}II", data, at)
        name = _string(data, at + 8, order)[0] if kind == IMAGE else ""
        return Head(stamp, frame, name, (width, height))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DamagedMessage(f"its header cannot be read ({error})") from None


def _string(data: bytes, at: int, order: str) -> tuple[str, int]:
    (length,) = struct.unpack_from(f"{order}I", data, at)
    if at + 4 + length > len(data):
        raise IndexError("a text is cut off")
    return data[at + 4 : at + 4 + length].rstrip(b"\0").decode(), at + 4 + length


def _aligned(at: int, ros1: bool) -> int:
    """CDR puts numbers at multiples of their size, counted behind its four bytes; ROS 1 puts them at once."""
    return at if ros1 else at + (-at % 4)


def deserialize(data: bytes, kind: str, encoding: str) -> Any:
    """The message; CameraInfo always with the field names of ROS 2. Raises DamagedMessage."""
    try:
        if encoding == "ros1":
            if kind == IMAGE:
                data = _image_of_ros1(data)
            message = STORE_ROS1.deserialize_ros1(data, kind)
            return _camera_info_of_ros1(message) if kind == CAMERA_INFO else message
        return STORE.deserialize_cdr(data, kind)
    except Exception as error:  # whatever the generated code meets in bytes that are no such message
        raise DamagedMessage(f"its bytes are no {kind} ({type(error).__name__})") from None


def _image_of_ros1(data: bytes) -> bytes:
    """Without what follows the pixels: librealsense appends the unit of depth, which rosbags refuses
    (findings/librealsense-bags-are-no-plain-ros.sh)."""
    at = 12
    for step in (8, 5):  # after the frame: height and width; after the encoding: is_bigendian and step
        at += 4 + struct.unpack_from("<I", data, at)[0] + step
    return data[: at + 4 + struct.unpack_from("<I", data, at)[0]]


def _camera_info_of_ros1(m: Any) -> Any:
    """ROS 1 calls the matrices D, K, R and P."""
    return TYPES[CAMERA_INFO](
        m.header, m.height, m.width, m.distortion_model, m.D, m.K, m.R, m.P, m.binning_x, m.binning_y, m.roi
    )
