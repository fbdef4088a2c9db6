"""What a 3MF calls properties: base materials, colours, textures, mixtures of materials, and layers of these."""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import images
from .raw import MeshError, Texture

_WRAP = {"mirror": "mirror", "clamp": "clamp", "none": "clamp"}


@dataclass
class Group:
    """Properties that a triangle may name: colours (n, 3) in [0, 1], or coordinates (n, 2) of a texture, v up.

    opacity: (n,) of the colours or (h, w) of the texture's pixels, in [0, 1]; only layers count it.
    """

    source: str
    colors: NDArray[np.float32] | None = None
    uv: NDArray[np.float32] | None = None
    texture: Texture | None = None
    opacity: NDArray[np.float32] | None = None


class Groups:
    """Reads the property groups of one model part.

    every: the resources by their id. picture: the bytes of an image in the package, which raises ImageError without it.
    notes: what is missing is added to these.
    """

    def __init__(self, every: dict[str, ET.Element], picture: Callable[[str], bytes], notes: list[str]) -> None:
        self._every, self._picture, self._notes = every, picture, notes
        self.found: dict[str, Group] = {}
        readers = {
            "basematerials": self._base,
            "colorgroup": self._colors,
            "texture2dgroup": self._texture,
            "compositematerials": self._mixed,
            "multiproperties": self._layers,
        }
        for kind, read in readers.items():  # in this order: later ones are made of those before
            for number, element in every.items():
                if tag(element) != kind:
                    continue
                try:
                    self.found[number] = read(element)
                except MeshError as error:  # the shape is worth more than a colour
                    notes.append(f"{error}; what has that is rendered grey")
                    self.found[number] = Group("a material that is damaged")

    def _base(self, element: ET.Element) -> Group:
        return _painted("base materials", [c.get("displaycolor", "") for c in element])

    def _colors(self, element: ET.Element) -> Group:
        return _painted("colour group", [c.get("color", "") for c in element])

    def _texture(self, element: ET.Element) -> Group:
        uv = numbers("tex2coord", ((c.get("u", "0"), c.get("v", "0")) for c in element), 2, float)
        group = Group("", uv=uv.astype(np.float32))
        texture = self._every.get(element.get("texid", ""))
        if texture is None or not texture.get("path"):
            self._notes.append(f"its texture {element.get('texid')!r} is not defined; that part is rendered without it")
            return group
        name = texture.get("path", "")
        try:
            data = self._picture(name)
            pixels = images.read(data)
        except images.ImageError as error:
            self._notes.append(f"its texture {name!r} {error}; that part is rendered without it")
            return group
        wrap = (_WRAP.get(texture.get(f"tilestyle{axis}", ""), "repeat") for axis in "uv")
        group.texture = Texture(pixels, (next(wrap), next(wrap)))
        group.opacity = images.opacity(data, pixels.shape[:2])
        group.source = f"texture {posixpath.basename(name)} ({pixels.shape[1]} x {pixels.shape[0]})"
        return group

    def _mixed(self, element: ET.Element) -> Group:
        """Materials mixed by their shares."""
        of = self.found.get(element.get("matid", ""))
        words = element.get("matindices", "").split()
        index = numbers("compositematerials", [words], len(words), int)[0]
        shares = numbers("composite", (c.get("values", "").split() for c in element), len(index), float)
        if of is None or of.colors is None:
            raise MeshError(f"a mixture refers to base materials {element.get('matid')!r}, which it does not have")
        total = shares.sum(1, keepdims=True)
        mixed = shares @ _entries(of.colors, index, element) / np.where(total > 0, total, 1)
        return Group("mixed base materials", mixed.astype(np.float32), opacity=np.ones(len(mixed), np.float32))

    def _layers(self, element: ET.Element) -> Group:
        """Groups over each other: colours are blended entry by entry, images that lie in the same place pixel by pixel."""
        names = element.get("pids", "").split()
        layers = [self.found.get(n) for n in names]
        methods = ["mix", *element.get("blendmethods", "").split(), *(["mix"] * len(names))]
        rows = [c.get("pindices", "").split() for c in element]
        index = numbers("multi", ([*r, *(["0"] * len(names))][: len(names)] for r in rows), len(names), int)
        if not names or len(index) == 0 or all(layer is None for layer in layers):
            return Group("")
        textured = [k for k, g in enumerate(layers) if g is not None and g.texture is not None]
        at, size = None, (1, 1)
        if textured:
            top = layers[textured[-1]]
            assert top is not None and top.uv is not None and top.texture is not None
            at = _entries(top.uv, index[:, textured[-1]], element)
            size = top.texture.pixels.shape[:2]
        blended: NDArray[np.floating] | None = None
        told = []
        for k, (group, method) in enumerate(zip(layers, methods, strict=False)):
            if group is None or (group.colors is None and (group.texture is None or group.uv is None)):
                continue
            if group.colors is not None:
                value = _entries(group.colors, index[:, k], element).astype(np.float64)
                opacity = np.ones(len(group.colors)) if group.opacity is None else group.opacity
                alpha = opacity[index[:, k], None].astype(np.float64)
                if at is not None:  # an image takes one colour below or above it
                    value, alpha = value.mean(0), alpha.mean(0)
            else:
                assert group.texture is not None and group.uv is not None
                if at is None or not np.allclose(_entries(group.uv, index[:, k], element), at, atol=1e-5):
                    self._notes.append(f"{group.source} lies otherwise than the image over it, and is left out")
                    continue
                value = _resized(group.texture.pixels, size) / 255.0
                alpha = np.ones((1, 1, 1))
                if group.opacity is not None:
                    alpha = _resized(np.round(255 * group.opacity).astype(np.uint8), size)[..., None] / 255.0
            told.append(group.source)
            if blended is None:
                blended = value
            else:
                blended = value * blended if method == "multiply" else value * alpha + blended * (1 - alpha)
        if blended is None:
            return Group("")
        source = " + ".join(dict.fromkeys(told))
        if at is None:
            return Group(source, blended.astype(np.float32), opacity=np.ones(len(blended), np.float32))
        assert top is not None and top.texture is not None
        pixels = np.broadcast_to(np.round(255 * blended.clip(0, 1)).astype(np.uint8), (*size, 3))
        return Group(source, uv=at, texture=Texture(np.ascontiguousarray(pixels), top.texture.wrap))


def _painted(source: str, texts: list[str]) -> Group:
    values = np.array([_color(text) for text in texts], np.float32).reshape(-1, 4)
    return Group(source, values[:, :3], opacity=values[:, 3])


def _entries(table: NDArray[np.float32], index: NDArray[Any], element: ET.Element) -> NDArray[np.float32]:
    if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(table)):
        raise MeshError(
            f"material {element.get('id')} asks for entry {int(index.max())} of another one, which has {len(table)}"
        )
    return table[index]


def _resized(pixels: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def numbers(what: str, rows: Iterable[Iterable[str]], width: int, kind: type[float] | type[int]) -> NDArray[Any]:
    """(n, width) of the attributes of elements ``what``, float64 or int64. Raises MeshError where one is no number."""
    dtype = np.float64 if kind is float else np.int64
    try:
        found = [[kind(word) for word in row] for row in rows]
        table = np.array(found, dtype).reshape(len(found), -1) if found else np.zeros((0, width), dtype)
    except OverflowError:
        raise MeshError(f"a {what} of it has a number that is too large") from None
    except ValueError as error:
        word = str(error).partition(": ")[2]
        said = (
            f"has {word} where a number belongs" if word.startswith("'") else "has another count of numbers than others"
        )
        raise MeshError(f"a {what} of it {said}") from None
    if table.shape[1] != width:
        raise MeshError(f"a {what} of it has {table.shape[1]} numbers, expected {width}")
    return table


def _color(text: str) -> tuple[float, ...]:
    """sRGB and opacity in [0, 1] of #RRGGBB or #RRGGBBAA."""
    digits = text.strip().lstrip("#")
    try:
        if len(digits) not in (6, 8):
            raise ValueError
        return tuple(int(f"{digits}ff"[i : i + 2], 16) / 255 for i in (0, 2, 4, 6))
    except ValueError:
        raise MeshError(f"a material has the colour {text!r}, expected #RRGGBB") from None


def tag(element: ET.Element) -> str:
    """Without its namespace."""
    return element.tag.rpartition("}")[2]
