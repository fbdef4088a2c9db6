"""Symmetries of a mesh, found from its shape and its colours.

The surface is sampled and turned about candidate axes through its centroid; where the turned samples lie on the surface and
have its colours, the object looks the same. Axes come from the inertia of the surface, its largest flat faces and the
coordinate axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..objects import ContinuousSymmetry, DiscreteSymmetry
from ..pose.mesh import ObjectModel
from .mesh_check import triangle_areas

SAMPLES, ASKED = 30_000, 3000
SHAPE_TOLERANCE = 0.006
"""95 % of the turned samples may lie off the surface by this share of the diameter, besides their own spacing."""
COLOUR_TOLERANCE = (0.05, 0.16)
"""What still looks the same has a mean and a 95th percentile of the colour difference, 0..1, up to these."""
FOLDS = (12, 10, 9, 8, 7, 6, 5, 4, 3, 2)
ODD_ANGLES = (17.0, 41.0, 73.0, 101.0, 137.0, 163.0)
"""No fold above shares these angles (degrees): a shape that passes all of them is one of revolution."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FoundSymmetries:
    """discrete, continuous: of shape and colours, in the frame of the mesh as loaded, metres. shape_only: sentences on those
    that the shape has and the print has not."""

    discrete: tuple[DiscreteSymmetry, ...]
    continuous: tuple[ContinuousSymmetry, ...]
    shape_only: tuple[str, ...]


@dataclass(frozen=True)
class _Surface:
    """points: (N, 3) about the model centre. colours: (N, 3), smoothed over the samples' spacing. spacing: m."""

    points: Array
    colours: Array
    spacing: float
    diameter: float
    tree: cKDTree


def find_symmetries(model: ObjectModel, seed: int = 0) -> FoundSymmetries:
    """Deterministic in ``seed``. Takes a few seconds."""
    surface = _sample(model, np.random.default_rng(seed))
    centroid, axes = _axes(model)
    both: list[tuple[Array, int]] = []
    shape: list[tuple[Array, int]] = []
    while axes:
        axis = axes.pop(0)
        shape_fold, fold = _fold(surface, centroid, axis)
        shape += [(axis, shape_fold)] if shape_fold != 1 else []
        both += [(axis, fold)] if fold != 1 else []
        if shape_fold == 0:
            # About all axes across it the same is found: one will do.
            across = [a for a in axes if abs(a @ axis) < 0.02]
            axes = [a for a in axes if abs(a @ axis) >= 0.02] + across[:1]
    point = _rounded(model.center + centroid, 1e-5)
    discrete, continuous = _generators(both, point)
    shape_discrete, shape_continuous = _generators(shape, point)
    declared = {(s.axis, s.fold) for s in discrete} | {(s.axis, 0) for s in continuous}
    of_shape = [(s.axis, 0) for s in shape_continuous] + [(s.axis, s.fold) for s in shape_discrete]
    sentences = tuple(
        f"{_describe(fold)} about ({', '.join(f'{v:.2g}' for v in axis)}) leave its shape as it is, but not its colours"
        for axis, fold in of_shape
        if (axis, fold) not in declared
    )
    return FoundSymmetries(tuple(discrete), tuple(continuous), sentences)


def _generators(
    found: list[tuple[Array, int]], point: tuple[float, float, float]
) -> tuple[list[DiscreteSymmetry], list[ContinuousSymmetry]]:
    """The one or two turns that give all the found ones (axis, fold or 0 for any), at exact angles to each other.

    Axes are found to a fraction of a degree; turns about axes that are not exactly where a solid's are would never close.
    """
    any_turn = [axis for axis, fold in found if fold == 0]
    if len(any_turn) > 1:  # a ball
        first = _snap(any_turn[0])
        return [], [ContinuousSymmetry(_tuple(a), point) for a in (first, _across(any_turn[1], first))]
    folds = sorted((i for i in found if i[1] > 1), key=lambda i: -i[1])
    main = any_turn[0] if any_turn else folds[0][0] if folds else None
    if main is None:
        return [], []
    main = _snap(main)
    # Beside the main axis a solid that people handle has half turns across it (prisms) or, as a cube, an equal axis there.
    across = [(_across(axis, main), fold) for axis, fold in folds if abs(axis @ main) < np.sin(np.deg2rad(3))]
    second = [DiscreteSymmetry(_tuple(across[0][0]), across[0][1] if not any_turn else 2, point)] if across else []
    if any_turn:
        return second, [ContinuousSymmetry(_tuple(main), point)]
    return [DiscreteSymmetry(_tuple(main), folds[0][1], point), *second], []


def _across(axis: Array, main: Array) -> Array:
    """The unit vector nearest to ``axis`` that is perpendicular to ``main``."""
    flat = axis - (axis @ main) * main
    return _snap(flat / np.linalg.norm(flat))


def _describe(fold: int) -> str:
    return "any turns" if fold == 0 else f"turns of {360 / fold:.4g}°"


def _fold(surface: _Surface, centroid: Array, axis: Array) -> tuple[int, int]:
    """Fold of the shape and of shape and colour together about an axis: 0 for any turn, 1 for none."""
    odd = [_same(surface, centroid, axis, angle) for angle in ODD_ANGLES]
    if all(shape for shape, _ in odd):
        if all(colour for _, colour in odd):
            return 0, 0
        return 0, next((k for k in FOLDS if _same(surface, centroid, axis, 360 / k)[1]), 1)
    shape_fold = colour_fold = 1
    for k in FOLDS:
        shape, colour = _same(surface, centroid, axis, 360 / k)
        if shape and shape_fold == 1:
            shape_fold = k
        if shape and colour:
            colour_fold = k
            break
    return shape_fold, colour_fold


def _same(surface: _Surface, centroid: Array, axis: Array, angle: float) -> tuple[bool, bool]:
    """Whether shape, and shape and colours, are the same after a turn by ``angle`` degrees."""
    turn = Rotation.from_rotvec(np.deg2rad(angle) * axis)
    step = max(len(surface.points) // ASKED, 1)
    moved = turn.apply(surface.points[::step] - centroid) + centroid
    distance, nearest = surface.tree.query(moved)
    off = np.quantile(distance, [0.95, 0.995])
    limit = 1.5 * surface.spacing + SHAPE_TOLERANCE * surface.diameter
    if off[0] > limit or off[1] > 2 * limit:
        return False, False
    difference = np.abs(surface.colours[::step] - surface.colours[nearest]).mean(1)
    mean, p95 = COLOUR_TOLERANCE
    return True, bool(difference.mean() <= mean and np.quantile(difference, 0.95) <= p95)


def _sample(model: ObjectModel, rng: np.random.Generator) -> _Surface:
    arrays = model.arrays
    vertices, faces = arrays.vertices.astype(np.float64), arrays.faces
    area = triangle_areas(vertices, faces)
    chosen = rng.choice(len(faces), SAMPLES, p=area / area.sum())
    r = np.sqrt(rng.random(SAMPLES))
    s = rng.random(SAMPLES)
    weights = np.stack([1 - r, r * (1 - s), r * s], 1)
    points = np.einsum("nk,nkd->nd", weights, vertices[faces[chosen]])
    colours = _colours(model, chosen, weights, faces)
    tree = cKDTree(points)
    # A print is compared at the detail at which samples lie: as the mean of the nearest ones.
    _, near = tree.query(points, k=8)
    return _Surface(points, colours[near].mean(1), float(np.sqrt(area.sum() / SAMPLES)), model.diameter, tree)


def _colours(model: ObjectModel, chosen: NDArray[np.int64], weights: Array, faces: NDArray[np.integer]) -> Array:
    arrays = model.arrays
    if arrays.texture is None or arrays.uv is None:
        return np.einsum("nk,nkd->nd", weights, arrays.colors[faces[chosen]].astype(np.float64))
    height, width = arrays.texture.shape[:2]
    uv = np.einsum("nk,nkd->nd", weights, arrays.uv[chosen].astype(np.float64)) % 1.0
    x = np.minimum((uv[:, 0] * width).astype(int), width - 1)
    y = np.minimum(((1 - uv[:, 1]) * height).astype(int), height - 1)
    return np.asarray(arrays.texture[y, x], np.float64) / 255


def _axes(model: ObjectModel) -> tuple[Array, list[Array]]:
    """Centroid of the surface (about the model centre) and unit candidate axes, no two alike."""
    vertices, faces = model.arrays.vertices.astype(np.float64), model.arrays.faces
    corners = vertices[faces]
    area = triangle_areas(vertices, faces)
    total = area.sum()
    centroid = np.einsum("f,fd->d", area, corners.mean(1)) / total
    local = corners - centroid
    middle = local.sum(1)
    # Exact second moment of triangles about the centroid.
    second = np.einsum("f,fki,fkj->ij", area, local, local) + np.einsum("f,fi,fj->ij", area, middle, middle)
    _, inertia = np.linalg.eigh(second / 12)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    flat = list(_largest_directions(normals, area))
    pairs = [a + s * b for i, a in enumerate(flat) for b in flat[:i] for s in (1, -1)]
    triples = [
        a + s * b + t * c
        for i, a in enumerate(flat[:6])
        for j, b in enumerate(flat[:i])
        for c in flat[:j]
        for s in (1, -1)
        for t in (1, -1)
    ]
    candidates = [*np.eye(3), *inertia.T, *flat, *pairs, *triples]
    kept: list[Array] = []
    for axis in candidates:
        norm = np.linalg.norm(axis)
        if norm < 0.1:
            continue
        axis = axis / norm
        if not any(abs(axis @ other) > np.cos(np.deg2rad(1.0)) for other in kept):
            kept.append(axis)
    return centroid, kept


def _largest_directions(normals: Array, area: Array, most: int = 6) -> Iterator[Array]:
    """Mean normals of the largest groups of triangles that face one way (or its opposite)."""
    left = area.copy()
    for _ in range(most):
        first = int(left.argmax())
        group = np.abs(normals @ normals[first]) > np.cos(np.deg2rad(3))
        share = left[group].sum() / area.sum()
        if share < 0.03:
            return
        signed = normals[group] * np.sign(normals[group] @ normals[first])[:, None]
        direction = (signed * area[group, None]).sum(0)
        yield direction / np.linalg.norm(direction)
        left[group] = 0


def _snap(axis: Array) -> Array:
    """Exactly a coordinate axis where it is one but for a degree; the larger part positive."""
    axis = axis * np.sign(axis[np.abs(axis).argmax()])
    for one in np.eye(3):
        if axis @ one > np.cos(np.deg2rad(1.0)):
            return one
    return axis


def _tuple(axis: Array) -> tuple[float, float, float]:
    x, y, z = (round(float(v), 9) + 0.0 for v in axis)
    return (x, y, z)


def _rounded(point: Array, step: float) -> tuple[float, float, float]:
    x, y, z = (round(float(v) / step) * step for v in point)
    return (round(x, 6) + 0.0, round(y, 6) + 0.0, round(z, 6) + 0.0)
