"""3MF, the format of slicers and of much CAD: objects, components and the colours of its materials extension."""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import images
from .raw import MeshError, RawMesh, Surface, Texture, grey_surface, joined

_UNITS = {"micron": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2, "inch": 0.0254, "foot": 0.3048, "meter": 1.0}
_DEEPEST, _MOST_PARTS = 16, 10_000
Matrix = NDArray[np.float64]


@dataclass
class _Group:
    """Properties that a triangle may name: colours (n, 3) in [0, 1], or coordinates (n, 2) of a texture."""

    colors: NDArray[np.float32] | None = None
    uv: NDArray[np.float32] | None = None
    texture: Texture | None = None
    source: str = ""


@dataclass
class _Model:
    """One model part of the package."""

    root: ET.Element
    groups: dict[str, _Group] = field(default_factory=dict)
    objects: dict[str, ET.Element] = field(default_factory=dict)


def read(path: Path) -> RawMesh:
    """What is to be built, where the file puts it. Raises MeshError."""
    try:
        with zipfile.ZipFile(path) as package:
            return _Reader(package).mesh()
    except zipfile.BadZipFile as error:
        raise MeshError(f"its archive is damaged ({error}); is it cut off?") from error
    except ET.ParseError as error:
        raise MeshError(f"its XML is damaged ({error})") from error


class _Reader:
    def __init__(self, package: zipfile.ZipFile) -> None:
        self.package = package
        self.names = {n.lstrip("/").casefold(): n for n in package.namelist()}
        self.notes: list[str] = []
        self._models: dict[str, _Model] = {}
        self._found: list[RawMesh] = []

    def mesh(self) -> RawMesh:
        start = next((n for n in self.names if n == "3d/3dmodel.model"), None)
        start = start or next((n for n in sorted(self.names) if n.endswith(".model")), None)
        if start is None:
            raise MeshError("it is no 3MF: there is no model in its archive")
        model = self._model(start)
        items = [i for b in model.root if _tag(b) == "build" for i in b if _tag(i) == "item"]
        for item in items or [ET.Element("item", objectid=k) for k in model.objects]:
            self._add(start, item, np.eye(4), 0)
        if not self._found:
            raise MeshError("it has no faces (nothing to build?); export it as triangles")
        mesh = joined(self._found)
        mesh.notes += self.notes
        mesh.unit = _UNITS.get(model.root.get("unit", "millimeter"))
        return mesh

    def _model(self, name: str) -> _Model:
        key = name.lstrip("/").casefold()
        if key not in self._models:
            if key not in self.names:
                raise MeshError(f"its part {name!r} is missing; is it whole?")
            model = _Model(ET.fromstring(self._part(key)))
            self._models[key] = model
            for resources in (e for e in model.root if _tag(e) == "resources"):
                every = {e.get("id", ""): e for e in resources}
                for number, element in every.items():
                    if _tag(element) == "object":
                        model.objects[number] = element
                    elif _tag(element) in ("basematerials", "colorgroup", "texture2dgroup"):
                        model.groups[number] = self._group(element, every, key)
        return self._models[key]

    def _part(self, key: str) -> bytes:
        """Raises MeshError where the archive cannot give it."""
        try:
            return self.package.read(self.names[key])
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            RuntimeError,
        ) as error:  # the last: encrypted, unknown method
            raise MeshError(f"its archive is damaged at {self.names[key]!r} ({error}); is it cut off?") from error

    def _group(self, element: ET.Element, every: dict[str, ET.Element], part: str) -> _Group:
        if _tag(element) == "texture2dgroup":
            group = _Group(
                uv=_numbers("tex2coord", ((c.get("u", "0"), c.get("v", "0")) for c in element), 2, float).astype(
                    np.float32
                )
            )
            self._textured(group, every.get(element.get("texid", "")), part)
            return group
        key = "displaycolor" if _tag(element) == "basematerials" else "color"
        colors = np.array([_color(c.get(key, "")) for c in element], np.float32).reshape(-1, 3)
        return _Group(colors=colors, source="base materials" if key == "displaycolor" else "colour group")

    def _textured(self, group: _Group, texture: ET.Element | None, part: str) -> None:
        name = "" if texture is None else texture.get("path", "")
        key = posixpath.normpath(posixpath.join("/" + posixpath.dirname(part), name)).lstrip("/").casefold()
        try:
            if key not in self.names or texture is None:
                raise images.ImageError("is not in the archive")
            pixels = images.read(self._part(key))
        except MeshError:
            self.notes.append(f"its texture {name!r} is damaged in the archive; that part is rendered without it")
            return
        except images.ImageError as error:
            self.notes.append(f"its texture {name!r} {error}; that part is rendered without it")
            return
        wrap = {"mirror": "mirror", "clamp": "clamp", "none": "clamp"}
        styles = (texture.get("tilestyleu", ""), texture.get("tilestylev", ""))
        group.texture = Texture(pixels, (wrap.get(styles[0], "repeat"), wrap.get(styles[1], "repeat")))
        group.source = f"texture {posixpath.basename(name)} ({pixels.shape[1]} x {pixels.shape[0]})"

    def _add(self, part: str, item: ET.Element, matrix: Matrix, depth: int) -> None:
        """The object of a build item or component, and those that it is made of."""
        if depth > _DEEPEST or len(self._found) > _MOST_PARTS:
            raise MeshError("its components contain each other")
        other = next((v for k, v in item.attrib.items() if k.rpartition("}")[2] == "path"), None)
        part = other or part
        model = self._model(part)
        thing = model.objects.get(item.get("objectid", ""))
        if thing is None:
            raise MeshError(f"it refers to object {item.get('objectid')!r}, which it does not have")
        matrix = matrix @ _transform(item.get("transform"))
        for child in thing:
            if _tag(child) == "mesh":
                self._mesh(model, thing, child, matrix)
            elif _tag(child) == "components":
                for component in child:
                    self._add(part, component, matrix, depth + 1)

    def _mesh(self, model: _Model, thing: ET.Element, mesh: ET.Element, matrix: Matrix) -> None:
        parts = {_tag(e): e for e in mesh}
        if thing.get("type", "model") != "model" or "vertices" not in parts or "triangles" not in parts:
            return
        points = _numbers("vertex", ((v.get(k, "nan") for k in "xyz") for v in parts["vertices"]), 3, float)
        triangles = ((t.get(k, "-1") for k in ("v1", "v2", "v3")) for t in parts["triangles"])
        faces = _numbers("triangle", triangles, 3, int)
        if not len(faces):
            return
        if int(faces.min()) < 0 or int(faces.max()) >= len(points):
            raise MeshError(f"a face asks for vertex {int(faces.max())}, but its object has {len(points)}")
        raw = RawMesh(points @ matrix[:3, :3].T + matrix[:3, 3], faces.astype(np.int32), [])
        self._look(raw, model, thing, list(parts["triangles"]))
        if np.linalg.det(matrix[:3, :3]) < 0:
            raw.turn_faces(np.ones(len(raw.faces), bool))
        self._found.append(raw)

    def _look(self, raw: RawMesh, model: _Model, thing: ET.Element, triangles: list[ET.Element]) -> None:
        """Surfaces by property group; colours become those of the corners."""
        name = thing.get("name") or f"object {thing.get('id')}"
        own, index = thing.get("pid", ""), thing.get("pindex", "0")
        used = [t.get("pid", own) for t in triangles]
        number = {p: i for i, p in enumerate(dict.fromkeys(used))}
        raw.surface = np.array([number[p] for p in used], np.int32)
        firsts = [t.get("p1", index if t.get("pid", own) == own else "0") for t in triangles]
        rows = ((p, t.get("p2", p), t.get("p3", p)) for t, p in zip(triangles, firsts, strict=True))
        corner = _numbers("triangle", rows, 3, int)
        colors, uv = np.ones((len(triangles), 3, 3), np.float32), np.zeros((len(triangles), 3, 2), np.float32)
        for key, i in number.items():
            group, rows = model.groups.get(key, _Group()), raw.surface == i
            table = group.colors if group.colors is not None else group.uv
            if table is None or not len(table):
                raw.surfaces.append(
                    grey_surface(name, "it has no colour" if not key else "its material is of a kind not read")
                )
            elif corner[rows].min() < 0 or corner[rows].max() >= len(table):
                raise MeshError(
                    f"a face asks for entry {int(corner[rows].max())} of material {key}, which has {len(table)}"
                )
            elif group.colors is not None:
                colors[rows] = table[corner[rows]]
                raw.surfaces.append(Surface(name, "vertex colours", group.source, colored=True))
            elif group.texture is not None:
                uv[rows] = table[corner[rows]]
                raw.surfaces.append(Surface(name, "texture", group.source, texture=group.texture))
            else:
                raw.surfaces.append(grey_surface(name, "its image is missing"))
        if any(s.colored for s in raw.surfaces):
            _paint(raw, colors)
        if any(s.texture is not None for s in raw.surfaces):
            raw.uv, raw.uv_index = uv.reshape(-1, 2), np.arange(uv.size // 2, dtype=np.int32).reshape(-1, 3)


def _paint(raw: RawMesh, colors: NDArray[np.float32]) -> None:
    """Colours (F, 3, 3) of corners: of the faces where each has one, else of the vertices."""
    if (colors == colors[:, :1]).all():
        raw.face_colors = colors[:, 0]
        raw.surfaces = [
            Surface(s.name, "face colours", s.source, colored=True) if s.colored else s for s in raw.surfaces
        ]
        return
    raw.vertices = raw.vertices[raw.faces.reshape(-1)]
    raw.colors = colors.reshape(-1, 3)
    raw.faces = np.arange(raw.faces.size, dtype=np.int32).reshape(-1, 3)


def _numbers(what: str, rows: Iterable[Iterable[str]], width: int, kind: type[float] | type[int]) -> NDArray[Any]:
    """(n, width) of the attributes of elements ``what``. Raises MeshError where one is no number."""
    dtype = np.float64 if kind is float else np.int64
    try:
        return np.array([[kind(word) for word in row] for row in rows], dtype).reshape(-1, width)
    except (ValueError, OverflowError) as error:
        word = str(error).partition(": ")[2] if isinstance(error, ValueError) else "one that is too large"
        raise MeshError(f"a {what} of it has {word} where a number belongs") from error


def _color(text: str) -> tuple[float, float, float]:
    """sRGB in [0, 1] of #RRGGBB or #RRGGBBAA."""
    digits = text.strip().lstrip("#")
    try:
        return (int(digits[0:2], 16) / 255, int(digits[2:4], 16) / 255, int(digits[4:6], 16) / 255)
    except ValueError:
        raise MeshError(f"a material has the colour {text!r}, expected #RRGGBB") from None


def _transform(text: str | None) -> Matrix:
    """(4, 4) of twelve numbers, which multiply row vectors."""
    result = np.eye(4)
    if text:
        try:
            result[:3] = np.array(text.split(), np.float64).reshape(4, 3).T
        except ValueError:
            raise MeshError(f"a part has the transform {text[:60]!r}, expected twelve numbers") from None
    return result


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
