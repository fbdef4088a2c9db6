"""Symmetry transforms of an object, and poses up to symmetry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..config import ConfigError
from ..objects import LARGEST_GROUP, ContinuousSymmetry, DiscreteSymmetry

CONTINUOUS_STEP_DEG = 5
SAME_LOOK = 0.035
"""Axes are measured or rounded: turns that differ by less (rad) are one; those of a group of LARGEST_GROUP differ by 0.052."""


def symmetry_transforms(
    discrete: Sequence[DiscreteSymmetry], continuous: Sequence[ContinuousSymmetry], center: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(K, 4, 4) transforms that leave the object's look unchanged, identity first.

    Points of the symmetries are in the mesh as loaded; the transforms are about the mesh moved by -center.
    The discrete ones are closed under composition; continuous axes are sampled every 5 degrees. Raises ConfigError for
    discrete ones that contradict each other.
    """
    group = [np.eye(4)]
    generators = [_turn(s.axis, 2 * np.pi / s.fold, s.point, center) for s in discrete if s.fold > 1]
    reach = max((float(np.linalg.norm(np.asarray(s.point) - center)) for s in discrete), default=0.0)
    frontier = list(group)
    while frontier:
        products = [g @ f for f in frontier for g in generators]
        frontier = []
        for T in products:
            if not _among(T, np.stack(group), reach):
                group.append(T)
                frontier.append(T)
        if len(group) > LARGEST_GROUP:
            raise ConfigError(
                f"symmetries_discrete {[(s.axis, s.fold, s.point) for s in discrete]} generate more than {LARGEST_GROUP} "
                "looks; their axes must meet in one point at angles that close (as those of a prism or a cube do)"
            )
    transforms = list(group)
    for s in continuous:
        turns = [_turn(s.axis, np.deg2rad(a), s.point, center) for a in range(0, 360, CONTINUOUS_STEP_DEG)]
        transforms = [turn @ T for T in transforms for turn in turns]
    return np.stack(transforms)


def _among(T: NDArray[np.float64], known: NDArray[np.float64], reach: float) -> bool:
    """Whether a transform (4, 4) is one of those known (K, 4, 4), as exactly as its axes were given; they pass the centre
    at ``reach`` (m) at most."""
    angles = rotation_angle(np.swapaxes(known[:, :3, :3], 1, 2) @ T[:3, :3])
    apart = np.linalg.norm(known[:, :3, 3] - T[:3, 3], axis=1)
    return bool(((angles < SAME_LOOK) & (apart < 1e-6 + 2 * angles * reach)).any())


def _turn(
    axis: tuple[float, float, float], angle: float, point: tuple[float, float, float], center: NDArray[np.float64]
) -> NDArray[np.float64]:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(np.asarray(axis) * angle).as_matrix()
    pivot = np.asarray(point) - center
    T[:3, 3] = pivot - T[:3, :3] @ pivot
    return T


def rotation_angle(R: NDArray[np.float64]) -> NDArray[np.float64]:
    """Geodesic angle (rad) of rotation matrices (..., 3, 3); exact for small angles too."""
    skew = np.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1)
    trace = np.trace(R, axis1=-2, axis2=-1)
    return np.arctan2(np.linalg.norm(skew, axis=-1), trace - 1)  # type: ignore[no-any-return]


def nearest_equivalent(
    T: NDArray[np.float64], reference: NDArray[np.float64], symmetries: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of the poses T @ S that look like T, the one whose rotation is nearest to the reference's.

    Keeps a symmetric object's published orientation from jumping between frames.
    """
    if len(symmetries) == 1:
        return T
    candidates = T @ symmetries
    angles = rotation_angle(np.swapaxes(candidates[:, :3, :3], 1, 2) @ reference[:3, :3])
    return candidates[int(np.argmin(angles))]  # type: ignore[no-any-return]
