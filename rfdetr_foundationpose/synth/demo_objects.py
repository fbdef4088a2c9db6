"""The demo's five objects: a cereal box, a mug, a drill, a spray bottle and a soup can. Fixed, no randomness.

``write_demo_objects`` made ``models/demo/*.glb``; run it again after a change here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation

from .families import mug_parts
from .objects import SynthObject, textured_mesh
from .shapes import Solid, box, lathe, shift_regions, transform, tube
from .textures import Picture

SIZE = 512
Color = tuple[int, int, int]
Rect = tuple[float, float, float, float]
WHITE, BLACK, RED, NAVY = (248, 246, 240), (24, 24, 28), (196, 30, 38), (22, 40, 92)


class Label:
    """A drawing surface in relative coordinates; (0, 0) is the top left."""

    def __init__(self, width: int, height: int, background: Color) -> None:
        self.image = Image.new("RGB", (width, height), background)
        self.draw = ImageDraw.Draw(self.image)

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        w, h = self.image.size
        return (x0 * w, y0 * h, x1 * w - 1, y1 * h - 1)

    def rect(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> Label:
        self.draw.rectangle(self._box(x0, y0, x1, y1), fill=color)
        return self

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> Label:
        self.draw.ellipse(self._box(x0, y0, x1, y1), fill=color)
        return self

    def polygon(self, points: Sequence[tuple[float, float]], color: Color) -> Label:
        w, h = self.image.size
        self.draw.polygon([(x * w, y * h) for x, y in points], fill=color)
        return self

    def text(self, x: float, y: float, words: str, size: float, color: Color) -> Label:
        """Centred at x, top at y; size relative to the height."""
        w, h = self.image.size
        font: ImageFont.FreeTypeFont | ImageFont.ImageFont = ImageFont.load_default(max(int(size * h), 8))
        left, top, right, _ = self.draw.textbbox((0, 0), words, font=font)
        self.draw.text((x * w - (right - left) / 2 - left, y * h - top), words, fill=color, font=font)
        return self

    def lines(self, x0: float, y0: float, x1: float, y1: float, count: int, color: Color) -> Label:
        """Ragged grey lines that stand for small print."""
        for i in range(count):
            y = y0 + (y1 - y0) * i / count
            end = x1 - (x1 - x0) * ((i * 37 % 11) / 30)
            self.rect(x0, y, end, y + (y1 - y0) / count * 0.5, color)
        return self

    def bars(self, x0: float, y0: float, x1: float, y1: float) -> Label:
        """A barcode."""
        self.rect(x0, y0, x1, y1, WHITE)
        widths = [1, 2, 1, 3, 1, 1, 2, 2, 1, 3, 2, 1, 1, 2, 3, 1, 2, 1, 1, 3]
        edges = np.concatenate([[0], np.cumsum(widths)]) / sum(widths)
        for i in range(0, len(widths), 2):
            a, b = (x0 + (x1 - x0) * (0.05 + 0.9 * float(e)) for e in edges[i : i + 2])
            self.rect(a, y0 + 0.08 * (y1 - y0), b, y1 - 0.08 * (y1 - y0), BLACK)
        return self

    def picture(self) -> Picture:
        return np.asarray(self.image)


def plain(color: Color) -> Picture:
    """A tile of one colour."""
    return np.full((8, 8, 3), color, np.uint8)


def _numbered(parts: Sequence[Solid]) -> tuple[list[Solid], int]:
    numbered, offset = [], 0
    for part in parts:
        numbered.append(shift_regions(part, offset))
        offset += 1 + max(s.region for s in part)
    return numbered, offset


def _object(
    name: str, parts: Sequence[Solid], labels: dict[int, tuple[Rect, Picture]], colors: dict[int, Color]
) -> SynthObject:
    """Labels at their rectangles; every other region is a flat colour in the strip below y = 0.94."""
    numbered, count = _numbered(parts)
    rects, tiles = [], []
    flat = [i for i in range(count) if i not in labels]
    for i in range(count):
        if i in labels:
            rect, tile = labels[i]
        else:
            at = flat.index(i)
            rect, tile = (at / len(flat), 0.94, (at + 1) / len(flat), 1.0), plain(colors[i])
        rects.append(rect)
        tiles.append(tile)
    return SynthObject(name, textured_mesh(numbered, rects, tiles, SIZE))


def cereal_box() -> SynthObject:
    """20 x 6 x 28 cm, a different print on each face, the front towards +y; the origin is in the middle."""
    yellow, orange, cream = (250, 196, 30), (232, 106, 20), (252, 236, 190)
    front = Label(300, 420, yellow)
    for i in range(0, 24, 2):
        a, b = 2 * np.pi * i / 24, 2 * np.pi * (i + 1) / 24
        front.polygon(
            [(0.5, 0.62), (0.5 + np.cos(a), 0.62 + np.sin(a)), (0.5 + np.cos(b), 0.62 + np.sin(b))], (253, 214, 84)
        )
    front.rect(0, 0.05, 1, 0.3, RED).text(0.5, 0.075, "OATY", 0.12, WHITE).text(0.5, 0.2, "CRUNCH", 0.07, yellow)
    front.ellipse(0.1, 0.55, 0.9, 0.95, NAVY).ellipse(0.15, 0.57, 0.85, 0.82, WHITE)
    for i in range(26):
        x, y = 0.24 + 0.52 * ((i * 29 % 26) / 26), 0.6 + 0.16 * ((i * 11 % 13) / 13)
        front.ellipse(x, y, x + 0.07, y + 0.045, (206, 138, 44) if i % 3 else (168, 96, 28))
    front.ellipse(0.66, 0.36, 0.94, 0.54, (46, 138, 60)).text(0.8, 0.41, "NEW", 0.055, WHITE)
    back = Label(300, 420, cream).rect(0, 0, 1, 0.16, orange).text(0.5, 0.04, "Find the way", 0.07, WHITE)
    for i in range(6):
        back.rect(0.1 + 0.06 * i, 0.24 + 0.045 * i, 0.9 - 0.06 * i, 0.27 + 0.045 * i, NAVY if i % 2 else RED)
    back.ellipse(0.35, 0.55, 0.65, 0.75, (46, 138, 60)).lines(0.1, 0.8, 0.9, 0.97, 5, (120, 100, 80))
    left = Label(90, 420, RED).text(0.5, 0.03, "OATY", 0.06, WHITE).rect(0.1, 0.2, 0.9, 0.62, WHITE)
    left.lines(0.16, 0.23, 0.86, 0.6, 12, BLACK).ellipse(0.2, 0.7, 0.8, 0.88, yellow)
    right = Label(90, 420, orange).lines(0.12, 0.06, 0.9, 0.4, 10, cream).bars(0.1, 0.72, 0.9, 0.95)
    right.polygon([(0.5, 0.46), (0.9, 0.66), (0.1, 0.66)], NAVY)
    top = Label(300, 90, yellow).rect(0, 0.4, 1, 0.6, RED).text(0.3, 0.1, "open here", 0.25, NAVY)
    bottom = Label(300, 90, (200, 170, 120)).bars(0.6, 0.15, 0.95, 0.85)
    labels = {
        2: ((0.0, 0.0, 0.5, 0.7), front.picture()),
        3: ((0.5, 0.0, 1.0, 0.7), back.picture()),
        0: ((0.0, 0.7, 0.15, 1.0), left.picture()),
        1: ((0.15, 0.7, 0.3, 1.0), right.picture()),
        4: ((0.3, 0.7, 0.65, 1.0), top.picture()),
        5: ((0.65, 0.7, 1.0, 1.0), bottom.picture()),
    }
    return _object("cereal_box", [box((0.20, 0.06, 0.28), 8)], labels, {})


def mug() -> SynthObject:
    """9.5 cm high, 8.4 cm across, with a print all round; the origin is at the middle of its floor."""
    sky, sand, teal = (226, 238, 244), (238, 190, 92), (20, 122, 128)
    art = Label(512, 250, sky).ellipse(0.13, 0.1, 0.27, 0.42, RED)
    art.polygon([(0.0, 1), (0.12, 0.5), (0.22, 0.75), (0.34, 0.3), (0.52, 1)], teal)
    art.polygon([(0.30, 0.45), (0.34, 0.3), (0.385, 0.47), (0.34, 0.41)], WHITE)
    art.polygon([(0.45, 1), (0.62, 0.6), (0.74, 0.8), (0.86, 0.48), (1.0, 0.95), (1.0, 1)], NAVY)
    art.rect(0, 0.9, 1, 1, sand).text(0.62, 0.1, "GOOD", 0.18, NAVY).text(0.66, 0.32, "MORNING", 0.1, RED)
    art.rect(0, 0, 1, 0.045, sand)
    parts = mug_parts(0.095, 0.042, 0.004, 0.06, 0.026, 0.0075)
    count = _numbered(parts)[1]
    colors: dict[int, Color] = dict.fromkeys(range(count), WHITE)
    handle = 1 + max(s.region for s in parts[0])
    colors.update(dict.fromkeys(range(handle, count), RED))
    return _object("mug", parts, {0: ((0.0, 0.0, 1.0, 0.94), art.picture())}, colors)


def drill() -> SynthObject:
    """A cordless drill, 22 cm long and 20 cm high, its muzzle along +x; the origin is at the top of the grip."""
    along_x = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    green, lime = (28, 120, 72), (170, 214, 40)
    motor = [
        (0, 0.06),
        (0.024, 0.06),
        (0.03, 0.045),
        (0.03, 0),
        (0.032, -0.03),
        (0.03, -0.062),
        (0.022, -0.075),
        (0, -0.075),
    ]
    chuck = [(0, 0.052), (0.007, 0.052), (0.011, 0.04), (0.02, 0.024), (0.022, 0.0), (0, 0.0)]
    bit = [(0, 0.05), (0.002, 0.046), (0.003, 0.03), (0.003, 0), (0, 0)]
    grip = tube(
        [(-0.024, 0, -0.005), (-0.028, 0, -0.04), (-0.036, 0, -0.08), (-0.044, 0, -0.125)],
        [0.021, 0.02, 0.019, 0.021],
        20,
        1.2,
    )
    trigger = box((0.014, 0.016, 0.034), 2)
    battery = box((0.1, 0.068, 0.042), 3)
    parts = [
        transform(lathe(np.array(motor), 28), along_x),
        transform(lathe(np.array(chuck), 24), along_x, (0.06, 0, 0)),
        transform(lathe(np.array(bit), 10), along_x, (0.112, 0, 0)),
        grip,
        transform(trigger, None, (0.0, 0, -0.045)),
        transform(battery, None, (-0.038, 0, -0.142)),
    ]
    count = _numbered(parts)[1]
    starts = np.cumsum([0] + [1 + max(s.region for s in p) for p in parts])
    shades: list[Color] = [green, (60, 60, 66), (190, 192, 198), BLACK, RED, (44, 44, 48)]
    colors = {i: shades[int(np.searchsorted(starts, i, side="right")) - 1] for i in range(count)}
    skin = Label(512, 250, green).rect(0, 0.0, 1, 0.12, BLACK).rect(0, 0.12, 1, 0.17, lime)
    for i, word in enumerate(("TORQ 18V", "PRO-DRILL")):
        x = 0.25 + 0.5 * i
        skin.rect(x - 0.19, 0.36, x + 0.19, 0.62, BLACK).text(x, 0.42, word, 0.13, lime if i else WHITE)
    for i in range(5):
        skin.rect(0.02, 0.74 + 0.045 * i, 0.48 + 0.09 * i, 0.76 + 0.045 * i, BLACK)
    pack = [Label(250, 110, (44, 44, 48)).rect(0, 0, 1, 0.18, lime) for _ in range(4)]
    pack[0].text(0.5, 0.35, "4.0 Ah", 0.4, WHITE)
    pack[1].bars(0.1, 0.3, 0.6, 0.9)
    pack[2].text(0.5, 0.3, "18V", 0.5, lime)
    pack[3].lines(0.1, 0.3, 0.7, 0.95, 5, WHITE).ellipse(0.75, 0.4, 0.95, 0.85, RED)
    labels = {0: ((0.0, 0.0, 1.0, 0.5), skin.picture())}
    for i, face in enumerate(pack):
        x, y = 0.5 * (i % 2), 0.5 + 0.22 * (i // 2)
        labels[int(starts[5]) + i] = ((x, y, x + 0.5, y + 0.22), face.picture())
    return _object("drill", parts, labels, colors)


def spray_bottle() -> SynthObject:
    """26 cm high, oval body, trigger head along +x; the origin is at the middle of its base."""
    blue, pink = (64, 150, 214), (226, 60, 130)
    body = [
        (0, 0.185),
        (0.014, 0.185),
        (0.014, 0.172),
        (0.018, 0.16),
        (0.03, 0.142),
        (0.038, 0.12),
        (0.041, 0.09),
        (0.041, 0.05),
    ]
    body += [(0.041, 0.02), (0.039, 0.005), (0.034, 0), (0, 0)]
    oval = [replace(s, vertices=s.vertices * (1.0, 0.72, 1.0)) for s in lathe(np.array(body), 36, 50)]
    collar = lathe(np.array([(0, 0.205), (0.017, 0.205), (0.019, 0.195), (0.019, 0.178), (0, 0.178)]), 24)
    head = [replace(s, vertices=s.vertices * _taper_x(s.vertices)) for s in box((0.085, 0.026, 0.034), 4)]
    nozzle = lathe(np.array([(0, 0.016), (0.008, 0.016), (0.01, 0), (0, 0)]), 16)
    along_x = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    trigger = tube(
        [(0.03, 0, 0.21), (0.042, 0, 0.19), (0.045, 0, 0.17), (0.054, 0, 0.152)], [0.008, 0.008, 0.007, 0.005], 10
    )
    parts = [
        oval,
        collar,
        transform(head, None, (0.016, 0, 0.228)),
        transform(nozzle, along_x, (0.058, 0, 0.232)),
        trigger,
    ]
    art = Label(512, 300, blue).rect(0, 0.3, 1, 0.92, WHITE).rect(0, 0.3, 1, 0.34, pink).rect(0, 0.88, 1, 0.92, pink)
    for x, word in ((0.25, "Sparkle"), (0.75, "glass & tile")):
        art.text(x, 0.42, word, 0.14 if x < 0.5 else 0.075, pink if x < 0.5 else NAVY)
    for i in range(5):
        x = 0.1 + 0.07 * i
        art.ellipse(x, 0.64 + 0.05 * (i % 2), x + 0.045, 0.72 + 0.05 * (i % 2), (140, 200, 240))
    art.lines(0.6, 0.55, 0.9, 0.84, 8, (110, 110, 130)).bars(0.44, 0.5, 0.56, 0.8)
    count = _numbered(parts)[1]
    starts = np.cumsum([0] + [1 + max(s.region for s in p) for p in parts])
    shades: list[Color] = [blue, WHITE, pink, WHITE, (250, 210, 60)]
    colors = {i: shades[int(np.searchsorted(starts, i, side="right")) - 1] for i in range(count)}
    return _object("spray_bottle", parts, {0: ((0.0, 0.0, 1.0, 0.94), art.picture())}, colors)


def _taper_x(vertices: np.ndarray) -> np.ndarray:
    """Narrower towards +x, so that the head looks like a head."""
    s = 1 - 0.25 * (vertices[:, :1] / 0.085 + 0.5)
    return np.concatenate([np.ones_like(s), s, s], axis=1)


def soup_can() -> SynthObject:
    """10.5 cm high, 7 cm across; the printed label makes every turn look different. The origin is in the middle."""
    r, h, i = 0.035, 0.105, 0.0335
    profile = [(0, h - 0.003), (0.031, h - 0.003), (0.031, h), (r, h), (r, h - 0.004), (i, h - 0.006), (i, h * 0.5)]
    profile += [(i, 0.006), (r, 0.004), (r, 0), (0.031, 0), (0.031, 0.003), (0, 0.003)]
    can = transform(lathe(np.array(profile), 44), None, (0, 0, -h / 2))
    gold = (206, 160, 60)
    art = Label(512, 240, RED).rect(0, 0.52, 1, 1, WHITE).rect(0, 0.49, 1, 0.55, gold)
    art.text(0.25, 0.12, "Tomato", 0.24, WHITE).text(0.25, 0.64, "SOUP", 0.2, RED).text(
        0.25, 0.87, "with basil", 0.08, NAVY
    )
    art.ellipse(0.43, 0.3, 0.57, 0.74, gold).ellipse(0.45, 0.36, 0.55, 0.68, (222, 70, 40))
    art.polygon([(0.5, 0.4), (0.53, 0.28), (0.49, 0.31), (0.46, 0.26), (0.48, 0.36)], (40, 120, 50))
    art.rect(0.64, 0.1, 0.84, 0.9, WHITE).lines(0.655, 0.15, 0.83, 0.85, 11, BLACK).bars(0.87, 0.58, 0.98, 0.92)
    lid = (
        Label(96, 96, (176, 178, 184))
        .ellipse(0.12, 0.12, 0.88, 0.88, (150, 152, 158))
        .ellipse(0.2, 0.2, 0.8, 0.8, (188, 190, 196))
    )
    lid.ellipse(0.55, 0.4, 0.85, 0.6, (120, 122, 128)).text(0.4, 0.42, "B26", 0.14, BLACK)
    count = 1 + max(s.region for s in can)
    colors: dict[int, Color] = dict.fromkeys(range(count), (178, 180, 186))
    labels = {0: ((0.0, 0.0, 1.0, 0.62), art.picture())}
    sunk = h / 2 - 0.003
    top = next(s.region for s in can if np.allclose(s.vertices[:, 2], sunk))
    labels[top] = ((0.0, 0.62, 0.32, 0.94), lid.picture())
    return _object("soup_can", [can], labels, colors)


_BUILDERS: tuple[Callable[[], SynthObject], ...] = (cereal_box, mug, drill, spray_bottle, soup_can)


def demo_objects() -> list[SynthObject]:
    """The five objects, always the same; none has a symmetry once its print is seen."""
    return [build() for build in _BUILDERS]


def write_demo_objects(folder: str | Path, objects_file: str | Path | None = None) -> list[Path]:
    """Write <folder>/<name>.glb, and an objects.yaml that names them relative to itself. Returns the mesh paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for o in demo_objects():
        path = folder / f"{o.name}.glb"
        o.mesh.export(path)
        paths.append(path)
    if objects_file is not None:
        file = Path(objects_file)
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = ["# The demo's objects: detector label -> mesh. Mesh paths are relative to this file.", "objects:"]
        for path in paths:
            relative = Path(os.path.relpath(path.resolve(), file.resolve().parent)).as_posix()
            lines += [f"  - name: {path.stem}", f"    mesh: {relative}"]
            if path.stem == "soup_can":
                lines.append("    max_instances: 2")
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths
