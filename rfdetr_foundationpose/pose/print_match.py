"""How well rendered print matches observed print, whatever the light: what tells the front of a bottle from its back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DARK = 0.1
"""Added to the sum of the channels, so that dark pixels count as grey."""
CHROMA_NOISE = 0.03
"""Contrast that a camera's noise and shading make: an object without print matches nothing, and misses nothing."""
PRINT_SUMS = 9
"""Columns of warp_kernels.agreement that are for print."""


def print_match(sums: NDArray[np.float64], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) match, in [-1, 1], and missed, in [0, 2], of print in chroma. sums: (N, 9) over so many pixels (N,).

    match: correlation of the rendered print with the observed one, pulled to 0 where the contrast of either is noise.
    missed: by how much it falls short of what it would be if the rendered print were all there, as saturated as it is
    seen or less. That is 0 where the model has no print in this view, and little where highlights and reflections, which
    no model knows, outshine what it has.
    """
    count = np.maximum(pixels, 1.0)[:, None]
    means = sums / count
    rendered, observed, squares = means[:, :3], means[:, 3:6], means[:, 6:]
    in_model = np.maximum(squares[:, 0] - np.square(rendered).sum(1), 0.0)
    in_image = np.maximum(squares[:, 1] - np.square(observed).sum(1), 0.0)
    together = squares[:, 2] - (rendered * observed).sum(1)
    noise = 3 * CHROMA_NOISE**2
    scale = np.sqrt((in_model + noise) * (in_image + noise))
    wanted = np.sqrt(in_model * np.minimum(in_model, in_image))
    return np.stack([together / scale, np.maximum(wanted - together, 0.0) / scale], axis=1)
