"""The largest distance between two vertices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

_FEW = 20_000
"""Of up to so many points the convex hull is quick whatever the shape."""
_DIRECTIONS, _BLOCK, _STARTS = 128, 1 << 14, 8


def largest_distance(points: NDArray[np.float64]) -> float:
    """Exact for up to 20,000 points or a hull of up to 3,000; else what farthest points of many starts agree on."""
    points = np.asarray(points, np.float64)
    if 64 < len(points) <= _FEW:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # flat meshes have no hull in space
            points = np.unique(points, axis=0)
    if len(points) <= 3000:
        return float(pdist(points).max()) if len(points) > 1 else 0.0
    return _swept(points)


def _swept(points: NDArray[np.float64]) -> float:
    """From the extremes of many directions, and the points farthest from the middle, to the farthest point, and on from
    there while that gets farther.

    A pair at the largest distance is extreme along its own direction, so the directions near it find its neighbours.
    """
    i = np.arange(_DIRECTIONS) + 0.5
    height, angle = i / _DIRECTIONS, np.pi * (1 + 5**0.5) * i  # half a sphere, evenly
    flat = np.sqrt(1 - height**2)
    directions = np.stack([flat * np.cos(angle), flat * np.sin(angle), height], 1).astype(np.float32)
    columns = np.empty((3, len(points)), np.float32)
    for k, middle in enumerate((points.min(0) + points.max(0)) / 2):
        columns[k] = points[:, k] - middle
    ends = []
    for first in range(0, columns.shape[1], _BLOCK):
        along = directions @ columns[:, first : first + _BLOCK]
        ends += [first + along.argmin(1), first + along.argmax(1)]
    radius = np.einsum("kp,kp->p", columns, columns)
    ends.append(np.argpartition(-radius, 64)[:64])
    few = np.unique(np.concatenate(ends))
    best = float(pdist(points[few]).max()) if len(few) <= 3000 else 0.0
    for start in few[np.argsort(-radius[few])[:_STARTS]].tolist():
        at, reached = start, 0.0
        while True:
            away = columns - columns[:, at, None]
            there = int(np.einsum("kp,kp->p", away, away).argmax())
            distance = float(np.linalg.norm(points[there] - points[at]))
            if distance <= reached * (1 + 1e-12):
                break
            at, reached = there, distance
        best = max(best, reached)
    return best
