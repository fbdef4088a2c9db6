"""Images whose bytes are in another memory than the CPU's (rosidl::Buffer, ROS 2 Lyrical): on the GPU they stay there.

A message's ``data`` is then a ``rosidl_buffer.Buffer``, which has ``backend_type``, ``to_array()`` and ``len()`` and no buffer
protocol. Its CUDA memory is read through ``cuda_buffer_py``: a lease in the order of a stream, with a device pointer.
"""

from __future__ import annotations

import importlib
import inspect
from contextlib import ExitStack
from typing import Any

from ..config import ConfigError
from ..device_frame import current_stream, memory_at, pixels, readable

OPTION = "acceptable_buffer_backends"


def is_buffer(data: Any) -> bool:
    """Whether it is a rosidl Buffer; CPU data still comes as array.array."""
    return hasattr(data, "backend_type") and hasattr(data, "to_array")


def subscription_options(node: Any, wanted: str, device: str) -> dict[str, str]:
    """Arguments of create_subscription for ``input.buffer_backends``: auto, cpu or cuda. device: of the pipeline.

    Raises ConfigError where cuda is asked for and rclpy (before Lyrical) or the device cannot.
    """
    known = OPTION in inspect.signature(type(node).create_subscription).parameters
    on_gpu = device.startswith("cuda")
    if wanted == "cuda" and not (known and on_gpu):
        why = "the pipeline runs on the CPU" if known else "this rclpy has no buffer backends (ROS 2 Lyrical has)"
        raise ConfigError(f"input.buffer_backends is cuda, but {why}; set it to auto")
    return {OPTION: "cuda"} if known and on_gpu and wanted != "cpu" else {}


class HostMessage:
    """A message whose data is in the CPU's memory: the other fields are the message's own."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self.data = message.data.to_array()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


def on_host(message: Any) -> Any:
    """The message itself, or with its bytes copied to the CPU where they are elsewhere."""
    return HostMessage(message) if is_buffer(message.data) else message


def on_device(message: Any, device: str, leases: ExitStack) -> Any:
    """The pixels as a torch tensor over the message's own memory; None where that is not CUDA memory, or the layout needs the CPU.

    (H, W, 3) uint8 in RGB order, (H, W) uint16 or float32. Valid, in the order of the current stream, until ``leases`` is
    closed. device: of the pipeline; a buffer of another GPU is refused by the lease.
    """
    data = message.data
    if not is_buffer(data) or data.backend_type != "cuda" or not device.startswith("cuda") or not readable(message):
        return None
    handle = leases.enter_context(_reader()(data, current_stream(device)))
    pointer = handle.get_ptr() if hasattr(handle, "get_ptr") else handle.device_ptr
    return pixels(memory_at(int(pointer() if callable(pointer) else pointer), len(data), device), message)


def _reader() -> Any:
    module = importlib.import_module("cuda_buffer_py")
    return getattr(module, "from_input_buffer", None) or module.CudaBuffer.from_input_buffer
