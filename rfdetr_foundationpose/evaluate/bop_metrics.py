"""The errors and the score of the BOP challenge, as bop_toolkit computes them.

Hodan et al., "BOP: Benchmark for 6D Object Pose Estimation", ECCV 2018, and "BOP Challenge 2020 on 6D Object Localization",
ECCVW 2020, section 2.2. Poses are (4, 4) float64 T_cam_obj, lengths metres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TAUS = tuple(float(t) for t in np.arange(0.05, 0.51, 0.05))
"""VSD tolerates these misalignments, in diameters; the thresholds of VSD and MSSD (in diameters) are the same numbers."""
MSPD_THRESHOLDS = tuple(float(t) for t in np.arange(5, 51, 5))
"""MSPD has these thresholds, in pixels of an image 640 wide."""
DELTA = 0.015
"""A surface may lie so many metres behind the measured depth and still count as visible; 0.005 in ITODD."""


def mssd(estimate: Array, truth: Array, points: Array, symmetries: Array) -> float:
    """Maximum Symmetry-Aware Surface Distance, metres. points: (V, 3) of the model. symmetries: (K, 4, 4)."""
    moved = _move(estimate, points)
    return float(min(np.linalg.norm(moved - _move(truth @ S, points), axis=1).max() for S in symmetries))


def mspd(estimate: Array, truth: Array, K: Array, points: Array, symmetries: Array) -> float:
    """Maximum Symmetry-Aware Projection Distance, pixels. K: (3, 3) camera matrix."""
    seen = _project(_move(estimate, points), K)
    return float(min(np.linalg.norm(seen - _project(_move(truth @ S, points), K), axis=1).max() for S in symmetries))


def vsd(
    estimated: NDArray[np.floating],
    true: NDArray[np.floating],
    measured: NDArray[np.floating],
    K: Array,
    diameter: float,
    delta: float = DELTA,
    taus: Sequence[float] = TAUS,
) -> list[float]:
    """Visible Surface Discrepancy for each tolerance, in [0, 1].

    estimated, true: (H, W) depth of the model rendered in either pose, measured: the image's; metres, 0 is none. Pixels
    without a measurement count as visible (bop19).
    """
    distances = [_distances(depth, K) for depth in (measured, estimated, true)]
    scene, of_estimate, of_truth = distances
    visible_truth = _visible(scene, of_truth, delta)
    visible_estimate = _visible(scene, of_estimate, delta) | (visible_truth & (of_estimate > 0))
    both = visible_truth & visible_estimate
    either = int((visible_truth | visible_estimate).sum())
    if either == 0:
        return [1.0] * len(taus)
    gaps = np.abs(of_truth[both] - of_estimate[both]) / diameter
    alone = either - int(both.sum())
    return [(int((gaps >= tau).sum()) + alone) / either for tau in taus]


def _move(T: Array, points: Array) -> Array:
    return points @ T[:3, :3].T + T[:3, 3]


def _project(points: Array, K: Array) -> Array:
    image = points @ K.T
    return image[:, :2] / image[:, 2:]


def _distances(depth: NDArray[np.floating], K: Array) -> Array:
    """Distance from the camera's centre instead of depth along its axis, 0 where there is none."""
    x = (np.arange(depth.shape[1]) - K[0, 2]) / K[0, 0]
    y = (np.arange(depth.shape[0]) - K[1, 2]) / K[1, 1]
    return np.asarray(depth, np.float64) * np.sqrt(x**2 + y[:, None] ** 2 + 1)


def _visible(scene: Array, model: Array, delta: float) -> NDArray[np.bool_]:
    # bop_toolkit compares in single precision.
    behind = model.astype(np.float32) - scene.astype(np.float32)
    return ((behind <= delta) | (scene == 0)) & (model > 0)


@dataclass(frozen=True)
class ScoredPose:
    """One estimate. errors: ground-truth index -> (VSD by tolerance, MSSD in diameters, MSPD in pixels of 640)."""

    score: float
    errors: Mapping[int, tuple[Sequence[float], float, float]]


@dataclass
class BopImage:
    """One object in one image. truths: indices of the instances to be found."""

    object: str
    truths: Sequence[int]
    estimates: list[ScoredPose] = field(default_factory=list)


def average_recall(images: Sequence[BopImage]) -> dict[str, float]:
    """AR of VSD, MSSD and MSPD, and "ar", their mean: the score of the BOP challenge's localization task.

    Each is the mean of the recall over all thresholds (and tolerances, for VSD); 0 where nothing was to be found.
    """
    targets = sum(len(image.truths) for image in images)
    if not targets:
        return dict.fromkeys(("ar", "ar_vsd", "ar_mssd", "ar_mspd"), 0.0)

    def recall(which: int, threshold: float, tolerance: int = 0) -> float:
        return sum(_matched(image, which, threshold, tolerance) for image in images) / targets

    ar = {
        "ar_vsd": float(np.mean([recall(0, t, i) for i in range(len(TAUS)) for t in TAUS])),
        "ar_mssd": float(np.mean([recall(1, t) for t in TAUS])),
        "ar_mspd": float(np.mean([recall(2, t) for t in MSPD_THRESHOLDS])),
    }
    return {"ar": float(np.mean(list(ar.values()))), **ar}


def _matched(image: BopImage, which: int, threshold: float, tolerance: int) -> int:
    """Instances with an estimate whose error is below the threshold: surest estimates first, each takes the nearest free one."""
    free = set(image.truths)
    for estimate in sorted(image.estimates, key=lambda e: -e.score):
        best, best_error = None, threshold
        for truth, errors in estimate.errors.items():
            value = errors[0][tolerance] if which == 0 else float(errors[which])  # type: ignore[arg-type]
            if truth in free and value < best_error:
                best, best_error = truth, value
        if best is not None:
            free.discard(best)
    return len(image.truths) - len(free)
