"""RVL, the lossless depth compression of compressed_depth_image_transport.

Wilson, "Fast Lossless Depth Image Compression", ISS 2017. The stream is nibbles, packed into little-endian 32-bit words
from the highest down: three bits of a number, lowest first, and a bit that says whether more follow. Numbers come as
runs: how many zeros, how many values, then the zigzag differences of those values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# No number of an image has more nibbles: 11 hold 33 bits.
_LONGEST = 11


def decode_rvl(data: NDArray[np.uint8], pixels: int) -> NDArray[np.uint16]:
    """(pixels,) uint16 of an RVL stream. Raises ValueError for a stream that is cut off or contradicts itself."""
    numbers = _numbers(data)
    heads, lengths = _runs(numbers, pixels)
    steps = np.delete(
        numbers[: heads[-1] + 2 + lengths[-1]] if heads else numbers[:0], [*heads, *(h + 1 for h in heads)]
    )
    values = np.zeros(pixels, np.uint16)
    measured = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    # Differences go on across the zeros between runs, and round at 16 bits as the codec's own do.
    values[measured] = np.cumsum((steps >> 1) ^ -(steps & 1)).astype(np.uint16)
    return values


def _runs(numbers: NDArray[np.int64], pixels: int) -> tuple[list[int], list[int]]:
    """Where each run begins in ``numbers``, and how many zeros and values it has, in turn."""
    heads: list[int] = []
    lengths: list[int] = []
    filled, at = 0, 0
    while filled < pixels:
        if at + 1 >= len(numbers):
            raise ValueError(f"stream ends after {filled} of {pixels} pixels")
        zeros, count = numbers[at].item(), numbers[at + 1].item()
        if zeros + count > pixels - filled or zeros + count == 0:
            raise ValueError(f"run of {zeros} zeros and {count} values at pixel {filled} of {pixels}")
        if at + 2 + count > len(numbers):
            raise ValueError(f"stream ends after {filled + zeros} of {pixels} pixels")
        heads.append(at)
        lengths += (zeros, count)
        filled, at = filled + zeros + count, at + 2 + count
    return heads, lengths


def _numbers(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Every complete number of the stream, what pads the last word included."""
    octets = data[: len(data) // 4 * 4].reshape(-1, 4)[:, ::-1].reshape(-1)
    nibbles = np.empty(2 * len(octets), np.uint8)
    nibbles[0::2], nibbles[1::2] = octets >> 4, octets & 0xF
    ends = np.flatnonzero(nibbles < 8)
    lengths = np.diff(ends, prepend=-1)
    if len(ends) and lengths.max() > _LONGEST:
        raise ValueError("a number of more than 32 bits")
    numbers = nibbles[ends].astype(np.int64)
    # From the last nibble of a number to its first; most numbers have one or two.
    which, back = np.flatnonzero(lengths > 1), 1
    while len(which):
        numbers[which] = numbers[which] << 3 | (nibbles[ends[which] - back] & 7)
        back += 1
        which = which[lengths[which] > back]
    return numbers
