"""Parametric solids with texture coordinates: the geometry that procedural objects are composed of.

A solid is a list of closed-together ``Surface`` patches (outward winding). Patches do not share vertices, so edges
between them are shaded sharp, while each patch is shaded smooth. ``uv`` is (0, 0) at the top left of the patch's
texture region; ``region`` numbers the regions of a solid, 0 being the most visible one (a can's label).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """vertices (V, 3) float64, faces (F, 3) int64, uv (V, 2) float64 in [0, 1]."""

    vertices: Array
    faces: NDArray[np.int64]
    uv: Array
    region: int = 0


Solid = list[Surface]


def grid(points: Array, region: int = 0, uv: Array | None = None) -> Surface:
    """A smooth patch through (R, C, 3) points; rows run down and columns right on the texture.

    Seen from outside, rows down and columns right must form a right-handed pair with the outward normal pointing
    to the viewer, i.e. d(col) x d(-row) points outward. Degenerate triangles (poles) are left out.
    """
    rows, cols = points.shape[:2]
    if uv is None:
        v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, cols), indexing="ij")
        uv = np.stack([u, v], axis=-1)
    index = np.arange(rows * cols).reshape(rows, cols)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], axis=2).reshape(-1, 3)
    vertices = points.reshape(-1, 3)
    p = vertices[faces]
    area = np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1)
    keep = area > 1e-9 * max(float(np.ptp(vertices, axis=0).max()), 1e-9) ** 2
    return Surface(vertices, faces[keep], uv.reshape(-1, 2), region)


def signed_volume(solid: Sequence[Surface]) -> float:
    """Volume enclosed, positive when the winding is outward."""
    total = 0.0
    for s in solid:
        p = s.vertices[s.faces]
        total += float(np.einsum("ij,ij->i", p[:, 0], np.cross(p[:, 1], p[:, 2])).sum()) / 6
    return total


def outward(solid: Solid) -> Solid:
    """The solid with the winding of every patch reversed if it encloses a negative volume."""
    if signed_volume(solid) >= 0:
        return solid
    return [replace(s, faces=np.ascontiguousarray(s.faces[:, ::-1])) for s in solid]


def transform(solid: Solid, rotation: Array | None = None, translation: Sequence[float] | Array = (0, 0, 0)) -> Solid:
    """Rotated by (3, 3), then moved."""
    matrix = np.eye(3) if rotation is None else rotation
    return [replace(s, vertices=s.vertices @ matrix.T + np.asarray(translation)) for s in solid]


def shift_regions(solid: Solid, offset: int) -> Solid:
    """The solid with its texture regions renumbered from ``offset``."""
    return [replace(s, region=s.region + offset) for s in solid]


def box(size: Sequence[float] | Array, divisions: int = 7) -> Solid:
    """An axis-aligned box about the origin; region i is face i of +x, -x, +y, -y, +z, -z. z is up on side faces."""
    half = np.asarray(size, dtype=np.float64) / 2
    t = np.linspace(-1, 1, divisions + 1)
    down, right = np.meshgrid(-t, t, indexing="ij")
    one = np.ones_like(down)
    faces = [
        (one, right, down),
        (-one, -right, down),
        (-right, one, down),
        (right, -one, down),
        (right, down, one),
        (right, -down, -one),
    ]
    return [grid(np.stack(f, axis=-1) * half, region) for region, f in enumerate(faces)]


def lathe(profile: Array, segments: int = 32, crease_deg: float = 35.0) -> Solid:
    """A solid of revolution about z from a (P, 2) profile of (radius, z), from the top axis point round to the bottom.

    The profile is split where it turns by more than ``crease_deg``. Region 0 is the largest side run, the others are
    numbered in order; flat runs get planar texture coordinates.
    """
    profile = np.asarray(profile, dtype=np.float64)
    step = np.diff(profile, axis=0)
    profile = profile[np.concatenate([[True], np.linalg.norm(step, axis=1) > 1e-9])]
    step = np.diff(profile, axis=0)
    angle = np.degrees(np.abs(np.diff(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))))
    cuts = [0, *(np.flatnonzero(angle > crease_deg) + 1).tolist(), len(profile) - 1]
    # Right on the texture is counter-clockwise seen from above, which is left to right seen from outside.
    phi = np.linspace(0, 2 * np.pi, segments + 1)
    phi[-1] = 0.0
    runs = []
    for start, end in pairwise(cuts):
        run = profile[start : end + 1]
        length = np.linalg.norm(np.diff(run, axis=0), axis=1)
        flat = np.abs(np.diff(run[:, 1])).sum() < 0.3 * length.sum()
        area = float((length * (run[1:, 0] + run[:-1, 0])).sum()) * (0.2 if flat else 1.0)
        runs.append((area, flat, run, length))
    order = sorted(range(len(runs)), key=lambda i: -runs[i][0])
    solid = []
    for i, (_, flat, run, length) in enumerate(runs):
        r, z = run[:, :1], run[:, 1:]
        points = np.stack(np.broadcast_arrays(r * np.cos(phi), r * np.sin(phi), z), axis=-1)
        if flat:
            uv = 0.5 + 0.5 * points[..., :2] * (1, -1) / max(float(r.max()), 1e-9)
        else:
            v = np.concatenate([[0.0], np.cumsum(length)]) / length.sum()
            v, u = np.meshgrid(v, np.linspace(0, 1, segments + 1), indexing="ij")
            uv = np.stack([u, v], axis=-1)
        solid.append(grid(points, order.index(i), uv))
    return outward(solid)


def superquadric(size: Sequence[float] | Array, e1: float, e2: float, rows: int = 20, cols: int = 36) -> Solid:
    """|x|^(2/e2) + |y|^(2/e2))^(e2/e1) + |z|^(2/e1) = 1, scaled to ``size`` (full extents)."""

    def power(a: Array, e: float) -> Array:
        return np.sign(a) * np.abs(a) ** e

    eta = np.linspace(np.pi / 2, -np.pi / 2, rows + 1)[:, None]
    # An exact multiple of four columns puts vertices on the symmetry planes.
    omega = np.linspace(0, 2 * np.pi, cols + 1)[None, :]
    cos_o, sin_o = np.cos(omega), np.sin(omega)
    cos_o[:, -1], sin_o[:, -1] = cos_o[:, 0], sin_o[:, 0]
    cos_e = np.cos(eta)
    cos_e[[0, -1]] = 0.0
    x = power(cos_e, e1) * power(cos_o, e2)
    y = power(cos_e, e1) * power(sin_o, e2)
    z = power(np.sin(eta), e1) * np.ones_like(x)
    return outward([grid(np.stack([x, y, z], axis=-1) * (np.asarray(size) / 2))])


def tube(path: ArrayLike, radius: ArrayLike, sides: int = 12, aspect: float = 1.0) -> Solid:
    """A capped tube along a (P, 3) path; radius scalar or (P,), ``aspect`` flattens its section. Regions: side, ends."""
    centres = np.asarray(path, dtype=np.float64)
    count = len(centres)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (count,))
    tangent = np.gradient(centres, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.cross(tangent[0], np.eye(3)[np.argmin(np.abs(tangent[0]))])
    ring = []
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    angle[-1] = 0.0
    for i in range(count):
        normal = normal - tangent[i] * (normal @ tangent[i])
        normal /= np.linalg.norm(normal)
        binormal = np.cross(tangent[i], normal)
        circle = np.cos(angle)[:, None] * normal * aspect + np.sin(angle)[:, None] * binormal
        ring.append(centres[i] + radii[i] * circle)
    rings = np.stack(ring)
    solid = [grid(rings)]
    disc = 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    uv = np.stack([np.full_like(disc, 0.5), disc])
    solid.append(grid(np.stack([np.broadcast_to(centres[0], rings[0].shape), rings[0]]), 1, uv))
    solid.append(grid(np.stack([rings[-1], np.broadcast_to(centres[-1], rings[0].shape)]), 1, uv[::-1]))
    return outward(solid)


def extrude(polygon: Array, height: float, layers: int = 4) -> Solid:
    """A simple (N, 2) polygon extruded along z about 0. Regions: 0 top cap, 1 bottom cap, 2 the sides together."""
    polygon = np.asarray(polygon, dtype=np.float64)
    x, y = polygon.T
    if float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) < 0:
        polygon = polygon[::-1]
    triangles = _ear_clip(polygon)
    low, span = polygon.min(axis=0), np.maximum(np.ptp(polygon, axis=0), 1e-9)
    uv = (polygon - low) / span
    uv = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=-1)
    top = np.column_stack([polygon, np.full(len(polygon), height / 2)])
    bottom = top * (1, 1, -1)
    solid = [
        Surface(top, triangles, uv, 0),
        Surface(bottom, np.ascontiguousarray(triangles[:, ::-1]), uv * (-1, 1) + (1, 0), 1),
    ]
    closed = np.vstack([polygon, polygon[:1]])
    edge = np.diff(closed, axis=0)
    length = np.linalg.norm(edge, axis=1)
    along = np.concatenate([[0.0], np.cumsum(length)]) / length.sum()
    turn = np.degrees(np.abs(np.angle(np.exp(1j * np.diff(np.arctan2(edge[:, 1], edge[:, 0]))))))
    cuts = [0, *(np.flatnonzero(turn > 30.0) + 1).tolist(), len(polygon)]
    z = np.linspace(height / 2, -height / 2, layers + 1)
    for start, end in pairwise(cuts):
        run = closed[start : end + 1]
        points = np.zeros((layers + 1, len(run), 3))
        points[..., :2], points[..., 2] = run, z[:, None]
        v, u = np.meshgrid(np.linspace(0, 1, layers + 1), along[start : end + 1], indexing="ij")
        solid.append(grid(points, 2, np.stack([u, v], axis=-1)))
    return solid


def _ear_clip(polygon: Array) -> NDArray[np.int64]:
    """Triangles of a simple counter-clockwise polygon, (N - 2, 3) at most."""
    left = list(range(len(polygon)))
    triangles = []
    while len(left) > 3:
        count = len(left)
        points = polygon[left]
        before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
        cross = _cross(points - before, after - points)
        # Try the bluntest thin ears last, so triangles stay well shaped.
        for i in np.argsort(np.linalg.norm(after - before, axis=1)):
            if cross[i] <= 1e-15:
                continue
            others = np.delete(points, [(i - 1) % count, i, (i + 1) % count], axis=0)
            a, b, c = before[i], points[i], after[i]
            inside = (
                (_cross(b - a, others - a) >= 0) & (_cross(c - b, others - b) >= 0) & (_cross(a - c, others - c) >= 0)
            )
            if not inside.any():
                break
        else:
            i = int(np.argmin(np.abs(cross)))  # only collinear corners are left: drop the flattest
            del left[i]
            continue
        triangles.append((left[(i - 1) % count], left[i], left[(i + 1) % count]))
        del left[i]
    triangles.append((left[0], left[1], left[2]))
    return np.asarray(triangles, dtype=np.int64)


def _cross(a: Array, b: Array) -> Array:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def subdivide(solid: Solid, longest: float, levels: int = 3) -> Solid:
    """Triangles of each patch split in four until no edge is longer than ``longest`` (so that caps can be bent)."""
    out = []
    for s in solid:
        vertices, faces, uv = s.vertices, s.faces, s.uv
        for _ in range(levels):
            p = vertices[faces]
            edges = np.linalg.norm(p - np.roll(p, -1, axis=1), axis=2)
            if float(edges.max()) <= longest or len(faces) > 500:
                break
            pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
            unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
            middle = inverse.reshape(3, -1).T + len(vertices)
            vertices = np.concatenate([vertices, vertices[unique].mean(axis=1)])
            uv = np.concatenate([uv, uv[unique].mean(axis=1)])
            a, b, c = faces.T
            ab, bc, ca = middle.T
            faces = np.concatenate([np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
        out.append(Surface(vertices, faces, uv, s.region))
    return out
