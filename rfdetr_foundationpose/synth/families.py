"""Families of procedural shapes: each draws one random solid of about unit size, with its geometric symmetries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from ..objects import ContinuousSymmetry, DiscreteSymmetry
from .shapes import (
    Array,
    Solid,
    box,
    extrude,
    lathe,
    shift_regions,
    subdivide,
    superquadric,
    transform,
    tube,
)

MIN_FACES = 500
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Shape:
    """parts: solids, each with texture regions from 0. Symmetries of the geometry alone.

    turned: a solid of revolution whose region 0 wraps round the axis (a label).
    """

    parts: list[Solid]
    discrete: tuple[DiscreteSymmetry, ...] = ()
    continuous: tuple[ContinuousSymmetry, ...] = ()
    turned: bool = False


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def random_box(rng: np.random.Generator) -> Shape:
    """A carton: any aspect ratio up to 1 : 8, sometimes square."""
    size = np.array([1.0, _log(rng, 0.25, 1), _log(rng, 0.125, 1)])
    rng.shuffle(size)
    if rng.random() < 0.15:
        size[1] = size[0]
    return Shape([box(size)], _box_symmetry(size))


def _box_symmetry(size: Array) -> tuple[DiscreteSymmetry, ...]:
    folds = []
    for axis, (i, j) in zip((X, Y, Z), ((1, 2), (0, 2), (0, 1)), strict=True):
        folds.append(DiscreteSymmetry(axis, 4 if size[i] == size[j] else 2))
    return tuple(folds)


def random_plate(rng: np.random.Generator) -> Shape:
    """A thin sheet: rectangle, disc or rounded plate, thickness 1 to 4 % of its size."""
    thickness = _log(rng, 0.012, 0.05)
    kind = rng.integers(3)
    if kind == 0:
        size = np.array([1.0, rng.uniform(0.3, 0.95), thickness])
        return Shape([box(size, 8)], _box_symmetry(size))
    if kind == 1:
        profile = np.array([[0, thickness], [0.25, thickness], [0.5, thickness], [0.5, 0], [0.25, 0], [0, 0]])
        return Shape(
            [lathe(profile - [0, thickness / 2], 60)], (DiscreteSymmetry(X, 2),), (ContinuousSymmetry(Z),), turned=True
        )
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    a, b, e = 0.5, rng.uniform(0.2, 0.45), rng.uniform(0.25, 0.8)
    outline = np.stack(
        [
            a * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** e,
            b * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** e,
        ],
        axis=-1,
    )
    folds = tuple(DiscreteSymmetry(axis, 2) for axis in (X, Y, Z))
    return Shape([subdivide(extrude(outline, thickness, 2), 0.2)], folds)


def random_can(rng: np.random.Generator) -> Shape:
    """A tin or jar: cylinder with rims or a lid."""
    h, r = 1.0, rng.uniform(0.12, 0.9)
    rim = rng.uniform(0.02, 0.06)
    style = rng.integers(3)
    flips: tuple[DiscreteSymmetry, ...] = ()
    if style == 0:
        profile = [(0, h), (r, h), (r, 0.75 * h), (r, 0.5 * h), (r, 0.25 * h), (r, 0), (0, 0)]
        flips = (DiscreteSymmetry(X, 2, (0, 0, h / 2)),)
    elif style == 1:
        i, s = r * (1 - rim), rim * 0.5
        profile = [(0, h - s), (i, h - s), (i, h), (r, h), (r, h - 2 * s), (i, h - 3 * s), (i, 0.5 * h), (i, 3 * s)]
        profile += [(r, 2 * s), (r, 0), (i, 0), (i, s), (0, s)]
        flips = (DiscreteSymmetry(X, 2, (0, 0, h / 2)),)
    else:
        lid, over = rng.uniform(0.1, 0.3), r * rng.uniform(1.03, 1.15)
        profile = [
            (0, h),
            (over * 0.95, h),
            (over, h - 0.02),
            (over, h - lid),
            (r, h - lid),
            (r, 0.4 * h),
            (r, 0),
            (0, 0),
        ]
    return Shape([lathe(np.array(profile), 40)], flips, (ContinuousSymmetry(Z),), turned=True)


def random_bottle(rng: np.random.Generator) -> Shape:
    """A bottle: base, body, shoulder, neck and cap from a smooth random profile."""
    body, neck = rng.uniform(0.13, 0.35), rng.uniform(0.04, 0.1)
    shoulder, start = rng.uniform(0.5, 0.75), rng.uniform(0.8, 0.9)
    waist = body * rng.uniform(0.75, 1.0)
    z = np.array([0, 0.04, shoulder * 0.5, shoulder, start, 0.92])
    r = np.array([body * 0.92, body, waist, body, neck, neck])
    fine = np.concatenate([np.linspace(0, 0.04, 3), np.linspace(0.07, start, 14), [0.92]])
    curve = PchipInterpolator(z, r)(fine)
    cap = neck * rng.uniform(1.1, 1.5)
    profile = [(0, 1.0), (cap, 1.0), (cap, 0.92), *zip(curve[::-1], fine[::-1], strict=True), (0, 0)]
    return Shape([lathe(np.array(profile), 36)], (), (ContinuousSymmetry(Z),), turned=True)


def random_turned(rng: np.random.Generator) -> Shape:
    """Any solid of revolution: bowls, vases, knobs, funnels, wheels."""
    h = _log(rng, 0.15, 1.6)
    knots = np.linspace(0, 1, int(rng.integers(4, 7)))
    radius = rng.uniform(0.12, 0.5, len(knots))
    fine = np.linspace(0, 1, 16)
    r, z = PchipInterpolator(knots, radius)(fine), fine * h
    if rng.random() < 0.4 and h > 0.2:  # hollow: an inner wall down to a floor
        wall = float(min(radius.min() * 0.4, 0.05))
        inner = [(max(a - wall, 0.02), b) for a, b in zip(r, z, strict=True) if b > 0.12 * h]
        profile = [(0, inner[0][1]), *inner, *zip(r[::-1], z[::-1], strict=True), (0, 0)]
    else:
        profile = [(0, h), *zip(r[::-1], z[::-1], strict=True), (0, 0)]
    return Shape([lathe(np.array(profile), 36)], (), (ContinuousSymmetry(Z),), turned=True)


def mug_parts(h: float, r: float, wall: float, taper: float, handle: float, thick: float) -> list[Solid]:
    """A cup of height h and radius r with a handle in the x-z plane that reaches ``handle`` beyond the wall."""
    z = np.linspace(h, 0, 8)
    outer = [(r * (1 - taper * (1 - a / h)), a) for a in z]
    inner = [(o - wall, a) for o, a in outer if a > wall]
    profile = [(0, wall), (inner[-1][0], wall), *inner[::-1], *outer, (0, 0)]
    t = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 12)
    path = np.stack([r * (1 - taper / 2) - wall / 2 + handle * np.cos(t), 0 * t, h / 2 + 0.33 * h * np.sin(t)], axis=-1)
    return [lathe(np.array(profile), 36), tube(path, thick, 10, 0.7)]


def random_mug(rng: np.random.Generator) -> Shape:
    """A cup with one or two handles."""
    h, r = 1.0, rng.uniform(0.3, 0.6)
    parts = mug_parts(
        h, r, rng.uniform(0.03, 0.06), rng.uniform(0, 0.35), rng.uniform(0.2, 0.35), rng.uniform(0.04, 0.07)
    )
    if rng.random() < 0.2:
        parts.append(transform(parts[1], np.diag([-1.0, -1.0, 1.0])))
        return Shape(parts, (DiscreteSymmetry(Z, 2),))
    return Shape(parts)


def random_bracket(rng: np.random.Generator) -> Shape:
    """An extruded L, U, T or Z profile, sometimes with screw heads."""
    t, a, b = rng.uniform(0.06, 0.2), rng.uniform(0.4, 1.0), rng.uniform(0.4, 1.0)
    outlines = {
        "L": [(0, 0), (a, 0), (a, t), (t, t), (t, b), (0, b)],
        "U": [(0, 0), (a, 0), (a, b), (a - t, b), (a - t, t), (t, t), (t, b), (0, b)],
        "T": [
            (0, 0),
            (a, 0),
            (a, t),
            (a / 2 + t / 2, t),
            (a / 2 + t / 2, b),
            (a / 2 - t / 2, b),
            (a / 2 - t / 2, t),
            (0, t),
        ],
        "Z": [(0, 0), (a, 0), (a, b - t), (2 * a - t, b - t), (2 * a - t, b), (a - t, b), (a - t, t), (0, t)],
    }
    kind = str(rng.choice(list(outlines)))
    height = _log(rng, 0.1, 1.2)
    parts = [subdivide(extrude(np.array(outlines[kind]), height, 8), 0.3)]
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            screw = lathe(np.array([(0, 0.06), (0.03, 0.055), (0.05, 0.03), (0.05, -0.03), (0, -0.03)]), 14)
            turn = Rotation.from_euler("x", 90, degrees=True).as_matrix()
            parts.append(transform(screw, turn, (rng.uniform(0.1, a * 0.8), 0.0, rng.uniform(-0.4, 0.4) * height)))
        return Shape(parts)
    if kind in "UT":
        return Shape(parts, (DiscreteSymmetry(Y, 2, (a / 2, 0, 0)),))
    if kind == "Z":
        folds = (DiscreteSymmetry(Z, 2, (a - t / 2, b / 2, 0)),)
        return Shape(parts, folds)
    return Shape(parts, (DiscreteSymmetry((2**-0.5, 2**-0.5, 0.0), 2),) if a == b else ())


def random_superquadric(rng: np.random.Generator) -> Shape:
    """From pillow and egg to rounded box and double cone."""
    size = np.array([1.0, _log(rng, 0.3, 0.97), _log(rng, 0.15, 0.9)])
    e1, e2 = rng.uniform(0.25, 1.7, 2)
    return Shape([superquadric(size, float(e1), float(e2))], tuple(DiscreteSymmetry(a, 2) for a in (X, Y, Z)))


def random_blob(rng: np.random.Generator) -> Shape:
    """A lump: an ellipsoid pushed in and out by low waves, like fruit, stones or toys."""
    solid = superquadric(
        (1.0, rng.uniform(0.5, 1), rng.uniform(0.4, 1)), rng.uniform(0.6, 1.2), rng.uniform(0.6, 1.2), 28, 48
    )
    surface = solid[0]
    wave = rng.normal(0, 3.0, (4, 3))
    phase, amplitude = rng.uniform(0, 6.28, 4), rng.uniform(0.03, 0.12, 4)
    push = 1 + (np.sin(surface.vertices @ wave.T + phase) * amplitude).sum(axis=1)
    return Shape([[replace(surface, vertices=surface.vertices * push[:, None])]])


def random_pipe(rng: np.random.Generator) -> Shape:
    """A tube along a random curve: hooks, elbows, bananas, cables; its radius may vary."""
    knots = np.cumsum(rng.normal(0, 0.3, (int(rng.integers(3, 6)), 3)) + rng.normal(0, 0.35, 3), axis=0)
    t, fine = np.linspace(0, 1, len(knots)), np.linspace(0, 1, 40)
    path = PchipInterpolator(t, knots)(fine)
    length = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    radius = length * rng.uniform(0.025, 0.12) * (1 + rng.uniform(0, 0.4) * np.sin(np.pi * fine))
    return Shape([tube(path, radius, 16, rng.uniform(0.5, 1.0))])


def random_prism(rng: np.random.Generator) -> Shape:
    """An extruded star, gear, polygon or random outline."""
    n = int(rng.integers(3, 9))
    kind = rng.integers(3)
    points = n * (2 if kind == 0 else 1)
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    r = np.full(points, 0.5)
    if kind == 0:
        r[1::2] = 0.5 * rng.uniform(0.4, 0.85)
    elif kind == 2:
        r = rng.uniform(0.25, 0.5, points)
    height = _log(rng, 0.06, 1.5)
    outline = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=-1)
    dense = np.concatenate(
        [np.linspace(p, q, 4, endpoint=False) for p, q in zip(outline, np.roll(outline, -1, axis=0), strict=True)]
    )
    folds = (DiscreteSymmetry(Z, n), DiscreteSymmetry(X, 2)) if kind != 2 else ()
    return Shape([subdivide(extrude(dense, height, 6), 0.3)], folds)


def random_tool(rng: np.random.Generator) -> Shape:
    """A hand tool: handle and head (hammer, screwdriver, spatula, drill-like)."""
    grip = rng.uniform(0.035, 0.06)
    handle = lathe(
        np.array(
            [(0, 0.45), (grip * 0.7, 0.45), (grip, 0.3), (grip * 0.8, 0.15), (grip, 0.02), (grip * 0.8, 0), (0, 0)]
        ),
        20,
    )
    kind = rng.integers(4)
    if kind == 0:  # hammer
        shaft = lathe(np.array([(0, 1.0), (grip * 0.5, 1.0), (grip * 0.5, 0.7), (grip * 0.5, 0.4), (0, 0.4)]), 14)
        head = box((rng.uniform(0.25, 0.45), rng.uniform(0.08, 0.14), rng.uniform(0.08, 0.14)), 4)
        return Shape([handle, shaft, transform(head, None, (rng.uniform(-0.1, 0.1), 0, 0.98))])
    if kind == 1:  # screwdriver or brush
        shaft = lathe(np.array([(0, 1.0), (grip * 0.3, 0.98), (grip * 0.3, 0.7), (grip * 0.3, 0.4), (0, 0.4)]), 14)
        tip = box((grip * 1.2, grip * 0.25, 0.1), 3)
        return Shape([handle, shaft, transform(tip, None, (0, 0, 1.0))], (DiscreteSymmetry(Z, 2),))
    if kind == 2:  # spatula or trowel
        shaft = tube(np.array([(0, 0, 0.4), (0, 0, 0.55), (0, 0.03, 0.65), (0, 0.03, 0.75)]), grip * 0.4, 10)
        blade = box((rng.uniform(0.15, 0.4), 0.02, rng.uniform(0.25, 0.4)), 6)
        return Shape([handle, shaft, transform(blade, None, (0, 0.03, 0.85))])
    body = box((0.5, 0.16, 0.2), 5)  # drill
    chuck = lathe(np.array([(0, 0.2), (0.02, 0.2), (0.03, 0.08), (0.06, 0.06), (0.07, 0), (0, 0)]), 20)
    turn = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    foot = box((0.25, 0.15, 0.1), 4)
    return Shape(
        [
            handle,
            transform(body, None, (0.08, 0, 0.5)),
            transform(chuck, turn, (0.33, 0, 0.5)),
            transform(foot, None, (0.02, 0, 0)),
        ]
    )


def random_composed(rng: np.random.Generator) -> Shape:
    """Two to five primitives stuck together."""
    parts: list[Solid] = []
    corner = np.zeros(3)
    for _ in range(int(rng.integers(2, 6))):
        size = rng.uniform(0.15, 0.7, 3)
        kind = rng.integers(4)
        if kind == 0:
            solid = box(size, 5)
        elif kind == 1:
            r, h = float(size[0]) / 2, float(size[2]) / 2
            solid = lathe(
                np.array([(0, h), (r, h), (r * rng.uniform(0.3, 1), 0), (r * rng.uniform(0.5, 1), -h), (0, -h)]), 24
            )
        elif kind == 2:
            solid = superquadric(size, rng.uniform(0.3, 1.5), rng.uniform(0.3, 1.5), 12, 20)
        else:
            solid = tube(np.array([(-0.5, 0, 0), (0, 0, 0.1), (0.5, 0, 0)]) * size.max(), 0.2 * float(size.min()), 12)
        turn = Rotation.from_quat(rng.normal(size=4)).as_matrix() if rng.random() < 0.4 else np.eye(3)
        parts.append(transform(solid, turn, corner))
        corner = corner + rng.choice([-1.0, 1.0], 3) * size * rng.uniform(0.1, 0.35, 3)
    return Shape(parts)


def taper(shape: Shape, rng: np.random.Generator) -> Shape:
    """Narrowed along z; keeps turns about z."""
    low, high = _z_range(shape)
    k = rng.uniform(0.3, 0.8)

    def move(v: Array) -> Array:
        s = 1 - k * (v[:, 2:] - low) / (high - low)
        return np.concatenate([v[:, :2] * s, v[:, 2:]], axis=1)

    kept = tuple(s for s in shape.discrete if s.axis == Z and s.point[:2] == (0.0, 0.0))
    return Shape(_moved(shape, move), kept, shape.continuous, shape.turned)


def bend(shape: Shape, rng: np.random.Generator) -> Shape:
    """Bent in the x-z plane along z."""
    low, high = _z_range(shape)
    span = high - low
    angle = rng.uniform(0.4, 1.4)
    half = max(float(np.abs(s.vertices[:, 0]).max()) for part in shape.parts for s in part)
    radius = max(span / angle, half * 1.15)

    def move(v: Array) -> Array:
        t = (v[:, 2] - (low + high) / 2) / radius
        r = radius + v[:, 0]
        return np.stack([r * np.cos(t) - radius, v[:, 1], r * np.sin(t)], axis=1)

    return Shape(_moved(shape, move))


def twist(shape: Shape, rng: np.random.Generator) -> Shape:
    """Twisted about z."""
    low, high = _z_range(shape)
    angle = rng.uniform(0.4, 1.6)

    def move(v: Array) -> Array:
        t = angle * (v[:, 2] - low) / (high - low)
        c, s = np.cos(t), np.sin(t)
        return np.stack([c * v[:, 0] - s * v[:, 1], s * v[:, 0] + c * v[:, 1], v[:, 2]], axis=1)

    return Shape(_moved(shape, move))


def _z_range(shape: Shape) -> tuple[float, float]:
    z = np.concatenate([s.vertices[:, 2] for part in shape.parts for s in part])
    return float(z.min()), float(z.max())


def _moved(shape: Shape, move: Callable[[Array], Array]) -> list[Solid]:
    return [[replace(s, vertices=move(s.vertices)) for s in part] for part in shape.parts]


FAMILIES: tuple[tuple[Callable[[np.random.Generator], Shape], float], ...] = (
    (random_box, 0.17),
    (random_plate, 0.06),
    (random_can, 0.09),
    (random_bottle, 0.09),
    (random_turned, 0.07),
    (random_mug, 0.07),
    (random_bracket, 0.09),
    (random_superquadric, 0.05),
    (random_blob, 0.05),
    (random_pipe, 0.04),
    (random_prism, 0.06),
    (random_tool, 0.07),
    (random_composed, 0.09),
)


def random_shape(rng: np.random.Generator) -> Shape:
    """One shape of a random family, sometimes tapered, bent or twisted."""
    weights = np.array([w for _, w in FAMILIES])
    shape = FAMILIES[int(rng.choice(len(FAMILIES), p=weights / weights.sum()))][0](rng)
    if rng.random() < 0.2 and _z_range(shape)[1] - _z_range(shape)[0] > 0.05:
        shape = (taper, bend, twist)[int(rng.integers(3))](shape, rng)
    parts, offset = shape.parts, 0
    if sum(len(s.faces) for part in parts for s in part) < MIN_FACES:
        parts = [subdivide(part, 0.0, levels=1) for part in parts]
    numbered = []
    for part in parts:
        numbered.append(shift_regions(part, offset))
        offset += 1 + max(s.region for s in part)
    return replace(shape, parts=numbered)
