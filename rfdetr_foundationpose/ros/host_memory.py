"""Memory of images is kept for the next image. Needs no rclpy."""

from __future__ import annotations

import ctypes

# Parameters of mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The largest block, in bytes, that comes out of kept memory (glibc takes no more), and how much free memory is kept.
LARGEST, KEPT = 32 << 20, 256 << 20


def keep() -> bool:
    """Tell glibc to keep what images leave; False where the C library cannot.

    By default it gives much of that back to the kernel after every image and has it cleared, page by page, for the next:
    several hundred page faults per frame at 1280x720, each of about a microsecond.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, KEPT))
