"""Half turns of an object after which it looks the same but for its texture, or nearly so: the mistakes that refinement falls into."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAME_MOMENT = 0.04
"""Principal moments that differ by less than this share of the largest are equal: any axes between theirs are principal."""


def half_turns(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """(3, 4, 4) half turns about the principal axes of a mesh's surface, in the mesh's frame. vertices: (V, 3); faces: (F, 3)."""
    axes, centroid = principal_axes(vertices, faces)
    turns = np.tile(np.eye(4), (3, 1, 1))
    for turn, axis in zip(turns, axes, strict=True):
        turn[:3, :3] = 2 * np.outer(axis, axis) - np.eye(3)
        turn[:3, 3] = centroid - turn[:3, :3] @ centroid
    return turns


def principal_axes(
    vertices: NDArray[np.floating], faces: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal axes of a mesh's surface, (3, 3) unit vectors in rows, and its centroid (3,). vertices: (V, 3); faces: (F, 3).

    A body that half a turn brings onto itself turns about one of them through the centroid, however its mesh lies in its frame.
    Where moments are equal, as of a can or a cube, the axes are those nearest to the mesh's own.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    total = area.sum()
    if not total > 0:
        return np.eye(3), np.zeros(3)
    centroid = area @ corners.mean(1) / total
    corners = corners - centroid
    summed = corners.sum(1)
    # The second moment of a triangle, exactly.
    second = np.einsum("f,fki,fkj->ij", area, corners, corners) + np.einsum("f,fi,fj->ij", area, summed, summed)
    return _settled(*np.linalg.eigh(second / (12 * total))), centroid


def _settled(moments: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The columns of ``axes``, in rows; where equal moments leave a choice, those nearest to the mesh's axes."""
    settled = []
    start = 0
    for end in range(1, 4):
        if end < 3 and moments[end] - moments[end - 1] < SAME_MOMENT * moments[-1]:
            continue
        space = axes[:, start:end]
        if end - start == 1:
            settled.append(space[:, 0])
        else:
            reach = np.linalg.norm(space, axis=1)  # of each mesh axis into this space
            chosen: list[NDArray[np.float64]] = []
            for k in np.argsort(-reach, kind="stable")[: end - start]:
                axis = space @ space[k]
                axis = axis - sum((c * (c @ axis) for c in chosen), np.zeros(3))
                chosen.append(axis / np.linalg.norm(axis))
            settled += chosen
        start = end
    return np.stack(settled)
