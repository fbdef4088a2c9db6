"""How sure a pose is: a logistic model of how the rendered model agrees with the image, and of the last update.

Neither network says so by itself: the refiner always answers, and the scorer only ranks. The coefficients are fitted on
generated scenes by ``rfdetr-foundationpose evaluate calibrate``; docs/accuracy.md has the calibration.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEATURES = ("visible", "violated", "missing", "residual", "color", "step", "turn")
COEFFICIENTS = np.array([5.0, -8.0, -1.0, -2.0, -4.0, -6.0, -6.0])
INTERCEPT = 0.5
MIN_MODEL_PIXELS = 50.0


def features(counts: NDArray[np.float64], delta: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 7) features from agreement counts (N, 6) and last updates (N, 2) (mesh radii, rad).

    visible: share of the model's pixels that agree in depth; violated: observed behind the model, where it should have
    hidden that; missing: without depth; residual: depth difference of the agreeing, in tolerances; color: colour
    difference of the agreeing, in [0, 1]; step, turn: size of the last update.
    """
    model, agree, occluded, violated, residual, color = counts.T
    total = np.maximum(model, 1.0)
    seen = np.maximum(agree + violated, 1.0)
    return np.stack(
        [
            agree / total,
            violated / seen,
            np.clip(model - agree - occluded - violated, 0, None) / total,
            residual / np.maximum(agree, 1.0),
            color / np.maximum(agree, 1.0),
            np.minimum(delta[:, 0], 1.0),
            np.minimum(delta[:, 1], 1.0),
        ],
        axis=1,
    )


def confidence(counts: NDArray[np.float64], delta: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) probability in [0, 1]; 0 where hardly anything of the model is in the image."""
    logit = features(counts, delta) @ COEFFICIENTS + INTERCEPT
    probability = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
    return np.where(counts[:, 0] < MIN_MODEL_PIXELS, 0.0, probability)


def visibility(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) share of the model's pixels whose observed depth agrees."""
    return counts[:, 1] / np.maximum(counts[:, 0], 1.0)
