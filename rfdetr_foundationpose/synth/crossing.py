"""A bar across the middle of an object, as a rod, a cable or a gripper's finger would be: the object is seen in two pieces
then, and a detector has to take them for one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from .objects import SynthObject, colored_mesh
from .shapes import box, tube
from .textures import random_palette

Array = NDArray[np.float64]

BARS = 24
NEAREST = 0.15
"""A bar is at least so far from the camera, m."""


def random_bar(rng: np.random.Generator) -> SynthObject:
    """A rod or a board along z, 1 to 5 cm thick and 30 to 80 cm long, in one colour, often grey."""
    thick, length = rng.uniform(0.01, 0.05), rng.uniform(0.3, 0.8)
    if rng.random() < 0.5:
        part = tube(np.array([[0.0, 0.0, -length / 2], [0.0, 0.0, length / 2]]), thick / 2)
    else:
        part = box((thick, thick * rng.uniform(0.3, 1.0), length))
    grey = np.full(3, rng.uniform(20, 230)) * (1 + rng.normal(0, 0.04, 3))
    color = np.clip(grey, 0, 255) if rng.random() < 0.6 else random_palette(rng, 1)[0]
    return SynthObject("bar", colored_mesh([part], [color]))


def put_across(
    rng: np.random.Generator, T: Array, mesh: NDArray[np.int64], radius: Array, eye: Array, share: float
) -> tuple[Array, NDArray[np.bool_]]:
    """Poses (N, 4, 4) world <- bar across one object of each scene, and in which scenes (N,) there is one.

    T: (N, M, 4, 4) world <- mesh about its centre. mesh: (N, M) index of each object, -1 for none. radius: of each mesh, m.
    eye: (N, 3) of the camera. share: of the scenes with objects.
    """
    count = len(mesh)
    rows = np.arange(count)
    victim = np.where(mesh >= 0, rng.random(mesh.shape), -1.0).argmax(1)
    size = radius[np.maximum(mesh[rows, victim], 0)]
    at = T[rows, victim, :3, 3]
    sight = eye - at
    distance = np.linalg.norm(sight, axis=1)
    sight /= np.maximum(distance, 1e-9)[:, None]
    gap = size * rng.uniform(0.4, 1.3, count) + 0.03
    there = (mesh[rows, victim] >= 0) & (rng.random(count) < share) & (distance - gap > NEAREST)

    # Across the line of sight at any angle, leaning a little towards the camera or away.
    along = rng.normal(size=(count, 3))
    along -= (0.8 + 0.2 * rng.random((count, 1))) * (along * sight).sum(1, keepdims=True) * sight
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    other = np.cross(along, sight)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    pose = np.tile(np.eye(4), (count, 1, 1))
    spin = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi, (count, 1))).as_matrix()
    pose[:, :3, :3] = np.stack([other, np.cross(along, other), along], -1) @ spin
    pose[:, :3, 3] = at + sight * gap[:, None] + rng.normal(0, 0.15, (count, 3)) * size[:, None]
    return pose, there
