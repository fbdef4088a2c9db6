"""Turns after which an object's shape lies nearly where it was: refinement takes one look for the other, and only the print,
a handle or a few millimetres tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from .half_turns import half_turns
from .mesh import ObjectModel
from .symmetry import rotation_angle

MOST_TURNS = 8
"""So many turns are tried of an object."""
NEARLY = 0.03
"""The turned surface lies off the surface by less than this share of the diameter, on average."""
APART = np.deg2rad(28.0)
"""Turns that differ by less are one: refinement comes from one to the other."""

STARTS, STEPS, LEFT = 300, 8, 60
"""Rotations that the surface is aligned from, steps of each, and so many that go on after two."""
SURFACE, MOVED = 3000, 150
"""Points that stand for the surface, and those of them that are turned."""

Array = NDArray[np.float64]


def near_symmetries(item: ObjectModel) -> Array:
    """(M, 4, 4) turns about the mesh's frame, M at most MOST_TURNS, for trying ``pose @ turn`` beside a pose; first those that lie
    far from each other and bring the surface nearest to where it was. None is a declared symmetry. After those come half
    turns about principal axes, as many as there is room for.

    Found by iterated closest points (Besl and McKay 1992) from rotations all over SO(3).
    """
    vertices, faces = np.asarray(item.arrays.vertices, np.float64), item.arrays.faces
    declared = item.symmetries[:, :3, :3]
    halves = half_turns(vertices, faces)
    surface = _Surface.of(vertices, faces)
    pool = np.concatenate([halves, surface.aligned(_starts(STARTS))])
    off = surface.distance(pool) / (NEARLY * item.diameter)
    pool, off = pool[off < 1], off[off < 1]
    kept: list[Array] = []
    while len(kept) < MOST_TURNS:
        gaps = np.array([_gap(T, kept, declared) for T in pool])
        if not (gaps > APART).any():
            break
        kept.append(pool[np.where(gaps > APART, gaps / np.pi - off, -np.inf).argmax()])
    kept += [T for T in halves if _gap(T, kept, declared) > APART]
    return np.stack(kept[:MOST_TURNS]) if kept else np.zeros((0, 4, 4))


def _gap(T: Array, others: list[Array], declared: Array) -> float:
    """The smallest angle, rad, between a turn and no turn or one of the others, up to declared symmetries."""
    looks = T[:3, :3] @ declared
    against = np.stack([np.eye(3), *(o[:3, :3] for o in others)])
    return float(rotation_angle(np.einsum("kij,nlj->knil", looks, against)).min())


@dataclass(frozen=True)
class _Surface:
    """points: (SURFACE, 3) m, about their mean ``centroid`` (3,); tree: of them."""

    points: Array
    centroid: Array
    tree: cKDTree

    @classmethod
    def of(cls, vertices: Array, faces: NDArray[np.integer]) -> _Surface:
        points = _surface(vertices, faces, SURFACE)
        centroid = points.mean(0)
        return cls(points - centroid, centroid, cKDTree(points - centroid))

    def distance(self, T: Array) -> Array:
        """(N,) m from the surface turned by T (N, 4, 4) to the surface, on average."""
        t = T[:, :3, :3] @ self.centroid + T[:, :3, 3] - self.centroid
        return self._nearest(T[:, :3, :3], t)[1].mean(1)

    def aligned(self, R: Array) -> Array:
        """(LEFT, 4, 4) turns that bring the surface near to itself, from the rotations R (N, 3, 3)."""
        t = np.zeros((len(R), 3))
        for step in range(STEPS):
            moved, distance, target = self._nearest(R, t)
            if step == 2:
                likely = np.argsort(distance.mean(1))[:LEFT]
                R, t, moved, target = R[likely], t[likely], moved[likely], target[likely]
            middle, wanted = moved.mean(1), target.mean(1)
            covariance = np.einsum("npi,npj->nij", moved - middle[:, None], target - wanted[:, None])
            U, _, Vt = np.linalg.svd(covariance)
            mirror = np.tile(np.eye(3), (len(R), 1, 1))
            mirror[:, 2, 2] = np.sign(np.linalg.det(U @ Vt))
            turn = Vt.transpose(0, 2, 1) @ mirror @ U.transpose(0, 2, 1)
            t = np.einsum("nij,nj->ni", turn, t - middle) + wanted
            R = turn @ R
        T = np.tile(np.eye(4), (len(R), 1, 1))
        T[:, :3, :3] = R
        T[:, :3, 3] = t + self.centroid - R @ self.centroid
        return T

    def _nearest(self, R: Array, t: Array) -> tuple[Array, Array, Array]:
        """The first MOVED points turned by R and moved by t, (N, MOVED, 3); how far the surface is, and where it is nearest."""
        moved = np.einsum("nij,pj->npi", R, self.points[:MOVED]) + t[:, None]
        distance, nearest = self.tree.query(moved.reshape(-1, 3))
        return moved, np.asarray(distance).reshape(len(R), -1), self.points[nearest.reshape(len(R), -1)]


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


@cache
def _starts(count: int) -> Array:
    """(count, 3, 3) rotations, each far from the others: farthest-point samples of random ones."""
    quaternions = Rotation.random(3000, random_state=0).as_quat()
    closeness = np.abs(quaternions @ quaternions[0])
    kept = [0]
    while len(kept) < count:
        kept.append(int(closeness.argmin()))
        closeness = np.maximum(closeness, np.abs(quaternions @ quaternions[kept[-1]]))
    return np.asarray(Rotation.from_quat(quaternions[kept]).as_matrix())
