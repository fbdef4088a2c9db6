"""A frame on the compute device: uploaded once, read by the detector and by the pose stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .types import CameraIntrinsics, Frame

# sensor_msgs/Image encoding -> (bytes of an item, items of a pixel, which of them are red, green, blue)
_LAYOUTS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "rgb8": (1, 3, (0, 1, 2)),
    "rgba8": (1, 4, (0, 1, 2)),
    "bgr8": (1, 3, (2, 1, 0)),
    "8UC3": (1, 3, (2, 1, 0)),
    "bgra8": (1, 4, (2, 1, 0)),
    "8UC4": (1, 4, (2, 1, 0)),
    "16UC1": (2, 1, (0,)),
    "mono16": (2, 1, (0,)),
    "32FC1": (4, 1, (0,)),
}


@dataclass(frozen=True)
class DeviceFrame:
    """rgb: (H, W, 3) uint8. raw_depth: (H, W) uint16 or float32 in units of ``frame.depth_scale`` m, as it came.

    borrowed: rgb or raw_depth is the caller's own tensor, which may change once the frame is done.
    """

    frame: Frame
    rgb: Tensor
    raw_depth: Tensor
    borrowed: bool = False

    @property
    def depth(self) -> Tensor:
        """(H, W) float32, metres as measured, 0 where there is none. Computed anew, on the current stream: the pose stage,
        which is in a hurry, has its own way."""
        depth = self.raw_depth.to(torch.float32, copy=True).mul_(self.frame.depth_scale)
        if self.raw_depth.is_floating_point():
            torch.nan_to_num_(depth, nan=0.0, posinf=0.0, neginf=0.0).clamp_(min=0.0)
        return depth

    @property
    def camera(self) -> CameraIntrinsics:
        return self.frame.camera


def image_memory(size: int, device: str) -> NDArray[np.uint8]:
    """(size,) uint8 on the host for what comes from a camera: page-locked for a pipeline on CUDA, which reads it directly."""
    if device.startswith("cuda"):
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        except RuntimeError:  # there is no more memory that may be locked
            pass
    return np.empty(size, np.uint8)


class Uploader:
    """Brings frames to the device. Host images go through pinned staging buffers, which are reused while the image size
    stays, but for those that are in page-locked memory themselves; a tensor that is on the device is taken as it is."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._staging: dict[str, Tensor] = {}
        # An early image: where it was, and what came of it. Held, so that no other one can be in its memory.
        self._early: tuple[str, NDArray[Any], Tensor] | None = None
        self._copied = torch.cuda.Event() if self.device.type == "cuda" else None

    def __call__(self, frame: Frame) -> DeviceFrame:
        """Upload on the current stream; waits only for the copies of the frame before. The host arrays of ``frame`` may be
        reused afterwards, those in page-locked memory after ``wait``."""
        self.wait()
        rgb, depth = self._bring("rgb", frame.rgb), self._bring("depth", frame.depth)
        self._record()
        self._early = None
        return DeviceFrame(frame, rgb, depth, borrowed=self._is_here(frame.rgb) or self._is_here(frame.depth))

    def upload_early(self, name: str, image: NDArray[Any]) -> Tensor:
        """Upload one image of the next frame, "rgb" or "depth", on the current stream, before the other one is there.

        The frame that is called with this array, or another one over the same memory, has it then; the array must not change
        before. It takes the place of one that no frame came for.
        """
        self.wait()
        brought = self._bring(name, image)
        self._record()
        self._early = (name, image, brought)
        return brought

    def _take_early(self, name: str, image: NDArray[Any] | Tensor) -> Tensor | None:
        if self._early is None or self._early[0] != name or not _same_memory(self._early[1], image):
            return None
        return self._early[2]

    def wait(self) -> None:
        """Until the newest frame's images are copied; at the end of a frame, whose result was waited for, they are."""
        if self._copied is not None:
            self._copied.synchronize()

    def _record(self) -> None:
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self.device))

    def _is_here(self, image: NDArray[Any] | Tensor) -> bool:
        return isinstance(image, Tensor) and image.device.type == self.device.type

    def _bring(self, name: str, image: NDArray[Any] | Tensor) -> Tensor:
        early = self._take_early(name, image)
        if early is not None:
            return early
        if not isinstance(image, Tensor):
            return self._upload(name, _host_tensor(image))
        if image.device.type == "cpu" and self.device.type == "cuda":
            return self._upload(name, image)
        # No copy, except from another GPU, from a GPU to a pipeline on the CPU, and of rows that lie apart.
        return image.detach().to(self.device).contiguous()

    def _upload(self, name: str, host: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return torch.empty(host.shape, dtype=host.dtype, device=self.device).copy_(host)
        if host.is_contiguous() and host.is_pinned():
            return host.to(self.device, non_blocking=True)
        staging = self._staging.get(name)
        if staging is None or staging.shape != host.shape or staging.dtype != host.dtype:
            staging = self._staging[name] = torch.empty(host.shape, dtype=host.dtype, pin_memory=True)
        staging.copy_(host)
        return staging.to(self.device, non_blocking=True)


def _same_memory(one: NDArray[Any], other: NDArray[Any] | Tensor) -> bool:
    """Whether two arrays are the same numbers at the same place."""
    if not isinstance(other, np.ndarray):
        return False
    mine, its = one.__array_interface__, other.__array_interface__
    return one is other or all(mine[key] == its[key] for key in ("data", "shape", "typestr", "strides"))


def _host_tensor(array: NDArray[Any]) -> Tensor:
    """The array as a tensor; without a copy where torch allows that: not for steps backwards, as a BGR image turned to RGB
    by [..., ::-1] has, nor for read-only memory."""
    if not array.flags.writeable or any(step < 0 for step in array.strides):
        array = np.array(array, order="C")
    return torch.from_numpy(array)


def readable(message: Any) -> bool:
    """Whether ``pixels`` can be made of it; the CPU's way says what is wrong with others. message: a
    sensor_msgs/Image by its fields, whose data has a length."""
    layout = _LAYOUTS.get(message.encoding)
    if layout is None or (layout[0] > 1 and (message.is_bigendian or message.step % layout[0])):
        return False
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * layout[1] * layout[0]
    return min(height, width) > 0 and step >= row and len(message.data) >= step * (height - 1) + row


def pixels(memory: Tensor, message: Any) -> Tensor:
    """``memory``, (N,) uint8, as the image that the message's other fields describe: a view, except for blue before red."""
    item, channels, order = _LAYOUTS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    items = memory[: memory.numel() // item * item].view({1: torch.uint8, 2: torch.uint16, 4: torch.float32}[item])
    if channels == 1:
        return items.as_strided((height, width), (step // item, 1))
    image = items.as_strided((height, width, channels), (step, channels, 1))
    # Not by an index, which torch would bring to the device first.
    return image[:, :, :3] if order == (0, 1, 2) else image[:, :, :3].flip(2)


# CUDA's other name of its default stream (cudaStreamLegacy). By 0, rosidl's CUDA buffers mean a stream of their own.
DEFAULT_STREAM = 1


def current_stream(device: str) -> int:
    """The handle of this thread's CUDA stream, never 0."""
    return int(torch.cuda.current_stream(device).cuda_stream) or DEFAULT_STREAM


def device_index(device: str) -> int:
    """Which GPU "cuda" or "cuda:1" is."""
    index = torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def memory_at(pointer: int, size: int, device: str) -> Tensor:
    """(size,) uint8 over somebody's device memory, without a copy."""
    return torch.as_tensor(_Span(pointer, size), device=device)


class _Span:
    """Device memory for torch, without a copy (numba's CUDA array interface)."""

    def __init__(self, pointer: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (pointer, False),  # torch takes no read-only memory; nothing here writes into an image
            "version": 2,
        }
