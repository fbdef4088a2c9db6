"""Two scans of one object that was turned over between them: by what motion the second surface becomes the first.

Rotations all around are tried by the iterative closest point method (Besl and McKay 1992) in space and colour together, so
that what is round in shape is held by its print; the best are refined by distances to the tangent planes and by the
gradient of the colours (Park, Zhou and Koltun, "Colored Point Cloud Registration Revisited", 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from .fusion import Surface

COLOUR_METRES = 0.03
"""m that the whole range of a colour counts for, beside distance."""
LEAST_VIEWS = 2
"""So many views saw a point that is compared."""
COARSE, AMONG, FINE = 300, 2500, 4000
"""Points that are compared while all rotations are tried, those among which their partners are then, and points at last."""
KEPT = 12
"""Rotations that are refined."""
REACH = 0.006
"""m, beyond which points have no partner: the other scan did not see them."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PassFit:
    """T_first_second: (4, 4), board of the first scan <- board of the second, for the points of the object.

    overlap: share of the second scan's points that have a partner in the first, and the other way, the smaller one.
    distance: median from a point to the other surface there, m. colour: median difference there, 0 to 1.
    """

    T_first_second: Array
    overlap: float
    distance: float
    colour: float


@dataclass(frozen=True)
class Cloud:
    """points, normals: (N, 3), m. colours: (N, 3), 0 to 1. gradients: (N, 3 colours, 3), 1/m, in the tangent plane."""

    points: Array
    normals: Array
    colours: Array
    gradients: Array
    tree: cKDTree

    def joined(self) -> Array:
        """(N, 6): space and colour, in metres."""
        return np.hstack([self.points, COLOUR_METRES * self.colours])


def fit_passes(first: Surface, second: Surface, floor: float) -> PassFit:
    """first, second: each in its board's frame. floor: height (m) up to which the board may be taken for the object."""
    rng = np.random.default_rng(0)
    a, b = _cloud(first, floor), _cloud(second, floor)
    # One exposure for both: their colours differ by a factor for each channel.
    b = _with_colours(b, b.colours * (a.colours.mean(0) / np.maximum(b.colours.mean(0), 1e-3)))
    few, among = rng.permutation(len(b.points))[:COARSE], rng.permutation(len(a.points))[:AMONG]
    thin = a.joined()[among]
    tree = cKDTree(thin)
    middle = b.points.mean(0)
    tried, joined = [], b.joined()
    for R in _rotations():
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, a.points.mean(0) - R @ middle
        tried.append(_closest_points(thin, tree, joined[few], T, 8))
    order = np.argsort([cost for cost, _ in tried])
    chosen: list[Array] = []
    for index in order:
        T = tried[index][1]
        if all(_angle(T, other) > np.deg2rad(4) for other in chosen):
            chosen.append(T)
        if len(chosen) == KEPT:
            break
    more = rng.permutation(len(b.points))[:FINE]
    back = rng.permutation(len(a.points))[:FINE]
    # Edges of a print pull only what is nearer than their width, so wide ones come first.
    wide = _smoothed(a), _smoothed(b)
    fitted = []
    for T in chosen:
        T = _closest_points(thin, tree, joined[more[: 5 * COARSE]], T, 8)[1]
        T = _refined(a, b, _refined(*wide, T, more, 15), more, 15)
        fitted.append((_cost(a, b, T, more) + _cost(b, a, _inverse(T), back), T))
    T = min(fitted, key=lambda pair: pair[0])[1]
    (there, distance, colour), (here, _, _) = _partners(a, b, T, more), _partners(b, a, _inverse(T), back)
    if not there.any():
        return PassFit(T, 0.0, np.inf, 1.0)
    overlap = min(float(there.mean()), float(here.mean()))
    return PassFit(T, overlap, float(np.median(distance[there])), float(np.median(colour[there])))


def _cloud(surface: Surface, floor: float) -> Cloud:
    mesh = surface.mesh
    points = np.asarray(mesh.vertices, np.float64)
    seen = (surface.views >= LEAST_VIEWS) & (points[:, 2] > 2 * floor)
    points, normals = points[seen], np.asarray(mesh.vertex_normals, np.float64)[seen]
    assert isinstance(mesh.visual, trimesh.visual.ColorVisuals)
    colours = np.asarray(mesh.visual.vertex_colors, np.float64)[seen, :3] / 255
    tree = cKDTree(points)
    return Cloud(points, normals, colours, _gradients(points, normals, colours, tree), tree)


def _with_colours(cloud: Cloud, colours: Array) -> Cloud:
    gradients = _gradients(cloud.points, cloud.normals, colours, cloud.tree)
    return Cloud(cloud.points, cloud.normals, colours, gradients, cloud.tree)


def _smoothed(cloud: Cloud, neighbours: int = 60) -> Cloud:
    """The cloud with every colour the mean of those around it."""
    _, near = cloud.tree.query(cloud.points, k=min(neighbours, len(cloud.points)))
    return _with_colours(cloud, cloud.colours[near].mean(1))


def _gradients(points: Array, normals: Array, colours: Array, tree: cKDTree, neighbours: int = 16) -> Array:
    """(N, 3, 3) colour gradients by least squares over the neighbours, without a part along the normal."""
    _, near = tree.query(points, k=min(neighbours, len(points)))
    offset = points[near] - points[:, None]
    offset -= (offset @ normals[:, :, None]) * normals[:, None]
    change = colours[near] - colours[:, None]
    spread = np.einsum("nki,nkj->nij", offset, offset)
    spread += np.trace(spread, axis1=1, axis2=2)[:, None, None] * normals[:, :, None] * normals[:, None, :]
    spread += 1e-12 * np.eye(3)
    return np.linalg.solve(spread, np.einsum("nki,nkc->nic", offset, change)).transpose(0, 2, 1)


def _rotations() -> Sequence[Array]:
    """576 rotations, none farther than about 20 degrees from any: super-Fibonacci spirals (Alexa 2022)."""
    n = 576
    s = np.arange(n) + 0.5
    alpha, beta = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    r, q = np.sqrt(s / n), np.sqrt(1 - s / n)
    quaternions = np.stack([r * np.sin(alpha), r * np.cos(alpha), q * np.sin(beta), q * np.cos(beta)], 1)
    return list(Rotation.from_quat(quaternions).as_matrix())


def _closest_points(target: Array, tree: cKDTree, source: Array, T: Array, rounds: int) -> tuple[float, Array]:
    """Closest points in space and colour, three quarters of them kept each round; their mean distance, and the motion.

    target, source: (N, 6) as ``Cloud.joined``; T moves the source.
    """
    keep = int(0.75 * len(source))
    cost = np.inf
    for _ in range(rounds):
        moved = source[:, :3] @ T[:3, :3].T + T[:3, 3]
        away, near = _nearest(tree, np.hstack([moved, source[:, 3:]]))
        best = np.argpartition(away, keep)[:keep]
        cost = float(away[best].mean())
        T = _rigid(moved[best], target[near[best], :3]) @ T
    return cost, T


def _inverse(T: Array) -> Array:
    """Of a rigid motion."""
    made = np.eye(4)
    made[:3, :3], made[:3, 3] = T[:3, :3].T, -T[:3, :3].T @ T[:3, 3]
    return made


def _nearest(tree: cKDTree, points: Array, reach: float = np.inf) -> tuple[Array, NDArray[np.int64]]:
    """Distances, infinite beyond ``reach``, and indices of the nearest points."""
    away, near = tree.query(points, distance_upper_bound=reach)
    return np.asarray(away), np.asarray(near)


def _rigid(source: Array, target: Array) -> Array:
    """(4, 4) least-squares motion of source onto target (Kabsch 1976)."""
    s, t = source.mean(0), target.mean(0)
    u, _, v = np.linalg.svd((source - s).T @ (target - t))
    sign = np.diag([1, 1, np.sign(np.linalg.det(v.T @ u.T))])
    T = np.eye(4)
    T[:3, :3] = v.T @ sign @ u.T
    T[:3, 3] = t - T[:3, :3] @ s
    return T


def _refined(a: Cloud, b: Cloud, T: Array, chosen: NDArray[np.int64], rounds: int) -> Array:
    """Gauss-Newton over distances to tangent planes and colours there, with weights that fall off towards REACH."""
    for index in range(rounds):
        reach = REACH * (2.0 if index < rounds // 2 else 1.0)
        p = b.points[chosen] @ T[:3, :3].T + T[:3, 3]
        away, near = _nearest(a.tree, p, reach)
        ok = np.isfinite(away)
        # Surfaces that look the other way are the thing's far side.
        ok[ok] = ((b.normals[chosen[ok]] @ T[:3, :3].T) * a.normals[near[ok]]).sum(1) > 0.4
        if ok.sum() < 30:
            return T
        p, near = p[ok], near[ok]
        n, offset = a.normals[near], p - a.points[near]
        distance = (offset * n).sum(1)
        weight = (1 - (distance / reach) ** 2).clip(0) ** 2
        gradient = COLOUR_METRES * a.gradients[near]
        difference = COLOUR_METRES * (a.colours[near] - b.colours[chosen[ok]]) + np.einsum(
            "nci,ni->nc", gradient, offset
        )
        # A colour that does not fit at all is light or shade, not a shift.
        pull = 0.3 * (1 - (difference / (0.35 * COLOUR_METRES)) ** 2).clip(0) ** 2 * weight[:, None]
        rows = np.concatenate([n, gradient.reshape(-1, 3)])
        arms = np.concatenate([p, np.repeat(p, 3, 0)])
        J = np.hstack([np.cross(arms, rows), rows])
        r, w = np.concatenate([distance, difference.ravel()]), np.concatenate([weight, pull.ravel()])
        H = (J * w[:, None]).T @ J
        step = np.linalg.solve(H + 1e-9 * np.trace(H) / 6 * np.eye(6), -(J * w[:, None]).T @ r)
        move = np.eye(4)
        move[:3, :3], move[:3, 3] = Rotation.from_rotvec(step[:3]).as_matrix(), step[3:]
        T = move @ T
        if np.linalg.norm(step[3:]) < 1e-6 and np.linalg.norm(step[:3]) < 1e-6:
            break
    return T


def _partners(a: Cloud, b: Cloud, T: Array, chosen: NDArray[np.int64]) -> tuple[NDArray[np.bool_], Array, Array]:
    """Of b's chosen points: which have a partner on a, how far its tangent plane is (m), and how the colours differ."""
    p = b.points[chosen] @ T[:3, :3].T + T[:3, 3]
    away, near = _nearest(a.tree, p)
    facing = ((b.normals[chosen] @ T[:3, :3].T) * a.normals[near]).sum(1) > 0.4
    distance = np.abs(((p - a.points[near]) * a.normals[near]).sum(1))
    return (away < REACH) & facing, distance, np.abs(b.colours[chosen] - a.colours[near]).mean(1)


def _cost(a: Cloud, b: Cloud, T: Array, chosen: NDArray[np.int64]) -> float:
    """Mean over the points of how badly each fits, 1 for one without partner."""
    has, distance, colour = _partners(a, b, T, chosen)
    shape, print_ = (distance / 0.004).clip(0, 1), (colour / 0.2).clip(0, 1)
    return float(np.where(has, 0.5 * shape + 0.5 * print_, 1.0).mean())


def _angle(a: Array, b: Array) -> float:
    return float(Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude())
