"""How wrong a pose is: translation, rotation, ADD and ADD-S, up to the object's symmetries.

Definitions follow the BOP toolkit and the YCB-Video paper (PoseCNN, RSS 2018): ADD is the mean distance of
corresponding model points, ADD-S that to the nearest one. Translation is measured at the model centre (middle of the
bounding box), so that an origin far from the object does not turn rotation error into translation error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..objects import ContinuousSymmetry, DiscreteSymmetry, ObjectSpec
from ..pose.mesh import ObjectModel, load_object
from ..pose.symmetry import rotation_angle, symmetry_transforms

Array = NDArray[np.float64]

# Errors are measured on this many points of the surface.
SURFACE_POINTS = 2000
# A pose is right when its ADD-S is below this share of the diameter, as in LINEMOD and YCB-Video.
ADDS_THRESHOLD = 0.1


@dataclass(frozen=True)
class PoseError:
    """One estimate against the truth. Millimetres and degrees; adds_ratio and add_ratio are ADD-S and ADD / diameter."""

    translation_mm: float
    rotation_deg: float
    add_mm: float
    adds_mm: float
    adds_ratio: float
    add_ratio: float


@dataclass(frozen=True)
class ObjectGeometry:
    """What judging a pose needs of the object.

    points: (P, 3) float64 on the surface, object frame, metres. diameter: metres. centre: (3,), object frame.
    transforms: (K, 4, 4) object-side symmetries including the identity. axes: continuous symmetries.
    """

    points: Array
    diameter: float
    centre: Array
    transforms: Array = field(default_factory=lambda: np.eye(4)[None])
    axes: tuple[ContinuousSymmetry, ...] = ()

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 3 or not len(self.points):
            raise ValueError(f"points has shape {self.points.shape}, expected (P, 3) with P >= 1")
        if not self.diameter > 0:
            raise ValueError(f"diameter={self.diameter} must be positive (metres)")

    @classmethod
    def from_spec(cls, spec: ObjectSpec, points: int = SURFACE_POINTS) -> ObjectGeometry:
        """From an objects.yaml entry. Raises MeshError when its mesh cannot be used."""
        return cls.from_model(load_object(spec), spec, points)

    @classmethod
    def from_model(cls, model: ObjectModel, spec: ObjectSpec, points: int = SURFACE_POINTS) -> ObjectGeometry:
        """From a loaded mesh; points are drawn evenly over its surface, the same ones each time.

        Vertices would not do: those of a box are its corners, and ADD-S over eight points says little.
        """
        arrays = model.arrays
        mesh = trimesh.Trimesh(np.asarray(arrays.vertices, np.float64), arrays.faces, process=False)
        sampled, _ = trimesh.sample.sample_surface(mesh, points, seed=0)
        group = symmetry_group(spec.discrete)
        return cls(np.asarray(sampled) + model.center, model.diameter, model.center, group, spec.continuous)

    @classmethod
    def from_points(
        cls,
        points: Array,
        diameter: float,
        discrete: Iterable[DiscreteSymmetry] = (),
        continuous: Iterable[ContinuousSymmetry] = (),
    ) -> ObjectGeometry:
        """From surface points (P, 3) in metres; the centre is that of their bounding box."""
        points = np.asarray(points, dtype=np.float64)
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        return cls(points, float(diameter), centre, symmetry_group(discrete), tuple(continuous))


def symmetry_group(discrete: Iterable[DiscreteSymmetry]) -> Array:
    """(K, 4, 4) closure of the discrete symmetries in the object frame, identity first."""
    return symmetry_transforms(tuple(discrete), (), np.zeros(3))


def _turn(axis: Sequence[float], angle: float, point: Sequence[float]) -> Array:
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_rotvec(angle * np.asarray(axis)).as_matrix()
    transform[:3, 3] = np.asarray(point) - transform[:3, :3] @ np.asarray(point)
    return transform


def closest_equivalent(T_est: Array, T_true: Array, geometry: ObjectGeometry) -> Array:
    """The symmetry-equivalent of ``T_true`` (4, 4) whose rotation is nearest to that of ``T_est``."""
    best, best_angle = T_true, np.inf
    for transform in geometry.transforms:
        candidate = _unspin(T_est, T_true @ transform, geometry.axes)
        angle = float(rotation_angle(T_est[:3, :3].T @ candidate[:3, :3]))
        if angle < best_angle:
            best, best_angle = candidate, angle
    return best


def _unspin(T_est: Array, T_true: Array, axes: tuple[ContinuousSymmetry, ...]) -> Array:
    if _is_ball(axes):
        # Two different axes of revolution generate every rotation about the point where they meet.
        point = np.append(np.asarray(axes[0].point), 1.0)
        best = T_est.copy()
        best[:3, 3] = (T_true @ point)[:3] - T_est[:3, :3] @ point[:3]
        return best
    for axis in axes[:1]:
        # trace(M R(axis, a)) = cos a (tr M - n'Mn) + sin a tr(M [n]x) + n'Mn is largest at:
        n = np.asarray(axis.axis)
        M = T_est[:3, :3].T @ T_true[:3, :3]
        cross = np.array([[0, -n[2], n[1]], [n[2], 0, -n[0]], [-n[1], n[0], 0]])
        angle = np.arctan2(np.trace(M @ cross), np.trace(M) - n @ M @ n)
        return T_true @ _turn(axis.axis, float(angle), axis.point)
    return T_true


def _is_ball(axes: tuple[ContinuousSymmetry, ...]) -> bool:
    return any(abs(float(np.dot(axes[0].axis, other.axis))) < 1 - 1e-6 for other in axes[1:])


def pose_error(T_est: Array, T_true: Array, geometry: ObjectGeometry) -> PoseError:
    """Errors of ``T_est`` (4, 4) against ``T_true`` (4, 4), both object to camera, metres."""
    true = closest_equivalent(T_est, T_true, geometry)
    centre = np.append(geometry.centre, 1.0)
    estimated_points = _apply(T_est, geometry.points)
    true_points = _apply(true, geometry.points)
    nearest, _ = cKDTree(estimated_points).query(true_points)
    adds = float(np.mean(nearest))
    add = float(np.mean(np.linalg.norm(estimated_points - true_points, axis=1)))
    return PoseError(
        translation_mm=1e3 * float(np.linalg.norm((T_est @ centre - true @ centre)[:3])),
        rotation_deg=float(np.rad2deg(rotation_angle(T_est[:3, :3].T @ true[:3, :3]))),
        add_mm=1e3 * add,
        adds_mm=1e3 * adds,
        adds_ratio=adds / geometry.diameter,
        add_ratio=add / geometry.diameter,
    )


def _apply(T: Array, points: Array) -> Array:
    return points @ T[:3, :3].T + T[:3, 3]


def centre_distances(found: Sequence[Array], true: Sequence[Array], geometry: ObjectGeometry) -> Array:
    """(N, M) metres between the model centres of poses (4, 4) of one object."""
    centre = np.append(geometry.centre, 1.0)
    a = np.reshape([(T @ centre)[:3] for T in found], (-1, 1, 3))
    b = np.reshape([(T @ centre)[:3] for T in true], (1, -1, 3))
    return np.asarray(np.linalg.norm(a - b, axis=2))


def recall(errors: Sequence[PoseError | None], threshold: float = ADDS_THRESHOLD) -> float:
    """Share of poses with ADD-S below ``threshold`` diameters. None stands for a missing pose: a failure.

    NaN when there is nothing to judge.
    """
    if not errors:
        return float("nan")
    return float(np.mean([e is not None and e.adds_ratio < threshold for e in errors]))


def percentiles(values: Iterable[float], names: Sequence[str] = ("p50", "p95")) -> dict[str, float | None]:
    """``{"p50": ..., "p95": ...}`` (also "max"); None, JSON's null, when there are no values."""
    array = np.asarray(list(values), dtype=np.float64)
    if not len(array):
        return dict.fromkeys(names)
    return {name: float(array.max() if name == "max" else np.percentile(array, float(name[1:]))) for name in names}


def summarize(errors: Sequence[PoseError | None]) -> dict[str, object]:
    """The accuracy part of result.json. Percentiles are over the poses that exist; recall counts missing ones."""
    found = [e for e in errors if e is not None]
    return {
        "translation_error_mm": percentiles(e.translation_mm for e in found),
        "rotation_error_deg": percentiles(e.rotation_deg for e in found),
        "add_mm": percentiles(e.add_mm for e in found),
        "adds_mm": percentiles(e.adds_mm for e in found),
        "adds_recall_0.1d": None if not errors else recall(errors),
    }
