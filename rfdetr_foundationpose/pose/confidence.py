"""How sure a pose is: a logistic model of how the rendered model agrees with the image, in depth and in texture, and of
the last update.

Neither network says so by itself: the refiner always answers, and the scorer only ranks. The coefficients lie beside the
weights (confidence.json), fitted by ``rfdetr-foundationpose calibrate``; docs/accuracy.md shows how well they hold.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .agreement_columns import FEATURES
from .checkpoints import CheckpointError

Array = NDArray[np.float64]

TEXTURE = ("texture_agreement", "texture_missing")
"""These features are about texture."""
SUPPORTING = ("visible", "texture_agreement")
"""These features speak for a pose; the others speak against it."""
FILE_NAME = "confidence.json"
MIN_MODEL_PIXELS = 50.0
"""A view with fewer pixels of the model than this has confidence 0."""
FULL_SUPPORT = 0.15
"""Below this visible share the confidence falls linearly to 0: a pose without depth may be right, but is not verified."""

UNSURE = 1e-6
"""Log-odds are taken of a confidence that is at least this far from 0 and 1."""

BLIND_SHARE = 0.25
"""Missing texture leaves this share of what shape alone would give. Such a pose is not to be trusted, but its object is
where it says: it stays tracked, since a registration anew may well choose the same side again."""


@dataclass(frozen=True)
class Calibration:
    """coefficients: (11,) in the order of FEATURES; the confidence is the logistic function of features @ coefficients
    + intercept, within the bounds that FULL_SUPPORT and BLIND_SHARE set."""

    coefficients: Array
    intercept: float

    def confidence(self, described: Array, model: Array) -> Array:
        """(N,) probability in [0, 1] of features (N, 11); 0 where hardly anything of the model, ``model`` (N,) pixels, is in
        the image."""
        return np.where(model < MIN_MODEL_PIXELS, 0.0, self.probability(described))

    def log_odds(self, described: Array) -> Array:
        """(N,) log of the confidence over that of being wrong: as comparable with a network's logits as anything is.

        Unlike ``confidence`` it goes on telling apart where hardly anything of the model is in the image.
        """
        p = np.clip(self.probability(described), UNSURE, 1 - UNSURE)
        odds: Array = np.log(p / (1 - p))
        return odds

    def probability(self, described: Array) -> Array:
        """(N,) probability of features (N, 11). Where little of the model is supported by depth, nothing is certain."""
        logits = described @ self._sighted_and_blind + self.intercept
        seen, blind = (1 / (1 + np.exp(-logits.clip(-30, 30)))).T
        support: Array = np.minimum(described[:, FEATURES.index("visible")] / FULL_SUPPORT, 1.0) * np.maximum(
            seen, BLIND_SHARE * blind
        )
        return support

    @cached_property
    def _sighted_and_blind(self) -> Array:
        """(11, 2) coefficients: all, and those without texture."""
        blind = self.coefficients.copy()
        blind[[FEATURES.index(name) for name in TEXTURE]] = 0.0
        return np.stack([self.coefficients, blind], axis=1)

    def to_json(self) -> dict[str, object]:
        return {
            "coefficients": dict(zip(FEATURES, self.coefficients.tolist(), strict=True)),
            "intercept": self.intercept,
        }


DEFAULT = Calibration(np.array([5.0, -8.0, -1.0, -2.0, -4.0, -3.0, -3.0, 4.0, -4.0, -6.0, -4.0]), 0.5)
"""Weights that come without a calibration of their own have this one."""


def load_calibration(directory: str | Path) -> Calibration:
    """That of a weights directory, or DEFAULT where there is none.

    Raises CheckpointError for a broken file, and for one whose features are not FEATURES: it was fitted to other numbers.
    """
    path = Path(directory) / FILE_NAME
    if not path.is_file():
        return DEFAULT
    fix = "Fit it again with rfdetr-foundationpose calibrate, or delete it"
    try:
        tree = json.loads(path.read_text())
        values = {str(name): float(value) for name, value in tree["coefficients"].items()}
        intercept = float(tree["intercept"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no calibration ({error!r}); it needs 'intercept' and 'coefficients' of {', '.join(FEATURES)}. {fix}"
        ) from error
    missing, unknown = [n for n in FEATURES if n not in values], [n for n in values if n not in FEATURES]
    if missing or unknown:
        wrong = [f"lacks {', '.join(missing)}"] * bool(missing)
        wrong += [f"has {', '.join(unknown)}, which this version does not know"] * bool(unknown)
        raise CheckpointError(f"{path} was fitted to other features: it {' and '.join(wrong)}. {fix}")
    calibration = Calibration(np.array([values[name] for name in FEATURES]), intercept)
    if not (np.isfinite(calibration.coefficients).all() and np.isfinite(intercept)):
        raise CheckpointError(f"{path} holds numbers that are not finite. {fix}")
    return calibration


def fit(described: Array, right: NDArray[np.bool_], penalty: float = 1e-3) -> Calibration:
    """Logistic regression of ``right`` (N,) on features (N, 11), with an L2 penalty on standardized coefficients.

    Signs are held to what the features mean, so that agreement never counts against a pose, nor disagreement for it.
    """
    from scipy.optimize import minimize

    mean, scale = described.mean(0), described.std(0) + 1e-6
    x = (described - mean) / scale
    sign = np.where(right, 1.0, -1.0)

    def loss(w: Array) -> tuple[float, Array]:
        margin = sign * (x @ w[:-1] + w[-1])
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500))) / len(x)
        gradient = np.append(x.T @ slope + 2 * penalty * w[:-1], slope.sum())
        return float(np.logaddexp(0, -margin).mean() + penalty * np.square(w[:-1]).sum()), gradient

    bounds = [(0, None) if name in SUPPORTING else (None, 0) for name in FEATURES]
    w = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)]).x
    coefficients = w[:-1] / scale
    return Calibration(coefficients, float(w[-1] - coefficients @ mean))
