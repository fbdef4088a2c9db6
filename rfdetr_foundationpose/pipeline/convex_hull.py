"""The room that an object takes up, to tell whether two tracks stand in the same place: no two things do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError

Array = NDArray[np.float64]

# So many random points inside a hull represent it.
SAMPLES = 256
# Two hulls with a larger intersection over union are in one place. A can and the mug that it was taken for have 0.61.
SAME_IOU = 0.35
# Two things with a larger share of one inside the other, solid one are in one place. Things that touch, at poses that are off
# by millimetres, have a far smaller one.
INSIDE_SHARE = 1 / 3
# A closed mesh that fills this share of its hull is solid: there is no room inside for another thing.
SOLID_SHARE = 0.8
# The hull of a flat mesh is made thicker by this (m) on each side.
_FLAT = 5e-4


@dataclass(frozen=True)
class ConvexHull:
    """The convex hull of a mesh, in its frame. planes: (F, 4), inside where all are <= 0 for (x, y, z, 1). samples:
    (SAMPLES, 3) points drawn evenly from it, metres. volume: m^3. is_solid: whether the mesh fills it."""

    planes: Array
    samples: Array
    volume: float
    is_solid: bool

    @classmethod
    def from_points(cls, points: NDArray[np.floating], mesh_volume: float | None = None) -> ConvexHull:
        """points: (N, 3) whose hull it is, metres. mesh_volume: of the closed mesh, m^3; None where that is not known."""
        points = np.asarray(points, dtype=np.float64)
        try:
            cells = Delaunay(points)
        except QhullError:  # flat, or hardly any points: its bounding box, half a millimetre larger
            low, high = points.min(0) - _FLAT, points.max(0) + _FLAT
            points = np.array(
                [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
            )
            cells = Delaunay(points)
        corners = points[cells.simplices]
        volumes = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(volumes), SAMPLES, p=volumes / volumes.sum())
        samples = np.einsum("nk,nkx->nx", rng.dirichlet(np.ones(4), SAMPLES), corners[chosen])
        faces = points[cells.convex_hull]
        normals = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
        offsets = -np.einsum("fx,fx->f", normals, faces[:, 0])
        outward = np.where(normals @ points.mean(0) + offsets > 0, -1.0, 1.0)
        planes = np.unique(np.round(np.c_[normals, offsets] * outward[:, None], 9), axis=0)
        total = float(volumes.sum())
        return cls(planes, samples, total, mesh_volume is not None and mesh_volume >= SOLID_SHARE * total)

    def share_inside(self, T_cam_self: Array, other: ConvexHull, T_cam_other: Array) -> float:
        """The share of this hull, at a pose (4, 4), that lies in the other's."""
        points = self.samples @ T_cam_self[:3, :3].T + (T_cam_self[:3, 3] - T_cam_other[:3, 3])
        points = points @ T_cam_other[:3, :3]
        return float((points @ other.planes[:, :3].T + other.planes[:, 3] <= 0).all(1).mean())


def closed_volume(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> float | None:
    """Volume (m^3) of a closed triangle mesh, vertices (V, 3), faces (F, 3); None for one that is open."""
    corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    corners = corners - corners.reshape(-1, 3).mean(0)
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # The areas of a closed surface add up to nothing; what is missing of an open one is what they add up to.
    if np.linalg.norm(areas.sum(0)) > 0.01 * np.linalg.norm(areas, axis=1).sum():
        return None
    return abs(float(np.einsum("fx,fx->", corners[:, 0], areas))) / 6


def same_place(a: ConvexHull, T_cam_a: Array, b: ConvexHull, T_cam_b: Array) -> bool:
    """Whether two objects at these poses (4, 4) cannot both be there.

    Things may touch, and one may lie in a hollow one: only hulls that nearly coincide, or one that reaches far into a solid
    one, are in the same place.
    """
    a_in_b, b_in_a = a.share_inside(T_cam_a, b, T_cam_b), b.share_inside(T_cam_b, a, T_cam_a)
    common = (a_in_b * a.volume + b_in_a * b.volume) / 2
    if common > SAME_IOU * (a.volume + b.volume - common):
        return True
    return (b.is_solid and a_in_b > INSIDE_SHARE) or (a.is_solid and b_in_a > INSIDE_SHARE)
