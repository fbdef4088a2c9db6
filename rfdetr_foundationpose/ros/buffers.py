"""Images whose bytes are in another memory than the CPU's (rosidl::Buffer, ROS 2 Lyrical): on the GPU they stay there.

A message's ``data`` is then a ``rosidl_buffer.Buffer``, which has ``backend_type``, ``to_array()`` and ``len()`` and no buffer
protocol. Its CUDA memory is read through the module ``cuda_buffer`` (package cuda_buffer_py): a lease in the order of a
stream, with a device pointer.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from contextlib import ExitStack
from typing import Any

from ..config import ConfigError
from ..device_frame import current_stream, device_index, memory_at, pixels, readable

OPTION = "acceptable_buffer_backends"
MODULE = "cuda_buffer"


def is_buffer(data: Any) -> bool:
    """Whether it is a rosidl Buffer; CPU data still comes as array.array."""
    return hasattr(data, "backend_type") and hasattr(data, "to_array")


def subscription_options(node: Any, wanted: str, device: str) -> dict[str, str]:
    """Arguments of create_subscription for ``input.buffer_backends``: auto, cpu or cuda. device: of the pipeline.

    Raises ConfigError where cuda is asked for and rclpy (before Lyrical), the device or an installed package cannot.
    """
    obstacle = ""
    if OPTION not in inspect.signature(type(node).create_subscription).parameters:
        obstacle = "this rclpy has no buffer backends (ROS 2 Lyrical has)"
    elif not device.startswith("cuda"):
        obstacle = "the pipeline runs on the CPU"
    elif importlib.util.find_spec(MODULE) is None:
        obstacle = "cuda_buffer_py is not installed (apt install ros-$ROS_DISTRO-cuda-buffer-py ros-$ROS_DISTRO-cuda-buffer-backend)"
    if wanted == "cuda" and obstacle:
        raise ConfigError(f"input.buffer_backends is cuda, but {obstacle}; set it to auto")
    return {} if obstacle or wanted == "cpu" else {OPTION: "cuda"}


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
    """The pixels as a torch tensor over the message's own memory; None where that is not this GPU's, or the layout needs the CPU.

    (H, W, 3) uint8 in RGB order, (H, W) uint16 or float32. Valid, in the order of the current stream, until ``leases`` is
    closed. device: of the pipeline.
    """
    data = message.data
    if not is_buffer(data) or data.backend_type != "cuda" or not device.startswith("cuda") or not readable(message):
        return None
    reader = importlib.import_module(MODULE).CudaBuffer
    handle = leases.enter_context(reader.from_input_buffer(data, current_stream(device)))
    if getattr(handle, "device_id", device_index(device)) != device_index(device):
        return None
    return pixels(memory_at(handle.device_ptr, len(data), device), message)
