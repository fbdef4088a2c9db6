"""Procedural objects: random ones for training and distractors.

``random_object(rng)`` is deterministic in the generator's state and takes a few tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import SimpleMaterial

from ..objects import ContinuousSymmetry, DiscreteSymmetry
from .families import random_shape
from .shapes import Solid
from .textures import Palette, Picture, noise, random_palette, random_picture, rings

MIN_DIAMETER, MAX_DIAMETER = 0.04, 0.40


@dataclass(frozen=True)
class SynthObject:
    """mesh: metres, outward winding, UV texture or vertex colours. Symmetries hold for geometry and colour together."""

    name: str
    mesh: trimesh.Trimesh
    discrete: tuple[DiscreteSymmetry, ...] = ()
    continuous: tuple[ContinuousSymmetry, ...] = ()


def random_object(rng: np.random.Generator, name: str | None = None) -> SynthObject:
    """One random object of 4 to 40 cm (log-uniform diameter) with a random origin and object frame."""
    shape = random_shape(rng)
    look = rng.choice(["printed", "patchwork", "plain", "bands", "vertex"], p=[0.58, 0.12, 0.16, 0.05, 0.09])
    if look == "bands" and not shape.turned:
        look = "printed"
    size = int(rng.choice([128, 256, 256]))
    palette = random_palette(rng)
    if look == "plain":
        mesh = colored_mesh(shape.parts, [_plain_color(rng)] * len(shape.parts))
        keep_discrete, keep_continuous = shape.discrete, shape.continuous
    elif look == "vertex":
        mesh = colored_mesh(shape.parts, [palette[i % len(palette)] for i in range(len(shape.parts))])
        _paint_vertices(rng, mesh, palette)
        keep_discrete, keep_continuous = (), ()
    else:
        regions = 1 + max(s.region for part in shape.parts for s in part)
        rects = layout(regions, big_first=shape.turned or regions % 6 != 0)
        if look == "bands":
            tiles = [rings(rng, palette, *_tile_size(rects[0], size))] + [
                np.broadcast_to(palette[int(rng.integers(len(palette)))].astype(np.uint8), (8, 8, 3)) for _ in rects[1:]
            ]
            keep_discrete, keep_continuous = (), shape.continuous
        else:
            tiles = _printed_tiles(rng, palette, rects, size, patchwork=look == "patchwork")
            keep_discrete, keep_continuous = (), ()
        mesh = textured_mesh(shape.parts, rects, tiles, size)
    return placed(rng, name or f"object_{int(rng.integers(2**31))}", mesh, keep_discrete, keep_continuous)


def layout(regions: int, big_first: bool) -> list[tuple[float, float, float, float]]:
    """Texture rectangles (x0, y0, x1, y1) in [0, 1]; with ``big_first`` region 0 takes the upper 60 %."""
    if regions == 1:
        return [(0.0, 0.0, 1.0, 1.0)]
    rects = []
    top = 0.0
    rest = regions
    if big_first:
        rects.append((0.0, 0.0, 1.0, 0.6))
        top, rest = 0.6, regions - 1
    columns = int(np.ceil(np.sqrt(rest / (1 - top))))
    rows = int(np.ceil(rest / columns))
    for i in range(rest):
        r, c = divmod(i, columns)
        y0, y1 = top + (1 - top) * r / rows, top + (1 - top) * (r + 1) / rows
        rects.append((c / columns, y0, (c + 1) / columns, y1))
    return rects


def textured_mesh(
    parts: Sequence[Solid], rects: Sequence[tuple[float, float, float, float]], tiles: Sequence[Picture], size: int
) -> trimesh.Trimesh:
    """One mesh whose texture region i shows ``tiles[i]`` at ``rects[i]`` of a (size, size) image."""
    atlas = np.zeros((size, size, 3), np.uint8)
    for rect, tile in zip(rects, tiles, strict=True):
        x0, y0, x1, y1 = (round(v * size) for v in rect)
        atlas[y0:y1, x0:x1] = cv2.resize(np.ascontiguousarray(tile), (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    vertices, faces, uv = [], [], []
    count = 0
    for surface in (s for part in parts for s in part):
        x0, y0, x1, y1 = (round(v * size) for v in rects[surface.region])
        # Half a texel in from the border, so that bilinear lookups do not bleed into the neighbour.
        u = (x0 + 0.75 + surface.uv[:, 0] * (x1 - x0 - 1.5)) / size
        v = 1 - (y0 + 0.75 + surface.uv[:, 1] * (y1 - y0 - 1.5)) / size
        vertices.append(surface.vertices)
        faces.append(surface.faces + count)
        uv.append(np.stack([u, v], axis=-1))
        count += len(surface.vertices)
    mesh = trimesh.Trimesh(np.concatenate(vertices), np.concatenate(faces), process=False)
    # trimesh writes its default diffuse colour, 40 % grey, to GLB as the factor of the texture.
    material = SimpleMaterial(image=Image.fromarray(atlas), diffuse=(255, 255, 255, 255))
    mesh.visual = TextureVisuals(uv=np.concatenate(uv), material=material)
    return mesh


def colored_mesh(parts: Sequence[Solid], colors: Sequence[NDArray[np.float64]]) -> trimesh.Trimesh:
    """One mesh with one RGB colour (0..255) a part, as vertex colours."""
    vertices, faces, rgba = [], [], []
    count = 0
    for part, color in zip(parts, colors, strict=True):
        for s in part:
            vertices.append(s.vertices)
            faces.append(s.faces + count)
            rgba.append(np.broadcast_to(np.append(np.asarray(color), 255).astype(np.uint8), (len(s.vertices), 4)))
            count += len(s.vertices)
    mesh = trimesh.Trimesh(np.concatenate(vertices), np.concatenate(faces), process=False)
    mesh.visual = ColorVisuals(mesh, vertex_colors=np.concatenate(rgba))
    return mesh


def vertex_diameter(vertices: NDArray[np.float64]) -> float:
    """Largest vertex distance, found by walking to the farthest point from several starts (metres)."""
    best = 0.0
    for axis in np.concatenate([np.eye(3), [[1, 1, 1], [1, -1, 1], [1, 1, -1], [-1, 1, 1]]]):
        point = vertices[int(np.argmax(vertices @ axis))]
        for _ in range(4):
            distance = np.linalg.norm(vertices - point, axis=1)
            far = int(np.argmax(distance))
            point = vertices[far]
            best = max(best, float(distance[far]))
    return best


def _tile_size(rect: tuple[float, float, float, float], size: int) -> tuple[int, int]:
    x0, y0, x1, y1 = (round(v * size) for v in rect)
    return max(y1 - y0, 4), max(x1 - x0, 4)


def _printed_tiles(
    rng: np.random.Generator,
    palette: Palette,
    rects: Sequence[tuple[float, float, float, float]],
    size: int,
    patchwork: bool,
) -> list[Picture]:
    """A picture for every region; patchwork has one colour a region with grain instead."""
    tiles = []
    for rect in rects:
        h, w = _tile_size(rect, size)
        if patchwork or min(h, w) < 14:
            color = palette[int(rng.integers(len(palette)))] + rng.normal(0, 12, 3)
            shade = 0.75 + 0.25 * noise(rng, h, w, 4, 2)
            tiles.append(np.clip(color * shade[..., None], 0, 255).astype(np.uint8))
        else:
            tiles.append(random_picture(rng, palette[rng.permutation(len(palette))], h, w))
    return tiles


def _plain_color(rng: np.random.Generator) -> NDArray[np.float64]:
    """Grey and metal tones, or one paint."""
    if rng.random() < 0.6:
        return np.clip(rng.uniform(50, 220) * (1 + rng.normal(0, 0.04, 3)), 0, 255)
    return random_palette(rng, 1)[0]


def _paint_vertices(rng: np.random.Generator, mesh: trimesh.Trimesh, palette: Palette) -> None:
    """Part colours blended with smooth waves of two palette colours across the object."""
    vertices = mesh.vertices / max(float(np.ptp(mesh.vertices, axis=0).max()), 1e-9)
    assert isinstance(mesh.visual, ColorVisuals)
    base = np.asarray(mesh.visual.vertex_colors)[:, :3].astype(np.float64)
    for color in palette[1:3]:
        wave = np.sin(vertices @ rng.normal(0, 4, 3) + rng.uniform(0, 6.28))
        weight = np.clip(wave * rng.uniform(0.5, 2.0), 0, 1)[:, None]
        base = base * (1 - weight) + color * weight
    rgba = np.concatenate([base, np.full((len(base), 1), 255.0)], axis=1)
    mesh.visual = ColorVisuals(mesh, vertex_colors=rgba.astype(np.uint8))


def placed(
    rng: np.random.Generator,
    name: str,
    mesh: trimesh.Trimesh,
    discrete: tuple[DiscreteSymmetry, ...],
    continuous: tuple[ContinuousSymmetry, ...],
) -> SynthObject:
    """Scaled to a random diameter, in a random object frame; symmetries moved along."""
    diameter = float(np.exp(rng.uniform(np.log(MIN_DIAMETER), np.log(MAX_DIAMETER))))
    scale = diameter / vertex_diameter(np.asarray(mesh.vertices))
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix() if rng.random() < 0.5 else np.eye(3)
    vertices = np.asarray(mesh.vertices) * scale @ turn.T
    centre = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    origin = rng.choice(3, p=[0.4, 0.4, 0.2])
    # Centred, as modelled, or anywhere up to two diameters off.
    shift = -centre if origin == 0 else np.zeros(3) if origin == 1 else rng.uniform(-2, 2, 3) * diameter
    mesh.vertices = vertices + shift

    def axis_of(axis: tuple[float, float, float]) -> tuple[float, float, float]:
        x, y, z = turn @ axis
        return (float(x), float(y), float(z))

    def point_of(point: tuple[float, float, float]) -> tuple[float, float, float]:
        x, y, z = turn @ (np.asarray(point) * scale) + shift
        return (float(x), float(y), float(z))

    return SynthObject(
        name,
        mesh,
        tuple(replace(s, axis=axis_of(s.axis), point=point_of(s.point)) for s in discrete),
        tuple(replace(s, axis=axis_of(s.axis), point=point_of(s.point)) for s in continuous),
    )


__all__ = ["MAX_DIAMETER", "MIN_DIAMETER", "SynthObject", "random_object"]
