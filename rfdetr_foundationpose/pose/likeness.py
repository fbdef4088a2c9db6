"""How alike two images of one object are in print, whatever the light: what tells the front of a bottle from its back.

The scorer sees it too, but where it is unsure its answers for two poses that fit equally well differ by less than its
noise. docs/accuracy.md has the measurements.
"""

from __future__ import annotations

import torch
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
