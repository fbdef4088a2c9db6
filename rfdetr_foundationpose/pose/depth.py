"""The depth filter of the official release: erode, then a bilateral filter."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from ..accel.graph import GraphedProgram
from ..warp_setup import launch
from . import warp_kernels as kernels


class DepthFilter:
    """Filters (H, W) depth; measures outside [min_depth, max_depth] m, NaN included, count as missing (0).

    One CUDA graph launch on a GPU, captured anew when the image size changes. For one thread at a time.
    """

    def __init__(self, device: torch.device | str, min_depth: float = 0.001, max_depth: float = 100.0) -> None:
        self.device = torch.device(device)
        self.min_depth = max(min_depth, 0.001)
        self.max_depth = max_depth
        self._allocate((0, 0))
        self._scale, self._host_scale = torch.ones(1, device=device), 1.0
        self.graph = GraphedProgram(self._run, self.device, name="depth filter")

    def __call__(self, depth: Tensor, scale: float = 1.0) -> Tensor:
        """(H, W) float32 m, a new tensor; enqueued on torch's current stream. depth: float32 or uint16, in units of
        ``scale`` m."""
        if depth.shape != self._filtered.shape:
            self._allocate((depth.shape[0], depth.shape[1]))
        if scale != self._host_scale:
            with torch.inference_mode():
                self._scale.fill_(scale)
            self._host_scale = scale
        self._inside.copy_(depth)
        self.graph(depth.shape)
        return self._filtered.clone()

    def _allocate(self, size: tuple[int, int]) -> None:
        border = kernels.BORDER
        with torch.inference_mode(False):  # they are written to inside and outside of it
            self._source, self._eroded = torch.zeros(2, *(n + 2 * border for n in size), device=self.device)
            self._inside = self._source[border : border + size[0], border : border + size[1]]
            self._filtered = torch.zeros(size, device=self.device)

    def _run(self) -> None:
        size = tuple(self._filtered.shape)
        source, scale, eroded, filtered = map(wp.from_torch, (self._source, self._scale, self._eroded, self._filtered))
        launch(kernels.erode_depth, size, [source, scale, self.min_depth, self.max_depth, eroded], device=self.device)
        launch(kernels.bilateral_depth, size, [eroded, kernels.NEARNESS, filtered], device=self.device)
