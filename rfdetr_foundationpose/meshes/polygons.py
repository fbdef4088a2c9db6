"""Polygons -> triangles, right for those that are not convex."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def triangulate(
    counts: NDArray[np.integer], corners: NDArray[np.integer], vertices: NDArray[np.floating]
) -> tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]]:
    """Triangles of P polygons, in their order and winding.

    counts: (P,) corners of each; corners: (sum of counts,) vertex indices, one polygon after the other; vertices: (V, 3).
    Returns (F, 3) positions in ``corners`` and (F,) the polygon of each. Polygons of fewer than three corners give none.
    """
    if len(counts) and (counts == 3).all():
        return np.arange(len(counts) * 3, dtype=np.int32).reshape(-1, 3), np.arange(len(counts), dtype=np.int32)
    counts = counts.astype(np.int64)
    first = np.cumsum(counts) - counts
    triangles, owners = [], []
    for n in np.unique(counts[counts >= 3]).tolist():
        polygons = np.flatnonzero(counts == n)
        positions = first[polygons, None] + np.arange(n)
        if n == 3:
            found, owner = positions[:, None], polygons
        else:
            points = vertices[corners[positions]].astype(np.float64)
            found, owner = (_quads if n == 4 else _fans)(points, positions), polygons
        triangles.append(found.reshape(-1, 3))
        owners.append(np.repeat(owner, found.shape[1]))
    if not triangles:
        return np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    every, of = np.concatenate(triangles), np.concatenate(owners)
    real = every[:, 0] >= 0
    every, of = every[real], of[real]
    order = np.argsort(of, kind="stable")
    return every[order], of[order]


def _newell(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 3) normals of (P, n, 3) polygons, as long as twice their area."""
    relative = points - points[:, :1]
    return np.cross(relative, np.roll(relative, -1, axis=1)).sum(1)


def _corner_turns(points: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, n): positive where a polygon turns with its normal."""
    into, out = points - np.roll(points, 1, axis=1), np.roll(points, -1, axis=1) - points
    return np.einsum("pnk,pk->pn", np.cross(into, out), normal)


def _quads(points: NDArray[np.float64], positions: Ints) -> Ints:
    """Two triangles each: along the first diagonal, or the other where a corner is reflex there."""
    turns = _corner_turns(points, _newell(points))
    other = np.minimum(turns[:, 1], turns[:, 3]) < np.minimum(0, np.minimum(turns[:, 0], turns[:, 2]))
    split = np.where(other[:, None], [1, 2, 3, 1, 3, 0], [0, 1, 2, 0, 2, 3])
    return np.take_along_axis(positions, split, 1).reshape(-1, 2, 3)


def _fans(points: NDArray[np.float64], positions: Ints) -> Ints:
    """(P, n - 2, 3): fans of the convex polygons, ears of the others; -1 where fewer triangles do."""
    count, n = positions.shape
    k = np.arange(1, n - 1)
    fan = np.stack([np.zeros_like(k), k, k + 1], 1)
    local = np.broadcast_to(fan, (count, n - 2, 3)).copy()
    normal = _newell(points)
    turns = _corner_turns(points, normal)
    scale = np.abs(turns).max(1, keepdims=True)
    for p in np.flatnonzero((turns < -1e-9 * scale).any(1)).tolist():
        local[p] = _ears(points[p], normal[p], n - 2)
    return np.where(local >= 0, np.take_along_axis(positions, local.reshape(count, -1) % n, 1).reshape(local.shape), -1)


def _ears(points: NDArray[np.float64], normal: NDArray[np.float64], most: int) -> Ints:
    """(most, 3) corners of the triangles of one polygon, padded with -1.

    By mapbox_earcut, which trimesh and three.js use too: it takes any simple polygon and never fails on others.
    """
    import mapbox_earcut

    axis = int(np.argmax(np.abs(normal)))
    u, v = (axis + 1) % 3, (axis + 2) % 3
    flat = np.ascontiguousarray(points[:, [u, v]])
    ears = (
        mapbox_earcut.triangulate_float64(flat, np.array([len(flat)], np.uint32)).reshape(-1, 3).astype(np.int64)[:most]
    )
    a, b, c = (flat[ears[:, i]] for i in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    wrong = area * np.sign(normal[axis]) < 0
    ears[wrong] = ears[wrong][:, ::-1]
    return np.concatenate([ears, np.full((most - len(ears), 3), -1)])
