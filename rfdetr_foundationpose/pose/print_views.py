"""Views that are compared with the image in depth and in print: what the confidence is computed from."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from . import warp_kernels as kernels
from .likeness import DARK, PRINT_SUMS
from .networks import CROP_SIZE
from .renderer import Renderer
from .views import AGREEMENT, ViewSet

COMPARED = len(AGREEMENT) + PRINT_SUMS


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
