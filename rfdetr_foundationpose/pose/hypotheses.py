"""Initial rotations around the view sphere, thinned by the object's symmetries, and the initial translation."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from torch import Tensor

from .symmetry import rotation_angle

VIEWS, IN_PLANE_STEPS = 42, 6
MOST_HYPOTHESES = VIEWS * IN_PLANE_STEPS
"""Of an object without symmetries."""
MERGE_ANGLE = np.deg2rad(30.0)


def view_rotations() -> NDArray[np.float64]:
    """(252, 3, 3) object-to-camera rotations: 42 icosphere views times 6 turns in the image plane."""
    directions = np.asarray(trimesh.creation.icosphere(subdivisions=1).vertices, np.float64)
    rotations = []
    for direction in directions:
        z = -direction / np.linalg.norm(direction)
        x = np.cross([0.0, 0.0, 1.0], z)
        x = np.array([1.0, 0.0, 0.0]) if np.linalg.norm(x) < 1e-9 else x / np.linalg.norm(x)
        R_obj_cam = np.stack([x, np.cross(z, x), z], axis=1)
        for turn in range(IN_PLANE_STEPS):
            a = turn * 2 * np.pi / IN_PLANE_STEPS
            in_plane = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
            rotations.append((R_obj_cam @ in_plane).T)
    return np.stack(rotations)


def hypothesis_rotations(symmetries: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3): the 252 views less those that a symmetry (K, 4, 4) brings within 30 degrees of one already kept."""
    rotations = view_rotations()
    if len(symmetries) == 1:
        return rotations
    kept: list[NDArray[np.float64]] = []
    for R in rotations:
        looks = R @ symmetries[:, :3, :3]
        if kept:
            relative = np.einsum("kij,nil->knjl", looks, np.stack(kept))
            if (rotation_angle(relative) < MERGE_ANGLE).any():
                continue
        kept.append(R)
    return np.stack(kept)


def bounding_box(mask: Tensor) -> tuple[slice, slice]:
    """Rows and columns that a mask (H, W) bool on the CPU has pixels in; of no length where it has none."""
    found = [np.nonzero(mask.any(axis).numpy())[0] for axis in (1, 0)]
    rows, columns = (slice(int(f[0]), int(f[-1]) + 1) if len(f) else slice(0, 0) for f in found)
    return rows, columns


def guess_translation(
    depth: Tensor, mask: Tensor, K: Tensor, reach: Tensor, box: tuple[slice, slice] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Centre of the mask's bounding box at the mask's median depth, as in the official code; where that lies farther behind
    the nearer quarter of the mask's depth than ``reach``, at the median of the depth within 1.5 times ``reach`` of that quarter.

    A small or thin object's mask, a few pixels too large, shows more of the background than of the object.
    depth: (H, W) float32 m, 0 where invalid. mask: (H, W) bool. K: (3, 3). reach: (1,) m, the most by which the median
    depth of an object lies behind its nearer quarter; infinite to take the mask's median in any case. box: rows and columns
    outside of which the mask is empty, so that fewer pixels are sorted; None for all.
    Returns translation (3,) m, mask pixels (), valid depth pixels in the mask (), all on the device, with no sync.
    """
    h, w = depth.shape
    rows = torch.arange(h, device=depth.device)
    columns = torch.arange(w, device=depth.device)
    in_rows, in_columns = mask.any(1), mask.any(0)
    big = h + w
    v = (torch.where(in_rows, rows, big).min() + torch.where(in_rows, rows, -1).max()) / 2
    u = (torch.where(in_columns, columns, big).min() + torch.where(in_columns, columns, -1).max()) / 2
    valid = mask & (depth >= 0.001)
    count = valid.sum()
    measured = torch.where(valid, depth, torch.inf)
    if box is not None and mask[box].numel():
        measured = measured[box]
    ordered = measured.flatten().sort().values
    z = _middle(ordered, torch.zeros_like(count), count)
    # By an index of one dimension: one of none would be read on the host.
    nearer = ordered[((count - 1) // 4).clamp(min=0)[None]]
    bounds = torch.cat([nearer - 1.5 * reach, nearer + 1.5 * reach])
    start, end = torch.searchsorted(ordered, bounds).unbind()
    z = torch.where(z - nearer > reach, _middle(ordered, start, torch.minimum(end, count)), z)[0]
    t = torch.stack([(u - K[0, 2]) * z / K[0, 0], (v - K[1, 2]) * z / K[1, 1], z])
    return t, mask.sum(), count


def _middle(ordered: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Median () of ``ordered[start:end]``; all are tensors, so that nothing waits."""
    last = end - 1
    return ordered[torch.stack([(start + last) // 2, (start + last + 1) // 2]).clamp(min=0)].mean()
