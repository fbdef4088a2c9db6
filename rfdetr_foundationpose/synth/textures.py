"""Random printed surfaces: noise, stripes, checkers, gradients, text, logos, barcodes. (h, w, 3) uint8 RGB images."""

from __future__ import annotations

import colorsys
import functools
import string
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Palette = NDArray[np.float64]


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def random_palette(rng: np.random.Generator, count: int = 4) -> Palette:
    """(count, 3) colours in 0..255 with at least some contrast between the first two."""
    hue = rng.random()
    colours = []
    for _ in range(count):
        if rng.random() < 0.4:
            hue = rng.random()
        saturation = rng.choice([0.05, 0.5, 0.9]) * rng.uniform(0.6, 1.1)
        value = rng.uniform(0.12, 1.0)
        colours.append(colorsys.hsv_to_rgb(hue + rng.normal(0, 0.04), min(saturation, 1.0), value))
    palette = np.asarray(colours) * 255
    if count > 1 and abs(palette[0].mean() - palette[1].mean()) < 60:
        palette[1] = 255 - palette[0] if rng.random() < 0.5 else (245.0 if palette[0].mean() < 128 else 20.0)
    return np.clip(palette, 0, 255)


def noise(rng: np.random.Generator, height: int, width: int, octaves: int = 5, start: int = 2) -> NDArray[np.float32]:
    """(h, w) float32 in [0, 1]: value noise, a sum of smoothly enlarged random grids."""
    total = np.zeros((height, width), np.float32)
    for i in range(octaves):
        cells = start * 2**i
        if cells > max(height, width):
            break
        grid = rng.random((min(cells, height), min(cells, width)), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**i
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def _full(palette: Palette, i: int, h: int, w: int) -> Picture:
    return np.broadcast_to(palette[i % len(palette)].astype(np.uint8), (h, w, 3)).copy()


def _flat(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    return _full(palette, int(rng.integers(len(palette))), h, w)


def _noise(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    """A colour map over value noise: marble, camouflage or grain."""
    t = noise(rng, h, w, octaves=int(rng.integers(2, 7)), start=int(rng.integers(1, 6)))
    if rng.random() < 0.3:
        t = np.floor(t * 4.999) / 4
    stops = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(t, stops, palette[:, k]) for k in range(3)], axis=-1).astype(np.uint8)


def _photo(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    """Independent noise in each channel: the statistics of a photograph."""
    layers = np.stack([noise(rng, h, w, 6, int(rng.integers(1, 4))) for _ in range(3)], axis=-1)
    mixed = 0.65 * layers + 0.35 * layers[..., :1]
    return (mixed * rng.uniform(0.6, 1.0, 3) * 255).astype(np.uint8)


def _gradient(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    t = np.cos(angle) * x / w + np.sin(angle) * y / h
    t = (t - t.min()) / max(float(np.ptp(t)), 1e-6)
    return (palette[0] * (1 - t[..., None]) + palette[1 % len(palette)] * t[..., None]).astype(np.uint8)


def _stripes(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    """Slanted stripes of random widths and colours."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    t = np.cos(angle) * x / w + np.sin(angle) * y / h
    t = (t - t.min()) / max(float(np.ptp(t)), 1e-6)
    edges = np.sort(rng.random(int(rng.integers(2, 12))))
    colours = palette[rng.integers(len(palette), size=len(edges) + 1)]
    return colours[np.searchsorted(edges, t)].astype(np.uint8)


def _checker(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    """A chequerboard under large random patches, so that no turn maps it onto itself."""
    n, m = rng.integers(2, 9, size=2)
    y, x = np.mgrid[0:h, 0:w]
    odd = ((y * n // h) + (x * m // w)) % 2
    picture = np.where(odd[..., None] == 0, palette[0], palette[1 % len(palette)]).astype(np.uint8)
    return _patches(rng, palette, picture)


def _patches(rng: np.random.Generator, palette: Palette, picture: Picture) -> Picture:
    """Random rectangles, ellipses and triangles drawn over the picture."""
    h, w = picture.shape[:2]
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 9))):
        colour = tuple(int(c) for c in palette[int(rng.integers(len(palette)))])
        cx, cy = rng.uniform(0, w), rng.uniform(0, h)
        rx, ry = rng.uniform(0.05, 0.35) * w, rng.uniform(0.05, 0.35) * h
        kind = rng.integers(3)
        if kind == 0:
            draw.rectangle((cx - rx, cy - ry, cx + rx, cy + ry), fill=colour)
        elif kind == 1:
            draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=colour)
        else:
            corners = [(cx + rng.uniform(-rx, rx), cy + rng.uniform(-ry, ry)) for _ in range(3)]
            draw.polygon(corners, fill=colour)
    return np.asarray(image)


def _shapes(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    return _patches(rng, palette, _full(palette, 0, h, w))


def _barcode(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    """Random bars on a light field, with a line of digits below."""
    picture = _full(palette, 0, h, w)
    x0, x1 = int(w * rng.uniform(0.02, 0.25)), int(w * rng.uniform(0.6, 0.98))
    y0, y1 = int(h * rng.uniform(0.05, 0.4)), int(h * rng.uniform(0.6, 0.95))
    picture[y0:y1, x0:x1] = 245
    bars = rng.random(max((x1 - x0) // 3, 1)) < 0.5
    columns = np.repeat(bars, 3)[: x1 - x0]
    stop = y0 + int((y1 - y0) * 0.8)
    picture[y0:stop, x0 : x0 + len(columns)][:, columns] = 15
    return picture


def _word(rng: np.random.Generator) -> str:
    letters = rng.choice(
        list(string.ascii_uppercase if rng.random() < 0.6 else string.ascii_lowercase + string.digits), 7
    )
    return "".join(letters[: int(rng.integers(3, 8))])


def _text(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    """A printed face: background, a logo shape, one big word and some small lines."""
    background: Callable[..., Picture] = (_flat, _gradient, _noise, _stripes)[
        int(rng.choice(4, p=[0.5, 0.25, 0.1, 0.15]))
    ]
    picture = background(rng, palette[:2] if rng.random() < 0.7 else palette, h, w)
    if rng.random() < 0.6:
        picture = _patches(rng, palette[1:], picture)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    ink = palette[int(rng.integers(len(palette)))]
    if abs(float(ink.mean()) - float(picture.mean())) < 60:
        ink = np.full(3, 250.0 if picture.mean() < 128 else 10.0)
    fill = tuple(int(c) for c in ink)
    size = int(max(h * rng.uniform(0.15, 0.4), 8))
    draw.text((w * rng.uniform(0.0, 0.25), h * rng.uniform(0.0, 0.5)), _word(rng), fill=fill, font=_font(size))
    small = int(max(h * rng.uniform(0.06, 0.12), 6))
    y = h * rng.uniform(0.5, 0.7)
    for _ in range(int(rng.integers(0, 5))):
        draw.text((w * 0.06, y), " ".join(_word(rng) for _ in range(3)), fill=fill, font=_font(small))
        y += small * 1.2
    if rng.random() < 0.4:
        image = image.transpose(Image.Transpose.ROTATE_180 if rng.random() < 0.5 else Image.Transpose.FLIP_TOP_BOTTOM)
    return np.asarray(image)


def rings(rng: np.random.Generator, palette: Palette, h: int, w: int) -> Picture:
    """Colour bands that depend on the row only: round a turned object they keep its rotational symmetry."""
    edges = np.sort(rng.random(int(rng.integers(2, 9))))
    colours = palette[rng.integers(len(palette), size=len(edges) + 1)]
    rows = colours[np.searchsorted(edges, np.linspace(0, 1, h))].astype(np.uint8)
    return np.broadcast_to(rows[:, None], (h, w, 3)).copy()


_KINDS: tuple[tuple[Callable[..., Picture], float], ...] = (
    (_text, 0.34),
    (_noise, 0.14),
    (_photo, 0.1),
    (_shapes, 0.12),
    (_stripes, 0.08),
    (_checker, 0.08),
    (_gradient, 0.07),
    (_barcode, 0.07),
)


def random_picture(rng: np.random.Generator, palette: Palette, height: int, width: int) -> Picture:
    """One random printed face, (height, width, 3) uint8."""
    weights = np.array([w for _, w in _KINDS])
    kind = _KINDS[int(rng.choice(len(_KINDS), p=weights / weights.sum()))][0]
    return kind(rng, palette, height, width)


def calm_picture(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Wood grain, plaster or cloth: what tables and walls mostly look like."""
    base = (
        np.array(colorsys.hsv_to_rgb(rng.uniform(0.04, 0.14), rng.uniform(0.05, 0.55), rng.uniform(0.45, 0.95))) * 255
    )
    grain: NDArray[np.floating] = noise(rng, height, width, 6, 2)
    if rng.random() < 0.5:  # wood: the same noise drawn out along the planks
        narrow = noise(rng, height, max(width // 16, 4), 5, 2)
        grain = np.asarray(cv2.resize(narrow, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
        planks = rng.uniform(0.9, 1.05, 8)[(np.arange(height) * 8 // height)]
        grain = grain * 0.8 + planks[:, None] - 0.5
    picture = base * (1 + rng.uniform(0.08, 0.3) * (grain[..., None] - 0.5)) + rng.normal(0, 3, (height, width, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)
