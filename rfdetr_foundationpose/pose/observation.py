"""What the camera saw, as the pose stage takes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Observation:
    """A frame on the device. rgb: (H, W, 3) uint8; depth: (H, W) float32 filtered m, 0 where invalid; camera: (1, 4) float32
    fx, fy, cx, cy, pixels."""

    rgb: Tensor
    depth: Tensor
    camera: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.depth.shape[0], self.depth.shape[1]
