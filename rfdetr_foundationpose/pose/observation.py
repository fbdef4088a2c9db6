"""What the camera saw, as the pose stage takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .depth import PartlyFiltered


@dataclass(frozen=True)
class Observation:
    """A frame on the device. rgb: (H, W, 3) uint8; depth: (H, W) float32 filtered m, 0 where invalid; camera: (1, 4) float32
    fx, fy, cx, cy, pixels. parts: on a CPU, where ``depth`` is filtered only where ``need`` was called; None: everywhere."""

    rgb: Tensor
    depth: Tensor
    camera: Tensor
    parts: PartlyFiltered | None = None

    @classmethod
    def blank(cls, size: tuple[int, int], device: torch.device) -> Observation:
        """Static buffers of an image size, (rows, columns), which a captured program reads."""
        rgb = torch.zeros(*size, 3, dtype=torch.uint8, device=device)
        return cls(rgb, torch.zeros(*size, device=device), torch.ones(1, 4, device=device))

    def copy_images(self, other: Observation) -> None:
        """Overwrite ``rgb`` and ``depth`` with those of another one of this size, its depth filtered in the whole image."""
        self.rgb.copy_(other.rgb)
        self.depth.copy_(other.everywhere().depth)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.depth.shape[0], self.depth.shape[1]

    def need(self, windows: Tensor) -> None:
        """Filter ``depth`` in these windows, (N, 4) float32 left, top, right, bottom in pixels, and a little around them. To be
        called before depth is read there."""
        if self.parts is not None:
            self.parts.cover(windows.numpy())

    def everywhere(self) -> Observation:
        """The same with ``depth`` filtered in the whole image."""
        if self.parts is not None:
            rows, columns = self.size
            self.need(torch.tensor([[0.0, 0.0, columns, rows]]))
        return self

    def restrict(self, other: Observation, region: Tensor) -> None:
        """Overwrite ``rgb`` and ``depth`` with those of another one of this size inside of a region (H, W) bool; black and without
        depth elsewhere. On a CPU the other's depth has to be filtered there."""
        torch.where(region[..., None], other.rgb, torch.zeros_like(other.rgb[:1, :1]), out=self.rgb)
        torch.where(region, other.depth, torch.zeros_like(other.depth[:1, :1]), out=self.depth)

    def detached(self) -> Observation:
        """A copy that shares no memory with the images that it was made of."""
        parts = None if self.parts is None else self.parts.detached()
        return replace(self, rgb=self.rgb.clone(), depth=self.depth if parts is None else parts.filtered, parts=parts)
