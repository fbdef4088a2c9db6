"""Images as the middleware has them: serialized (CDR), copied once into memory that the device reads, and never made a Python message.

rclpy copies an image three times on its way into a message, and its ``raw`` way twice, with Python's lock held. ``rcl_take_serialized_message``
(rcl/subscription.h), which it calls, is called here with memory of ours and without that lock.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from . import messages, rcl_bytes

# rcl/types.h: RCL_RET_SUBSCRIPTION_TAKE_FAILED.
_NOTHING = 401
# Bytes before the first field: which representation it is, and options.
_HEAD = 4
# Memory this many times as large as an image was of a larger one: a driver has changed its resolution.
_TOO_LARGE = 2
# The representation that all of ROS's middlewares write: plain CDR of either byte order.
_ORDERS = {b"\x00\x00": ">", b"\x00\x01": "<"}

_NONE = np.empty(0, np.uint8)

MakeMemory = Callable[[int], NDArray[np.uint8]]
"""(N,) uint8 memory of N bytes."""


@dataclass(frozen=True)
class SerializedImage:
    """A sensor_msgs/Image by its fields. data: (N,) uint8, in the memory that the message was taken into."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: NDArray[np.uint8]


def read_image(memory: NDArray[np.uint8]) -> SerializedImage | None:
    """The image that ``memory``, (N,) uint8, holds serialized, over that memory; None where it is not as expected."""
    order, raw = _ORDERS.get(bytes(memory[:2])), memory.data
    if order is None:
        return None
    try:
        sec, nanosec = struct.unpack_from(f"{order}iI", raw, _HEAD)
        frame_id, at = _text(raw, order, _HEAD + 8)
        at = _aligned(at)
        height, width = struct.unpack_from(f"{order}II", raw, at)
        encoding, at = _text(raw, order, at + 8)
        is_bigendian, at = raw[at], _aligned(at + 1)
        step, length = struct.unpack_from(f"{order}II", raw, at)
    except (struct.error, ValueError, IndexError):
        return None
    data = memory[at + 8 : at + 8 + length]
    if len(data) != length:
        return None
    head = messages.header(sec * 1_000_000_000 + nanosec, frame_id)
    return SerializedImage(head, height, width, encoding, is_bigendian, step, data)


def _text(raw: memoryview, order: str, at: int) -> tuple[str, int]:
    """A string and where it ends. Raises struct.error or ValueError."""
    (length,) = struct.unpack_from(f"{order}I", raw, at)
    begin, end = at + 4, at + 4 + length
    if end > len(raw):
        raise ValueError("the string is longer than the message")
    return bytes(raw[begin:end]).rstrip(b"\0").decode(), end


def _aligned(at: int) -> int:
    """The next place of a number of four bytes: they are counted from the first field."""
    return at + (_HEAD - at) % 4


class TakeImage:
    """A ``reader.Take`` of a subscription of sensor_msgs/Image, into memory that ``make`` gives: a new one for every image."""

    def __init__(self, make: MakeMemory) -> None:
        self._make = make
        self._library = rcl_bytes.Library()
        self._memory = _NONE
        self._size = 0
        # Only reallocate is ever called: the memory is ours, and it is too small when an image is larger than the one before.
        self._allocator = rcl_bytes.Allocator(
            rcl_bytes.ALLOCATE(lambda _size, _state: None),
            rcl_bytes.FREE(lambda _pointer, _state: None),
            rcl_bytes.REALLOCATE(self._grow),
            rcl_bytes.ALLOCATE_ZEROED(lambda _count, _size, _state: None),
            None,
        )

    def __call__(self, subscription: Any) -> SerializedImage | Image | None:
        """The image that waits; None where none does. Raises RuntimeError where the middleware cannot give it."""
        self.restock()
        pointer = self._memory.ctypes.data if len(self._memory) else None
        taken = rcl_bytes.Bytes(pointer, 0, len(self._memory), self._allocator)
        code = self._library.take(subscription.handle.pointer, ctypes.byref(taken), None, None)
        if code == _NOTHING:
            return None
        if code != rcl_bytes.OK:
            raise RuntimeError(f"an image of {subscription.topic_name} cannot be taken: {self._library.last_error()}")
        memory = self._memory[: taken.length]
        self._size = taken.length if taken.capacity > _TOO_LARGE * taken.length else taken.capacity
        self._memory = _NONE
        image = read_image(memory)
        return deserialize_message(memory.tobytes(), Image) if image is None else image

    def restock(self) -> None:
        """Have memory for an image as large as the last one, where that took it; else the next call makes it."""
        if len(self._memory) == 0 and self._size:
            self._memory = self._new(self._size)

    def _grow(self, _pointer: int | None, size: int, _state: int | None) -> int:
        self._memory = self._new(size)
        return int(self._memory.ctypes.data)

    def _new(self, size: int) -> NDArray[np.uint8]:
        try:
            return self._make(size)
        except Exception:  # Fast DDS would write all the same, to nowhere
            return np.empty(size, np.uint8)


def image_take(make: MakeMemory) -> TakeImage | None:
    """How images are taken where this rclpy lets us; None where it does not."""
    try:
        return TakeImage(make)
    except (AttributeError, OSError):
        return None
