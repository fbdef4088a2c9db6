"""Rearranges images into blocks of pixels in one pass over memory, for a first convolution (stem) with few input channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch

wp.set_module_options({"enable_backward": False})

ROWS, COLUMNS = 2, 4
"""A block is so many rows and columns of pixels."""
BEFORE, AFTER = 2, 1
"""So many rows of empty blocks are put above and below an image, and one column on either side: what a 7x7 stride-2 convolution
with padding 3 sees beyond its edges."""
IMAGES = 4
"""A thread copies a word of so many images, since finding its place takes longer than copying it."""

# gather_blocks: pixels (6 channels here) become channels of a coarser image, whose blocks are ROWS x COLUMNS pixels.
#
#   image  (N, H, W, C)              out  (N, H / 2 + 3, W / 4 + 2, 8 C)
#
#   row 0  |0 1 2 3|4 5 6 7|         row 0, 1   empty blocks                       a strip is 4 pixels of one row,
#   row 1  |a b c d|e f g h|         row 2      |empty|0123 abcd|4567 efgh|empty|  ``words`` words; a block is two strips
#   row 2  ...                       row 3      |empty|... of rows 2 and 3  |empty|
#                                    last row   empty blocks
#
# A thread finds the place in ``image`` of one word of ``out`` and copies it in IMAGES images; beyond the edges it writes 0.

_GATHER = f"""
    struct alignas(BYTES) Word {{ unsigned int part[BYTES / 4]; }};
    const unsigned int count = image.shape[0], height = image.shape[1], width = image.shape[2] / (BYTES / 8);
    const unsigned int rows = out.shape[1], out_width = out.shape[2] / (BYTES / 8);
    const unsigned int thread_index = thread, area = rows * out_width;
    const unsigned int group = thread_index / area, at = thread_index - group * area;
    const unsigned int y = at / out_width, i = at - y * out_width;
    const unsigned int strip = i / words;  // the upper or the lower row of a block
    // Beyond the edges these wrap around to more than any size.
    const unsigned int row = {ROWS} * y + strip % {ROWS} - {ROWS * BEFORE};
    const unsigned int column = strip / {ROWS} * words + (i - strip * words) - words;
    const bool inside = row < height && column < width;
    const unsigned int first = group * {IMAGES};
    const size_t image_area = (size_t)height * width;
    const Word* from = reinterpret_cast<const Word*>(image.data) + first * image_area + (size_t)row * width + column;
    Word* to = reinterpret_cast<Word*>(out.data) + first * (size_t)area + at;
    Word found[{IMAGES}] = {{}};
    #pragma unroll
    for (unsigned int k = 0; k < {IMAGES}; ++k) if (inside && first + k < count) found[k] = from[k * image_area];
    #pragma unroll
    for (unsigned int k = 0; k < {IMAGES}; ++k) if (first + k < count) to[k * (size_t)area] = found[k];
"""


@wp.func_native(_GATHER.replace("BYTES", "16"))
def gather_16(image: wp.array3d(dtype=wp.int64), words: int, thread: int, out: wp.array3d(dtype=wp.int64)): ...


@wp.func_native(_GATHER.replace("BYTES", "8"))
def gather_8(image: wp.array3d(dtype=wp.int64), words: int, thread: int, out: wp.array3d(dtype=wp.int64)): ...


@wp.kernel
def gather_blocks(image: wp.array3d(dtype=wp.int64), words: int, out: wp.array3d(dtype=wp.int64)):
    """Copy one word of sixteen bytes a thread, in IMAGES images. image: (N, H, row); out: (N, H / ROWS + 3, (W / COLUMNS + 2)
    blocks), a block ROWS times ``words`` words; both contiguous and aligned to 16 bytes.

    Launched over the words of an image of out, times N / IMAGES, rounded up: one dimension, since Warp's own way from several
    to indices divides 64-bit numbers.
    """
    gather_16(image, words, wp.tid(), out)


@wp.kernel
def gather_narrow_blocks(image: wp.array3d(dtype=wp.int64), words: int, out: wp.array3d(dtype=wp.int64)):
    """As ``gather_blocks``, in words of eight bytes."""
    gather_8(image, words, wp.tid(), out)


def pixel_blocks(batches: Sequence[Tensor]) -> Tensor:
    """(N, 8 C, H / 2 + 3, W / 4 + 2), channels-last, of batches (N_i, C, H, W), H even, W a multiple of 4, with N their sum.

    A block's channels are those of its eight pixels, row by row. Fastest where the batches are channels-last.
    """
    first = batches[0]
    _, channels, height, width = first.shape
    total = sum(b.shape[0] for b in batches)
    rows, columns = height // ROWS + BEFORE + AFTER, width // COLUMNS + 2
    blocks = torch.empty((total, rows, columns, ROWS * COLUMNS * channels), dtype=first.dtype, device=first.device)
    bytes_across = COLUMNS * channels * first.element_size()
    start = 0
    for batch in batches:
        n = batch.shape[0]
        image = batch.permute(0, 2, 3, 1).contiguous().view(n, height, width * channels).view(torch.int64)
        part = blocks[start : start + n].view(n, rows, -1).view(torch.int64)
        wide = bytes_across % 16 == 0 and image.data_ptr() % 16 == 0
        words = bytes_across // (16 if wide else 8)
        launch(
            gather_blocks if wide else gather_narrow_blocks,
            -(-n // IMAGES) * rows * columns * ROWS * words,
            [wp.from_torch(image), words, wp.from_torch(part)],
            device=first.device,
        )
        start += n
    return blocks.permute(0, 3, 1, 2)
