"""The light that shaded an object while it was recorded, so that its mesh gets the colours of its print alone.

A renderer shows a mesh's colours as they are, and the networks were trained on meshes whose colours hold no light: a side that was
in the shade would stay dark wherever it is seen later. Light falls off smoothly with the direction that a surface faces, as
spherical harmonics of order two describe it (Ramamoorthi and Hanrahan, "An efficient representation for irradiance environment
maps", 2001); prints change in steps. So near points of one hue are compared, and steps are left out as outliers, as Retinex
does (Land and McCann 1971).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

PAPER = 237.0
"""Colour of white paper, of 255: what a board's white is brought to."""
REACH = (0.003, 0.03)
"""m between the points of a pair."""
PAIRS = 40_000
LIKE = 0.05
"""Chromaticities of a pair differ by no more than that, the sum over the channels."""
TURN = 0.1
"""rad: normals of a pair differ by more, or they say nothing."""
STEP = 0.12
"""Differences of log brightness that light does not explain are steps of the print from about so much on."""
STRONGEST = 3.0
"""No side is taken to be lit so many times as strongly as the board."""
DARK = 18.0
"""Points darker than that, of 255, say nothing: their noise is as large as their light."""
LEAST_PAIRS = 500

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Light:
    """coefficients: (8,) of the log of the light by normal, beside that on the board. R_light_volume: (3, 3) into the frame in
    which it shone, z up from the board."""

    coefficients: Array
    R_light_volume: Array

    def strength(self, normals: Array) -> Array:
        """(N,) light on surfaces with these normals (N, 3), of that on the board."""
        up = _harmonics(np.array([[0.0, 0.0, 1.0]]))
        log = (_harmonics(normals @ self.R_light_volume.T) - up) @ self.coefficients
        return np.asarray(np.exp(np.clip(log, -np.log(STRONGEST), np.log(STRONGEST))))

    def seen_from(self, R_volume_light: Array) -> Light:
        """The light for surfaces in another frame: (3, 3) that frame <- this one."""
        return Light(self.coefficients, self.R_light_volume @ R_volume_light.T)


def fit_light(points: Array, normals: Array, colours: Array, seen: NDArray[np.bool_]) -> Light:
    """points (N, 3) m, normals (N, 3) and colours (N, 3), 0 to 255, of a surface on the board; seen: (N,) those to look at.

    Light from all sides alike where too few points tell.
    """
    brightness = colours.mean(1)
    chosen = np.flatnonzero(seen & (brightness > DARK) & (colours.max(1) < 250))
    none = Light(np.zeros(8), np.eye(3))
    if len(chosen) < 100:
        return none
    points, normals, colours, brightness = points[chosen], normals[chosen], colours[chosen], brightness[chosen]
    rng = np.random.default_rng(0)
    first = rng.integers(len(points), size=PAIRS)
    away = rng.normal(size=(PAIRS, 3))
    away *= rng.uniform(*REACH, (PAIRS, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    second = np.asarray(cKDTree(points).query(points[first] + away)[1])
    chroma = colours / (colours.sum(1, keepdims=True) + 25)
    like = np.abs(chroma[first] - chroma[second]).sum(1) < LIKE
    like &= (normals[first] * normals[second]).sum(1) < np.cos(TURN)
    first, second = first[like], second[like]
    if len(first) < LEAST_PAIRS:
        return none
    change = np.log(brightness[first]) - np.log(brightness[second])
    turns = _harmonics(normals[first]) - _harmonics(normals[second])
    found = np.zeros(8)
    hold = 2e-4 * len(first) * np.eye(8)
    for width in (4 * STEP,) * 8 + (2 * STEP,) * 8 + (STEP,) * 14:
        weight = 1 / (1 + ((change - turns @ found) / width) ** 2) ** 2
        found = np.linalg.solve((turns * weight[:, None]).T @ turns + hold, turns.T @ (weight * change))
    return Light(found, np.eye(3))


def _harmonics(normals: Array) -> Array:
    """(N, 8) real spherical harmonics of orders one and two, not normalized."""
    x, y, z = normals.T
    return np.stack([x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], 1)
