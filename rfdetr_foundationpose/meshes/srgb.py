"""Displayed colours and linear light (IEC 61966-2-1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def encode_srgb(linear: NDArray[np.floating]) -> NDArray[np.floating]:
    """Linear light in [0, 1] -> sRGB in [0, 1] (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def decode_srgb(srgb: NDArray[np.floating]) -> NDArray[np.floating]:
    """sRGB in [0, 1] -> linear light in [0, 1]."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4)


def linear_as_text(factor: Sequence[float]) -> str:
    """Linear light in [0, 1] as sRGB of 0..255: ``255/188/0``."""
    return "/".join(str(round(255 * float(v))) for v in encode_srgb(np.array(factor)))
