"""A frame on the compute device: uploaded once, read by the detector and by the pose stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .types import CameraIntrinsics, Frame


@dataclass(frozen=True)
class DeviceFrame:
    """rgb: (H, W, 3) uint8. raw_depth: (H, W) uint16 or float32 in units of ``frame.depth_scale`` m, as it came."""

    frame: Frame
    rgb: torch.Tensor
    raw_depth: torch.Tensor

    @property
    def depth(self) -> torch.Tensor:
        """(H, W) float32, metres as measured, 0 where there is none. Computed anew, on the current stream: the pose stage,
        which is in a hurry, has its own way."""
        depth = self.raw_depth.to(torch.float32, copy=True).mul_(self.frame.depth_scale)
        if self.raw_depth.is_floating_point():
            torch.nan_to_num_(depth, nan=0.0, posinf=0.0, neginf=0.0).clamp_(min=0.0)
        return depth

    @property
    def camera(self) -> CameraIntrinsics:
        return self.frame.camera


class Uploader:
    """Copies frames to the device through pinned staging buffers that are reused while the image size stays."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._staging: dict[str, torch.Tensor] = {}
        self._copied = torch.cuda.Event() if self.device.type == "cuda" else None

    def __call__(self, frame: Frame) -> DeviceFrame:
        """Upload on the current stream; waits only for the copies of the frame before. The arrays of ``frame`` may be
        reused afterwards."""
        if self._copied is not None:
            self._copied.synchronize()
        rgb = self._copy("rgb", torch.from_numpy(frame.rgb))
        depth = self._copy("depth", torch.from_numpy(frame.depth))
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self.device))
        return DeviceFrame(frame, rgb, depth)

    def _copy(self, name: str, host: torch.Tensor) -> torch.Tensor:
        if self.device.type != "cuda":
            return host.to(self.device, copy=True)
        staging = self._staging.get(name)
        if staging is None or staging.shape != host.shape or staging.dtype != host.dtype:
            staging = self._staging[name] = torch.empty_like(host, pin_memory=True)
        staging.copy_(host)
        return staging.to(self.device, non_blocking=True)
