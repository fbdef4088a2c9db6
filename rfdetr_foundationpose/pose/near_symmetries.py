"""Turns after which an object's shape lies nearly where it was: refinement takes one look for the other, and only the print,
a handle or a few millimetres tell them apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from .half_turns import half_turns
from .mesh import ObjectModel

MOST_TURNS = 6
"""So many turns are tried of an object."""
NEARLY = 0.03
"""The turned surface lies off the surface by less than this share of the diameter, on average."""
APART = np.deg2rad(28.0)
"""Turns that differ by less are one: refinement comes from one to the other."""

STARTS, STEPS, LEFT = 300, 12, 60
SURFACE, MOVED = 3000, 150

Array = NDArray[np.float64]


def near_symmetries(item: ObjectModel) -> Array:
    """(M, 4, 4) turns about the mesh's frame, M at most MOST_TURNS, for trying ``pose @ turn`` beside a pose; farthest from each
    other first. None is a declared symmetry. After those come half turns about principal axes, as many as there is room for.

    Found by iterated closest points (Besl and McKay 1992) from rotations all over SO(3).
    """
    vertices, faces = np.asarray(item.arrays.vertices, np.float64), item.arrays.faces
    declared = item.symmetries[:, :3, :3]
    found, off = _aligned(vertices, faces)
    kept: list[Array] = []
    pool = [T for T, d in zip(found, off, strict=True) if d < NEARLY * item.diameter]
    pool_off = [d for d in off if d < NEARLY * item.diameter]
    while pool and len(kept) < MOST_TURNS:
        gaps = [_gap(T, kept, declared) for T in pool]
        worth = [gap / np.pi - d / (NEARLY * item.diameter) for gap, d in zip(gaps, pool_off, strict=True)]
        usable = [i for i, gap in enumerate(gaps) if gap > APART]
        if not usable:
            break
        best = max(usable, key=lambda i: worth[i])
        kept.append(pool[best])
    for T in half_turns(vertices, faces):
        if len(kept) < MOST_TURNS and _gap(T, kept, declared) > APART:
            kept.append(T)
    return np.stack(kept) if kept else np.zeros((0, 4, 4))


def _gap(T: Array, others: list[Array], declared: Array) -> float:
    """The smallest angle, rad, between a turn and no turn or one of the others, up to declared symmetries."""
    looks = T[:3, :3] @ declared
    against = np.stack([np.eye(3), *(o[:3, :3] for o in others)])
    trace = np.einsum("kij,nij->kn", looks, against)
    return float(np.arccos(np.clip((trace.max() - 1) / 2, -1, 1)))


def _aligned(vertices: Array, faces: NDArray[np.integer]) -> tuple[Array, Array]:
    """(N, 4, 4) turns that bring the surface near to itself, from starts all over SO(3); and how far off it is then, m, (N,)."""
    points = _surface(vertices, faces, SURFACE)
    centroid = points.mean(0)
    points = points - centroid
    tree = cKDTree(points)
    moved_from = points[:MOVED]
    R = _starts(STARTS)
    t = np.zeros((len(R), 3))
    for step in range(STEPS + 1):
        moved = np.einsum("nij,pj->npi", R, moved_from) + t[:, None]
        distance, nearest = tree.query(moved.reshape(-1, 3))
        distance = distance.reshape(len(R), -1)
        if step == STEPS:
            break
        target = points[nearest.reshape(len(R), -1)]
        if step == 2:
            likely = np.argsort(distance.mean(1))[:LEFT]
            R, t, moved, target = R[likely], t[likely], moved[likely], target[likely]
        middle, wanted = moved.mean(1), target.mean(1)
        covariance = np.einsum("npi,npj->nij", moved - middle[:, None], target - wanted[:, None])
        U, _, Vt = np.linalg.svd(covariance)
        mirror = np.tile(np.eye(3), (len(R), 1, 1))
        mirror[:, 2, 2] = np.sign(np.linalg.det(U @ Vt))
        step_R = Vt.transpose(0, 2, 1) @ mirror @ U.transpose(0, 2, 1)
        t = np.einsum("nij,nj->ni", step_R, t - middle) + wanted
        R = step_R @ R
    T = np.tile(np.eye(4), (len(R), 1, 1))
    T[:, :3, :3] = R
    T[:, :3, 3] = t + centroid - R @ centroid
    return T, distance.mean(1)


def _surface(vertices: Array, faces: NDArray[np.integer], count: int) -> Array:
    """(count, 3) points of the surface, the same at every call."""
    rng = np.random.default_rng(0)
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not area.sum() > 0:
        return np.repeat(vertices[:1], count, 0)
    chosen = corners[rng.choice(len(faces), count, p=area / area.sum())]
    r, s = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - r, r * (1 - s), r * s], 1)
    return np.einsum("nk,nkd->nd", weights, chosen)


def _starts(count: int) -> Array:
    """(count, 3, 3) rotations, each far from the others: farthest-point samples of random ones."""
    quaternions = Rotation.random(3000, random_state=0).as_quat()
    closeness = np.abs(quaternions @ quaternions[0])
    kept = [0]
    while len(kept) < count:
        kept.append(int(closeness.argmin()))
        closeness = np.maximum(closeness, np.abs(quaternions @ quaternions[kept[-1]]))
    return np.asarray(Rotation.from_quat(quaternions[kept]).as_matrix())
