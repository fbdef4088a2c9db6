"""Joins the features of two crops side by side and adds the embedding of positions, each in one pass over memory, sixteen bytes
at a time.

torch's kernels for these take more than twice as long as their memory traffic does.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch
from .norm_kernels import HALVES

wp.set_module_options({"enable_backward": False})

BYTES = 16
"""A thread moves a word of so many bytes at once."""
IMAGES = 2
"""A thread moves the words at one place of so many images, since finding that place takes about as long as moving one."""

# join_pixels: features of two crops, channels-last, side by side in every pixel. A word is 8 channels in FP16.
#
#   a    (N, pixels, C)      image n:  |a0 a0 a0|a1 a1 a1|a2 ...        pixel_words = 3 words a pixel here
#   b    (N or 1, pixels, C) image n:  |b0 b0 b0|b1 b1 b1|b2 ...
#   out  (N, pixels, 2 C)    image n:  |a0 a0 a0 b0 b0 b0|a1 a1 a1 b1 b1 b1|a2 ...
#
# A thread takes one word of a and the word at the same place of b, in IMAGES images, to their two places in out.
#
# add_rows: tokens plus their positions.
#
#   x, out  (N, L, C)  image n:  |token 0|token 1|...|     embedding  (L, C):  |row 0|row 1|...|, the same for all n
#
# A thread adds one word of the embedding to the words at the same place of IMAGES images, in float32.
#
# Threads have one dimension: Warp's own way from several to indices divides 64-bit numbers.
_PLACE = f"""
    struct alignas({BYTES}) Word {{ unsigned int part[{BYTES} / 4]; }};
    const unsigned int thread_index = thread, area = words;
    const unsigned int group = thread_index / area, at = thread_index - group * area, first = group * {IMAGES};
"""
_JOIN = f"""{_PLACE}
    const unsigned int count = a.shape[0], pixel = at / pixel_words;
    const size_t b_step = b.shape[0] == 1 ? 0 : area;
    const Word* pa = reinterpret_cast<const Word*>(a.data) + (size_t)first * area + at;
    const Word* pb = reinterpret_cast<const Word*>(b.data) + first * b_step + at;
    Word* po = reinterpret_cast<Word*>(out.data) + (size_t)first * 2 * area + at + pixel * (size_t)pixel_words;
    Word left[{IMAGES}], right[{IMAGES}];
    #pragma unroll
    for (unsigned int k = 0; k < {IMAGES}; ++k) if (first + k < count) {{
        left[k] = pa[k * (size_t)area];
        right[k] = pb[k * b_step];
    }}
    #pragma unroll
    for (unsigned int k = 0; k < {IMAGES}; ++k) if (first + k < count) {{
        po[k * (size_t)area * 2] = left[k];
        po[k * (size_t)area * 2 + pixel_words] = right[k];
    }}
"""
_ADD = f"""{_PLACE}{HALVES}    const unsigned int count = x.shape[0];
    const Word* px = reinterpret_cast<const Word*>(x.data) + (size_t)first * area + at;
    Word* po = reinterpret_cast<Word*>(out.data) + (size_t)first * area + at;
    const Word added = reinterpret_cast<const Word*>(embedding.data)[at];
    Word found[{IMAGES}];
    #pragma unroll
    for (unsigned int k = 0; k < {IMAGES}; ++k) if (first + k < count) found[k] = px[k * (size_t)area];
    #pragma unroll
    for (unsigned int k = 0; k < {IMAGES}; ++k) if (first + k < count) {{
        Word sum;
        #pragma unroll
        for (int i = 0; i < {BYTES} / 4; ++i) {{
            const unsigned int v = found[k].part[i], e = added.part[i];
            sum.part[i] = narrow(widen(v & 0xffffu) + widen(e & 0xffffu)) | (narrow(widen(v >> 16) + widen(e >> 16)) << 16);
        }}
        po[k * (size_t)area] = sum;
    }}
"""


@wp.func_native(_JOIN)
def join_word(
    a: wp.array2d(dtype=wp.int64),
    b: wp.array2d(dtype=wp.int64),
    words: int,
    pixel_words: int,
    thread: int,
    out: wp.array2d(dtype=wp.int64),
): ...


@wp.func_native(_ADD)
def add_word(
    x: wp.array2d(dtype=wp.float16),
    embedding: wp.array(dtype=wp.float16),
    words: int,
    thread: int,
    out: wp.array2d(dtype=wp.float16),
): ...


@wp.kernel
def join_pixels(
    a: wp.array2d(dtype=wp.int64),
    b: wp.array2d(dtype=wp.int64),
    words: int,
    pixel_words: int,
    out: wp.array2d(dtype=wp.int64),
):
    """out: pixel by pixel the channels of a, then those of b. a: (N, words), b: the same or one image for all, out: (N, 2 words);
    a pixel of a has ``pixel_words`` of the ``words``. Launched over the words of an image, times N / IMAGES, rounded up."""
    join_word(a, b, words, pixel_words, wp.tid(), out)


@wp.kernel
def add_rows(
    x: wp.array2d(dtype=wp.float16),
    embedding: wp.array(dtype=wp.float16),
    words: int,
    out: wp.array2d(dtype=wp.float16),
):
    """out = x + embedding, (N, words) each of 8 values; one embedding of ``words`` for all N. Launched as ``join_pixels``."""
    add_word(x, embedding, words, wp.tid(), out)


def _check(*tensors: Tensor) -> None:
    """Raises ValueError for tensors whose images cannot be moved in words of BYTES."""
    for t in tensors:
        if t.data_ptr() % BYTES:
            raise ValueError(f"one-pass copies are for memory aligned to {BYTES} bytes")
        if t.shape[-1] * t.element_size() % BYTES:
            raise ValueError(f"one-pass copies move {BYTES} bytes at a time, not {t.shape[-1]} channels of {t.dtype}")


def join_sides(a: Tensor, b: Tensor) -> Tensor:
    """``torch.cat([a, b], dim=1)``, channels-last, of (N, C, H, W) and (N or 1, C, H, W): one image of b serves all of a.

    Fastest where both are channels-last. Raises ValueError where a pixel is no multiple of 16 bytes.
    """
    n, channels, height, width = a.shape
    if b.shape not in (a.shape, (1, *a.shape[1:])) or b.dtype != a.dtype:
        raise ValueError(f"cannot lay {tuple(b.shape)} of {b.dtype} beside {tuple(a.shape)} of {a.dtype}")
    a, b = (t.permute(0, 2, 3, 1).contiguous() for t in (a, b))
    _check(a, b)
    out = torch.empty((n, height, width, 2 * channels), dtype=a.dtype, device=a.device)
    pixel_words = channels * a.element_size() // BYTES
    words = height * width * pixel_words
    first, second, both = (wp.from_torch(t.flatten(1).view(torch.int64)) for t in (a, b, out))
    launch(join_pixels, -(-n // IMAGES) * words, [first, second, words, pixel_words, both], device=a.device)
    return out.permute(0, 3, 1, 2)


def add_embedding(x: Tensor, embedding: Tensor) -> Tensor:
    """x + embedding, summed in float32, of float16 tensors (N, L, C) and (L, C); a new contiguous tensor.

    Fastest where x is contiguous, as tokens of channels-last images are. Raises ValueError for other dtypes and where C is no
    multiple of 8.
    """
    if x.dtype != torch.float16 or embedding.dtype != torch.float16 or x.shape[1:] != embedding.shape:
        raise ValueError(
            f"one-pass embedding is for float16 and one shape, not {tuple(x.shape[1:])} of {x.dtype} and "
            f"{tuple(embedding.shape)} of {embedding.dtype}"
        )
    x, embedding = x.contiguous(), embedding.contiguous()
    _check(x, embedding)
    out = torch.empty_like(x)
    n, words = x.shape[0], embedding.numel() * embedding.element_size() // BYTES
    images, summed = (wp.from_torch(t.flatten(1)) for t in (x, out))
    launch(
        add_rows, -(-n // IMAGES) * words, [images, wp.from_torch(embedding.view(-1)), words, summed], device=x.device
    )
    return out
