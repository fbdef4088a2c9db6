"""Wavefront material files."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .srgb import encode_srgb

_ARITY = {
    "-blendu": 1,
    "-blendv": 1,
    "-bm": 1,
    "-boost": 1,
    "-cc": 1,
    "-clamp": 1,
    "-colorspace": 1,
    "-imfchan": 1,
    "-mm": 2,
    "-texres": 1,
    "-type": 1,
}
"""These are the options of a map statement and how many words each takes; -o, -s and -t take one to three numbers."""


_BRIGHTEST = 2.0
"""Colours beyond 1 are those of lamps; none is brighter than this."""


@dataclass(frozen=True)
class Map:
    """An image of a material: its file as written, scale and offset of u and v, clamp to the edge, base and gain."""

    file: str
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False
    base: float = 0.0
    gain: float = 1.0


@dataclass
class Material:
    """One ``newmtl``. colors: "kd", "ka", "ke" -> RGB in [0, 1] as displayed; maps: "map_kd", ... -> Map. linear: the file has
    its colours in linear light."""

    name: str
    file: Path
    colors: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)
    linear: bool = False


def decode(data: bytes) -> str:
    """Text of a file whose encoding is not said: UTF-16 by its BOM, UTF-8, with or without BOM, else Latin-1."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse(path: Path) -> list[Material]:
    """The materials of a file, in its order. What is not understood is skipped, as every reader of this format does.

    The format says nothing of light, and viewers show its colours as they are. Blender, which names itself in the first line,
    writes those of its scene, which are linear.
    """
    materials: list[Material] = []
    text = decode(path.read_bytes()).replace("\\\n", " ").replace("\\\r\n", " ")
    linear = re.match(r"\s*# Blender\b.*\bMTL File", text) is not None
    for line in text.splitlines():
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        key, rest = key.lower(), rest.strip()
        if key == "newmtl":
            materials.append(Material(rest, path, linear=linear))
        elif not materials:
            continue
        elif key in ("kd", "ka", "ke"):
            color = _color(rest)
            if color is not None and linear:
                red, green, blue = encode_srgb(np.array(color)).tolist()
                color = (red, green, blue)
            if color is not None:
                materials[-1].colors[key] = color
        elif key in ("map_kd", "map_ka", "map_ke") and rest:
            found = _map(rest)
            if found is not None:
                materials[-1].maps[key] = found
    return materials


def _color(text: str) -> tuple[float, float, float] | None:
    """RGB of "r", "r g b", or None for what else the format knows (xyz, spectral). Some programs write 0..255."""
    values = _numbers(text.split())
    if max(values[:3], default=0.0) > _BRIGHTEST:
        values = [v / 255 for v in values]
    if not values:
        return None
    red, green, blue = (values * 3)[:3] if len(values) < 3 else values[:3]
    return (min(max(red, 0.0), 1.0), min(max(green, 0.0), 1.0), min(max(blue, 0.0), 1.0))


def _numbers(words: list[str]) -> list[float]:
    """The leading words that are numbers."""
    values: list[float] = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            break
    return values


def _map(text: str) -> Map | None:
    """Options, then the file name to the end of the line: it may hold spaces, and quotes around it."""
    options: dict[str, list[str]] = {}
    rest = text
    while rest.startswith("-"):
        words = rest.split()
        key = words[0].lower()
        if key in ("-o", "-s", "-t"):
            count = min(len(_numbers(words[1:4])), len(words) - 2)
        elif key in _ARITY:
            count = _ARITY[key]
        else:
            break  # a file whose name begins with a minus sign
        options[key] = words[1 : 1 + count]
        for _ in range(1 + count):
            rest = rest.partition(" ")[2].lstrip()
    if not rest:
        return None
    file = rest
    if file[0] in "\"'":
        try:
            file = shlex.split(file.replace("\\", "/"))[0] or file
        except (ValueError, IndexError):
            file = file.strip("\"'")

    def pair(key: str, default: float) -> tuple[float, float]:
        values = _numbers(options.get(key, []))
        return (values[0] if values else default, values[1] if len(values) > 1 else default)

    base, gain = pair("-mm", 0.0) if "-mm" in options else (0.0, 1.0)
    clamp = options.get("-clamp", ["off"])[0].lower() == "on"
    return Map(file, pair("-s", 1.0), pair("-o", 0.0), clamp, base, gain)
