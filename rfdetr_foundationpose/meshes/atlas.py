"""Many images in one, each with a rim of what its wrap mode continues it with, so that tiles and neighbours stay right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .raw import Texture

MOST_TEXELS = 2048 * 2048
PATCH_TEXELS = 1024 * 1024
RIM = 2
_SIDE = 1024 + 2 * RIM + 1

Pixels = NDArray[np.uint8]


@dataclass
class Cell:
    """A rectangle of the atlas. pixels (h, w, 3) uint8; faces (n,); place (n, 3, 2): their corners in pixels of it, x right,
    y down. texture and region (x0, y0, x1, y1), in turns of the image: what an image's pixels are made of."""

    faces: NDArray[np.int64]
    pixels: Pixels | None = None
    place: NDArray[np.float64] | None = None
    texture: Texture | None = None
    turns: NDArray[np.float64] | None = None


def wrapped(index: NDArray[np.integer], size: int, mode: str) -> NDArray[np.integer]:
    """Texel numbers -> those within an image of ``size``."""
    if mode == "clamp":
        return index.clip(0, size - 1)
    if mode == "mirror":
        index = index % (2 * size)
        return np.where(index < size, index, 2 * size - 1 - index)
    return index % size


def image_cells(texture: Texture, uv: NDArray[np.floating], faces: NDArray[np.int64]) -> list[Cell]:
    """The parts of an image that faces show: of those within one tile, and of those across several.

    uv: (n, 3, 2), v up.
    """
    turns = uv.astype(np.float64)
    turns[..., 1] = 1 - turns[..., 1]
    for axis in (0, 1):  # each face begins in the first tile: the wrapped image is the same there
        low = turns[..., axis].min(1, keepdims=True) + 1e-6
        if texture.wrap[axis] == "repeat":
            turns[..., axis] -= np.floor(low)
        elif texture.wrap[axis] == "mirror":
            turns[..., axis] -= 2 * np.floor(low / 2)
    inside = ((turns > -1e-4) & (turns < 1 + 1e-4)).all((1, 2))
    return [Cell(faces[part], texture=texture, turns=turns[part]) for part in (inside, ~inside) if part.any()]


def fitted(cells: list[Cell]) -> list[Cell]:
    """Bake images, all reduced alike where they would not fit."""
    sizes = []
    for cell in cells:
        assert cell.texture is not None and cell.turns is not None
        height, width = cell.texture.pixels.shape[:2]
        span = np.ptp(cell.turns.reshape(-1, 2), axis=0) * (width, height) + 2 * RIM + 1
        sizes.append(span * min(1.0, _SIDE / float(span.max())))
    total = sum(float(np.prod(s)) for s in sizes)
    scale = min(1.0, float(np.sqrt(MOST_TEXELS / total))) if total else 1.0
    for cell, size in zip(cells, sizes, strict=True):
        _bake(cell, size * scale)
    return cells


def _bake(cell: Cell, size: NDArray[np.float64]) -> None:
    """Set pixels and place of an image's cell of about ``size`` (width, height)."""
    assert cell.texture is not None and cell.turns is not None
    pixels, turns = cell.texture.pixels, cell.turns
    low, high = turns.reshape(-1, 2).min(0), turns.reshape(-1, 2).max(0)
    span = np.maximum((high - low) * pixels.shape[1::-1], 1)
    ratio = np.minimum(1, np.maximum(size - 2 * RIM - 1, 1) / span)
    width, height = (max(1, int(np.ceil(n * r))) for n, r in zip(pixels.shape[1::-1], ratio, strict=True))
    if (width, height) != pixels.shape[1::-1]:
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    at = turns * (width, height)
    first = np.floor(low * (width, height)).astype(np.int64) - RIM
    last = np.ceil(high * (width, height)).astype(np.int64) + RIM
    columns = wrapped(np.arange(first[0], last[0]), width, cell.texture.wrap[0])
    rows = wrapped(np.arange(first[1], last[1]), height, cell.texture.wrap[1])
    cell.pixels = np.ascontiguousarray(pixels[rows][:, columns])
    cell.place = at - first


def flat_cell(colors: NDArray[np.float64], faces: NDArray[np.int64]) -> Cell:
    """Squares of one colour each for ``faces`` of colours (n, 3) in [0, 1]."""
    side = 4
    byte = np.round(colors * 255).astype(np.uint8)
    unique, which = np.unique(byte, axis=0, return_inverse=True)
    if len(unique) > PATCH_TEXELS // side**2:
        byte = (byte & 0xF8 | byte >> 5).astype(np.uint8)
        unique, which = np.unique(byte, axis=0, return_inverse=True)
    which = which.reshape(-1)
    across = int(np.ceil(np.sqrt(len(unique))))
    grid = np.zeros((-(-len(unique) // across), across, 3), np.uint8)
    grid.reshape(-1, 3)[: len(unique)] = unique
    middle = np.stack([which % across, which // across], 1) * side + side / 2
    return Cell(faces, grid.repeat(side, 0).repeat(side, 1), np.repeat(middle[:, None], 3, axis=1))


def patch_size(count: int, most: int) -> int:
    """Texels along the sides of ``count`` triangles' patches. Two are exact where colours change linearly."""
    return int(np.clip(np.sqrt(PATCH_TEXELS / count), 2, most))


def patch_weights(size: int) -> NDArray[np.float64]:
    """(size * size, 3) of the texels of a patch: its corners lie at (0, 0), (size - 1, 0), (0, size - 1)."""
    y, x = np.mgrid[:size, :size].reshape(2, -1) / (size - 1)
    return np.stack([1 - x - y, x, y], 1)


def patch_cell(colors: NDArray[np.float64], faces: NDArray[np.int64]) -> Cell:
    """Patches (n, size, size, 3) in [0, 1] beside one another."""
    count, size = colors.shape[:2]
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    grid = np.zeros((down * across, size, size, 3), np.uint8)
    grid[:count] = np.round(colors * 255)
    pixels = grid.reshape(down, across, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(down * size, across * size, 3)
    corner = np.array([[0.5, 0.5], [size - 0.5, 0.5], [0.5, size - 0.5]])
    i = np.arange(count)
    return Cell(faces, pixels, np.stack([i % across, i // across], 1)[:, None] * float(size) + corner)


def packed(cells: list[Cell], count: int) -> tuple[NDArray[np.float32], Pixels]:
    """uv (count, 3, 2), v up, and the pixels that hold all cells, in rows of falling height."""
    sized = [(c, c.pixels, c.place) for c in cells if c.pixels is not None and c.place is not None]
    area = sum(p.shape[0] * p.shape[1] for _, p, _ in sized)
    width = max(int(np.ceil(1.1 * np.sqrt(area))), *(p.shape[1] for _, p, _ in sized), 1)
    x = y = tall = 0
    spots = []
    sized.sort(key=lambda s: -s[1].shape[0])
    for _, pixels, _ in sized:
        if x + pixels.shape[1] > width:
            x, y, tall = 0, y + tall, 0
        spots.append((x, y))
        x, tall = x + pixels.shape[1], max(tall, pixels.shape[0])
    height = y + tall
    image = np.zeros((height, width, 3), np.uint8)
    uv = np.zeros((count, 3, 2), np.float32)
    for (cell, pixels, place), (left, top) in zip(sized, spots, strict=True):
        image[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        at = (place + np.array([left, top])) / (width, height)
        at[..., 1] = 1 - at[..., 1]
        uv[cell.faces] = at
    return uv, image
