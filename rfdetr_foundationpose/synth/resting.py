"""How objects can stand on a table: stable orientations from the convex hull."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
MAX_POSES = 6


@dataclass(frozen=True)
class RestingPoses:
    """rotation (MAX_POSES, 3, 3): world <- mesh with the support at the bottom. height (MAX_POSES,): of the mesh origin
    above the table, m. reach (MAX_POSES,): largest horizontal distance from the mesh origin, m. weight: likelihoods, sum 1.
    """

    rotation: Array
    height: Array
    reach: Array
    weight: Array


def resting_poses(vertices: NDArray[np.floating]) -> RestingPoses:
    """Hull facets that hold the centre of the hull, likeliest (largest) first; the lowest facet if none does."""
    points = np.asarray(vertices, dtype=np.float64)
    hull = ConvexHull(points, qhull_options="QJ")
    corners = points[hull.vertices]
    centre = corners.mean(axis=0)
    normals, offsets = hull.equations[:, :3], hull.equations[:, 3]
    triangle = points[hull.simplices]
    area = np.linalg.norm(np.cross(triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]), axis=1) / 2
    _, group = np.unique(np.round(normals, 2), axis=0, return_inverse=True)
    group = group.reshape(-1)
    total = np.bincount(group, weights=area)
    size = float(np.ptp(corners, axis=0).max())
    stable: list[tuple[float, Array]] = []
    for g in np.argsort(-total)[: 4 * MAX_POSES]:
        first = int(np.flatnonzero(group == g)[0])
        normal = normals[first]
        on_plane = corners[np.abs(corners @ normal + offsets[first]) < 0.01 * size]
        if len(on_plane) >= 3 and _holds(on_plane, centre, normal):
            stable.append((float(total[g]), normal))
        if len(stable) == MAX_POSES:
            break
    if not stable:
        lowest = int(np.argmax(normals @ centre + offsets))
        stable.append((1.0, normals[lowest]))
    weights = np.array([w for w, _ in stable] + [0.0] * (MAX_POSES - len(stable)))
    down = [n for _, n in stable] + [stable[0][1]] * (MAX_POSES - len(stable))
    rotation = np.stack([_turn_down(n) for n in down])
    turned = np.einsum("kij,vj->kvi", rotation, points)
    return RestingPoses(
        rotation,
        -turned[..., 2].min(axis=1),
        np.linalg.norm(turned[..., :2], axis=2).max(axis=1),
        weights / weights.sum(),
    )


def _turn_down(normal: Array) -> Array:
    """A rotation that takes the normal to -z."""
    return Rotation.align_vectors([[0.0, 0.0, -1.0]], [normal])[0].as_matrix()


def _holds(support: Array, centre: Array, normal: Array) -> bool:
    """Whether the centre projects into the support polygon (with a little margin)."""
    flat = (support @ _turn_down(normal).T)[:, :2]
    point = (_turn_down(normal) @ centre)[:2]
    middle = flat.mean(axis=0)
    try:
        equations = ConvexHull(flat, qhull_options="QJ").equations
    except Exception:  # a degenerate (line-like) support does not hold anything
        return False
    return bool((equations[:, :2] @ (point + 0.05 * (point - middle)) + equations[:, 2] <= 0).all())
