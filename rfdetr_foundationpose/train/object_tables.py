"""What scenes need to know of objects, as tensors on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..pose.half_turns import principal_axes
from ..pose.mesh import ObjectModel

SURFACE_POINTS = 96
TEXELS = 4096
"""A texture's mean colour is that of so many texels, more or less, all over it."""


class ObjectTables:
    """Per object: diameter, symmetries, principal axes (n, 3, 3) and centroid (n, 3) of its surface, points (n, P, 3), mean colour."""

    def __init__(self, objects: Sequence[ObjectModel], device: torch.device, seed: int) -> None:
        self.diameter = torch.tensor([o.diameter for o in objects], dtype=torch.float32, device=device)
        most = max(len(o.symmetries) for o in objects)
        symmetries = np.stack([o.symmetries[np.arange(most) % len(o.symmetries)] for o in objects])
        self.symmetries = torch.tensor(symmetries, dtype=torch.float32, device=device)
        principal = [principal_axes(o.arrays.vertices, o.arrays.faces) for o in objects]
        self.axes, self.centroid = (
            torch.tensor(np.stack(values), dtype=torch.float32, device=device)
            for values in zip(*principal, strict=True)
        )
        rng = np.random.default_rng(seed)
        points = [_surface_points(o, rng) for o in objects]
        self.points = torch.tensor(np.stack(points), dtype=torch.float32, device=device)
        self.color = torch.tensor(np.stack([_mean_color(o) for o in objects]), dtype=torch.float32, device=device)


def _surface_points(item: ObjectModel, rng: np.random.Generator) -> np.ndarray:
    """Half of them the farthest in many directions, so that what touches them touches the object."""
    vertices = item.arrays.vertices
    directions = rng.normal(size=(SURFACE_POINTS // 2, 3)).astype(np.float32)
    far = (vertices @ directions.T).argmax(0)
    return vertices[np.concatenate([far, rng.integers(len(vertices), size=SURFACE_POINTS - len(far))])]


def _mean_color(item: ObjectModel) -> np.ndarray:
    a = item.arrays
    if a.texture is not None:
        texels = a.texture.reshape(-1, 3)
        # An odd step does not fall into the columns of textures whose sizes are powers of two.
        texels = texels[:: len(texels) // TEXELS | 1]
        return texels[texels.any(1)].mean(0) / 255 if texels.any() else np.zeros(3)
    return a.colors.mean(0)
