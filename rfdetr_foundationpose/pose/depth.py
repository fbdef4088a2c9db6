"""The depth filter of the official release: erode, then a bilateral filter."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from . import warp_kernels as kernels
from .warp_setup import launch


class DepthFilter:
    """Filters (H, W) float32 depth in metres; measures outside [min_depth, max_depth] count as missing (0)."""

    def __init__(self, device: torch.device | str, min_depth: float = 0.001, max_depth: float = 100.0) -> None:
        self.device = torch.device(device)
        self.min_depth = max(min_depth, 0.001)
        self.max_depth = max_depth

    def __call__(self, depth: Tensor) -> Tensor:
        """A new tensor; enqueued on torch's current stream."""
        eroded, filtered = torch.empty_like(depth), torch.empty_like(depth)
        source, middle, target = (wp.from_torch(t) for t in (depth, eroded, filtered))
        launch(
            kernels.erode_depth,
            tuple(depth.shape),
            [source, self.min_depth, self.max_depth, middle],
            device=self.device,
        )
        launch(kernels.bilateral_depth, tuple(depth.shape), [middle, target], device=self.device)
        return filtered
