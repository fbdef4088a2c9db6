"""Serialized messages in memory of ours, for the functions of rcl that take and publish them: rclpy copies them first."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.impl.implementation_singleton import rclpy_implementation

# rcl/types.h
OK = 0

ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
REALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
ALLOCATE_ZEROED = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)


class Allocator(ctypes.Structure):
    """rcutils_allocator_t (rcutils/allocator.h)."""

    _fields_ = (
        ("allocate", ALLOCATE),
        ("deallocate", FREE),
        ("reallocate", REALLOCATE),
        ("zero_allocate", ALLOCATE_ZEROED),
        ("state", ctypes.c_void_p),
    )


class Bytes(ctypes.Structure):
    """rcutils_uint8_array_t (rcutils/types/uint8_array.h), which rmw_serialized_message_t is."""

    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("allocator", Allocator),
    )


class _ErrorText(ctypes.Structure):
    """rcutils_error_string_t (rcutils/error_handling.h)."""

    _fields_ = (("text", ctypes.c_char * 1024),)


class Library:
    """The functions, of the library that rclpy has loaded; they run without Python's lock. Raises AttributeError or OSError."""

    def __init__(self) -> None:
        library = ctypes.CDLL(rclpy_implementation.__file__)  # finds what it is linked to as well, by whatever name
        self.take: Any = library.rcl_take_serialized_message
        self.take.argtypes = [ctypes.c_void_p, ctypes.POINTER(Bytes), ctypes.c_void_p, ctypes.c_void_p]
        self.publish: Any = library.rcl_publish_serialized_message
        self.publish.argtypes = [ctypes.c_void_p, ctypes.POINTER(Bytes), ctypes.c_void_p]
        self._error, self._forget = library.rcutils_get_error_string, library.rcutils_reset_error
        self._error.restype, self._forget.restype = _ErrorText, None

    def last_error(self) -> str:
        """What the last function that failed in this thread says; forgotten afterwards."""
        text = bytes(self._error().text).decode(errors="replace")
        self._forget()
        return text


class PublishBytes:
    """Publishes serialized messages, (N,) uint8, of a publisher of rclpy from where they are, without Python's lock.

    Raises AttributeError or OSError where rcl cannot be called.
    """

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self._library = Library()

    def __call__(self, message: NDArray[np.uint8]) -> None:
        """Raises RuntimeError where the middleware cannot."""
        serialized = Bytes(message.ctypes.data, len(message), len(message), Allocator())
        with self._publisher.handle:
            code = self._library.publish(self._publisher.handle.pointer, ctypes.byref(serialized), None)
        if code != OK:
            raise RuntimeError(f"{self._publisher.topic_name} cannot be published: {self._library.last_error()}")


def publish_bytes(publisher: Any) -> PublishBytes | None:
    """How bytes are published where this rclpy lets us; None where it does not."""
    try:
        return PublishBytes(publisher)
    except (AttributeError, OSError):
        return None
