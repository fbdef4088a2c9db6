"""Views that are compared with the image in depth and in print: what the confidence is computed from."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from . import warp_kernels as kernels
from .networks import CROP_SIZE
from .print_match import DARK, PRINT_SUMS
from .renderer import Renderer
from .views import AGREEMENT, ViewSet

COMPARED = len(AGREEMENT) + PRINT_SUMS
POSE, DELTA, COMPARISON = slice(0, 16), slice(16, 18), slice(18, 18 + COMPARED)
"""Columns of a result row, which both programs read back: T_cam_center (4, 4), the last update (mesh radii, rad), and what
``PrintedViews.compare`` gives at that pose."""
RESULT_COLUMNS = COMPARISON.stop


class PrintedViews(ViewSet):
    """A ViewSet that ``compare`` serves too: 0.2 MB for each of ``compared``."""

    def __init__(
        self,
        renderer: Renderer,
        capacity: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        *,
        compared: int | None = None,
        inputs: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        compared = capacity if compared is None else compared
        super().__init__(renderer, capacity, device, CROP_SIZE, dtype, compared=compared, inputs=inputs)
        self._partial = torch.zeros(compared, PRINT_SUMS, CROP_SIZE * kernels.AGREEMENT_LANES, device=self.device)

    def compare(self, n: int, rgb: Tensor, depth: Tensor, camera: Tensor, out: Tensor) -> Tensor:
        """Fill and return ``out`` (n, COMPARED) float32: the counts of ``agree``, then the sums for print_match."""
        out[:, : len(AGREEMENT)] = self.agree(n, rgb, depth, camera)
        self._launch(
            kernels.print_sums,
            (n, self.size, kernels.AGREEMENT_LANES),
            *self._compared(n),
            DARK,
            wp.from_torch(self._partial[:n]),
        )
        torch.sum(self._partial[:n], 2, out=out[:, len(AGREEMENT) :])
        return out

    def report(self, n: int, rgb: Tensor, depth: Tensor, camera: Tensor, out: Tensor) -> None:
        """Fill ``out`` (n, RESULT_COLUMNS) float32, the result rows of the first n hypotheses."""
        out[:, POSE] = self.poses[:n].flatten(1)
        out[:, DELTA] = self.delta[:n]
        self.compare(n, rgb, depth, camera, out[:, COMPARISON])
