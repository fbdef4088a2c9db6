"""How alike two images of one object are in print, whatever the light: what tells the front of a bottle from its back.

The scorer sees it too, but where it is unsure its answers for two poses that fit equally well differ by less than its
noise. docs/accuracy.md has the measurements.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DARK = 0.1
"""Added to the sum of the channels, so that dark pixels count as grey."""
COLOR_NOISE, CHROMA_NOISE = 0.05, 0.03
"""Contrast that a camera's noise and shading make: an object without print has a likeness near 0, with anything."""


def likeness(rendered: Tensor, observed: Tensor, mask: Tensor) -> Tensor:
    """(N,) mean correlation of colour and of chroma, in [-1, 1]. rendered, observed: (N, R, R, 3) in [0, 1]; mask: (N, R, R)."""
    weight = mask[..., None].to(rendered.dtype)
    count = weight.sum((1, 2)).clamp(min=1.0)

    def correlation(a: Tensor, b: Tensor, noise: float) -> Tensor:
        a, b = ((x - ((x * weight).sum((1, 2)) / count)[:, None, None]) * weight for x in (a, b))
        covariance = (a * b).sum((1, 2)) / count
        variances = [x.square().sum((1, 2)) / count + noise**2 for x in (a, b)]
        return (covariance / torch.sqrt(variances[0] * variances[1])).mean(-1)

    chroma_a, chroma_b = (x / (x.sum(-1, keepdim=True) + DARK) for x in (rendered, observed))
    return (correlation(rendered, observed, COLOR_NOISE) + correlation(chroma_a, chroma_b, CHROMA_NOISE)) / 2


PRINT_SUMS = 9
"""Columns of warp_kernels.print_sums."""


def print_match(sums: NDArray[np.float64], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) match, in [-1, 1], and missed, in [0, 2], of print in chroma. sums: (N, 9) over so many pixels (N,).

    match: correlation of the rendered print with the observed one, pulled to 0 where the contrast of either is noise.
    missed: by how much it falls short of what it would be if the rendered print were all there, as saturated as it is
    seen or less. That is 0 where the model has no print in this view, and little where highlights and reflections, which
    no model knows, outshine what it has.
    """
    count = np.maximum(pixels, 1.0)[:, None]
    rendered, observed, squares = np.split(sums / count, 3, axis=1)
    in_model = np.maximum(squares[:, 0] - np.square(rendered).sum(1), 0.0)
    in_image = np.maximum(squares[:, 1] - np.square(observed).sum(1), 0.0)
    together = squares[:, 2] - (rendered * observed).sum(1)
    noise = 3 * CHROMA_NOISE**2
    scale = np.sqrt((in_model + noise) * (in_image + noise))
    wanted = np.sqrt(in_model * np.minimum(in_model, in_image))
    return np.stack([together / scale, np.maximum(wanted - together, 0.0) / scale], axis=1)
