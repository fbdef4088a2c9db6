"""Images as blocks of pixels, for a stem with few input channels: one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch

wp.set_module_options({"enable_backward": False})

ROWS, COLUMNS = 2, 4
"""Of a block."""
BEFORE, AFTER = wp.constant(2), 1
"""Rows of empty blocks around an image: what a 7x7 stride-2 convolution with padding 3 sees beyond its edges. One column of
blocks on either side is enough."""


@wp.kernel
def gather_blocks(image: wp.array3d(dtype=wp.int64), words: int, out: wp.array3d(dtype=wp.int64)):
    """Eight bytes a thread. image: (N, H, W / COLUMNS * words), words being those of COLUMNS pixels side by side.
    out: (N, H / ROWS + 3, (W / COLUMNS + 2) * ROWS * words)."""
    n, y, i = wp.tid()
    block = i // (2 * words)
    within = i - block * 2 * words
    row = 2 * (y - BEFORE) + within // words
    column = (block - 1) * words + within % words
    value = wp.int64(0)
    if row >= 0 and row < image.shape[1] and column >= 0 and column < image.shape[2]:
        value = image[n, row, column]
    out[n, y, i] = value


def pixel_blocks(batches: Sequence[Tensor]) -> Tensor:
    """(N, 8 C, H / 2 + 3, W / 4 + 2), channels-last, of batches (N_i, C, H, W), H even, W a multiple of 4, with N their sum.

    A block's channels are those of its eight pixels, row by row. Fastest where the batches are channels-last.
    """
    first = batches[0]
    _, channels, height, width = first.shape
    total = sum(b.shape[0] for b in batches)
    rows, columns = height // ROWS + BEFORE + AFTER, width // COLUMNS + 2
    blocks = torch.empty((total, rows, columns, ROWS * COLUMNS * channels), dtype=first.dtype, device=first.device)
    words = COLUMNS * channels * first.element_size() // 8
    start = 0
    for batch in batches:
        n = batch.shape[0]
        image = batch.permute(0, 2, 3, 1).contiguous().view(n, height, width * channels).view(torch.int64)
        part = blocks[start : start + n].view(n, rows, -1).view(torch.int64)
        launch(
            gather_blocks,
            (n, rows, columns * ROWS * words),
            [wp.from_torch(image), words, wp.from_torch(part)],
            device=first.device,
        )
        start += n
    return blocks.permute(0, 3, 1, 2)
