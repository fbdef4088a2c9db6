"""3MF, the format of slicers and of much CAD: objects, components and the colours of its materials extension."""

from __future__ import annotations

import posixpath
import re
import xml.etree.ElementTree as ET
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import images
from .raw import MeshError, RawMesh, Surface, grey_surface, joined
from .three_mf_material import Group, Groups, numbers, tag
from .three_mf_slicer import Slicer, painted

_UNITS = {"micron": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2, "inch": 0.0254, "foot": 0.3048, "meter": 1.0}
_FILAMENTS = "filament colours of the slicer"
_DEEPEST, _MOST_PARTS = 16, 10_000
Matrix = NDArray[np.float64]


@dataclass
class _Model:
    """One model part of the package."""

    root: ET.Element
    groups: dict[str, Group] = field(default_factory=dict)
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
        self._filaments: set[int] = set()
        self._slicer = Slicer(lambda name: self._part(name) if name in self.names else None, self.notes)

    def mesh(self) -> RawMesh:
        start = next((n for n in self.names if n == "3d/3dmodel.model"), None)
        start = start or next((n for n in sorted(self.names) if n.endswith(".model")), None)
        if start is None:
            raise MeshError("it is no 3MF: there is no model in its archive")
        model = self._model(start)
        items = [i for b in model.root if tag(b) == "build" for i in b if tag(i) == "item"]
        for item in items or [ET.Element("item", objectid=k) for k in model.objects]:
            self._add(start, item, np.eye(4), ())
        if not self._found:
            beams = any(tag(e) == "beamlattice" for m in self._models.values() for e in m.root.iter())
            why = "it is a lattice of beams, which are not read" if beams else "it has no faces (nothing to build?)"
            raise MeshError(f"{why}; export it as triangles")
        if len(items) > 1 and self._slicer.of_a_plate:
            self.notes.append(
                f"{len(items)} objects lie on the slicer's plate, and are taken for one; export the one that is meant alone"
            )
        if len(self._filaments) == 1:
            self._without_filament()
        mesh = joined(self._found)
        mesh.notes += dict.fromkeys(self.notes)
        mesh.unit = _UNITS.get(model.root.get("unit", "millimeter"))
        return mesh

    def _model(self, name: str) -> _Model:
        key = name.lstrip("/").casefold()
        if key not in self._models:
            if key not in self.names:
                raise MeshError(f"its part {name!r} is missing; is it whole?")
            model = _Model(_xml(self._part(key)))
            self._models[key] = model
            for resources in (e for e in model.root if tag(e) == "resources"):
                every = {e.get("id", ""): e for e in resources}
                for number, element in every.items():
                    if tag(element) == "object":
                        model.objects[number] = element
                model.groups.update(Groups(every, partial(self._picture, key), self.notes).found)
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

    def _picture(self, part: str, name: str) -> bytes:
        """Raises ImageError where it is not there or damaged."""
        key = posixpath.normpath(posixpath.join("/" + posixpath.dirname(part), name)).lstrip("/").casefold()
        if key not in self.names:
            raise images.ImageError("is not in the archive")
        try:
            return self._part(key)
        except MeshError:
            raise images.ImageError("is damaged in the archive") from None

    def _add(self, part: str, item: ET.Element, matrix: Matrix, above: tuple[str, ...]) -> None:
        """The object of a build item or component, and those that it is made of. above: the objects that it is a part of."""
        if len(above) > _DEEPEST or len(self._found) > _MOST_PARTS:
            raise MeshError("its components contain each other")
        other = next((v for k, v in item.attrib.items() if k.rpartition("}")[2] == "path"), None)
        part = other or part
        model = self._model(part)
        number = item.get("objectid", "")
        thing = model.objects.get(number)
        if thing is None:
            raise MeshError(f"it refers to object {item.get('objectid')!r}, which it does not have")
        matrix = matrix @ _transform(item.get("transform"))
        for child in thing:
            if tag(child) == "mesh":
                self._mesh(model, thing, child, matrix, above[-1] if above else number)
            elif tag(child) == "components":
                for component in child:
                    self._add(part, component, matrix, (*above, number))

    def _mesh(self, model: _Model, thing: ET.Element, mesh: ET.Element, matrix: Matrix, item: str) -> None:
        parts = {tag(e): e for e in mesh}
        if thing.get("type", "model") != "model" or "vertices" not in parts or "triangles" not in parts:
            return
        points = numbers("vertex", ((v.get(k, "nan") for k in "xyz") for v in parts["vertices"]), 3, float)
        triangles = list(parts["triangles"])
        faces = numbers("triangle", ((t.get(k, "-1") for k in ("v1", "v2", "v3")) for t in triangles), 3, int)
        printed, filament = self._slicer.judge(item, thing, len(faces))
        if not printed.all():
            triangles = [t for t, kept in zip(triangles, printed, strict=True) if kept]
            faces, filament = faces[printed], filament[printed]
        if not len(faces):
            return
        if int(faces.min()) < 0 or int(faces.max()) >= len(points):
            raise MeshError(f"a face asks for vertex {int(faces.max())}, but its object has {len(points)}")
        raw = RawMesh(points @ matrix[:3, :3].T + matrix[:3, 3], faces.astype(np.int32), [])
        if any(k.rpartition("}")[2] == "slicestackid" for k in thing.attrib):
            self.notes.append(f"{_name(thing)} is described by slices, which are not read; its mesh may be a stand-in")
        if "beamlattice" in parts:
            self.notes.append(f"{_name(thing)} has a lattice of beams, which is not read; export it as triangles")
        painted(triangles, filament)
        self._look(raw, model, thing, triangles, filament)
        if np.linalg.det(matrix[:3, :3]) < 0:
            raw.turn_faces(np.ones(len(raw.faces), bool))
        self._found.append(raw)

    def _look(
        self, raw: RawMesh, model: _Model, thing: ET.Element, triangles: list[ET.Element], filament: NDArray[np.int64]
    ) -> None:
        """Surfaces by property group, else by filament; colours become those of the corners."""
        name = _name(thing)
        own, index = thing.get("pid", ""), thing.get("pindex", "0")
        used = [t.get("pid", own) for t in triangles]
        number = {p: i for i, p in enumerate(dict.fromkeys(used))}
        raw.surface = np.array([number[p] for p in used], np.int32)
        firsts = [t.get("p1", index if t.get("pid", own) == own else "0") for t in triangles]
        rows = ((p, t.get("p2", p), t.get("p3", p)) for t, p in zip(triangles, firsts, strict=True))
        corner = numbers("triangle", rows, 3, int)
        colors, uv = np.ones((len(triangles), 3, 3), np.float32), np.zeros((len(triangles), 3, 2), np.float32)
        for key, i in number.items():
            group, rows = model.groups.get(key, Group("")), raw.surface == i
            table = group.colors if group.colors is not None else group.uv
            if not key and len(self._slicer.colors):
                raw.surfaces.append(self._of_filaments(name, filament, rows, colors))
            elif table is None or not len(table):
                why = "its material is damaged" if group.source else "its material is of a kind not read"
                raw.surfaces.append(grey_surface(name, why if key else "it has no colour"))
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

    def _of_filaments(
        self, name: str, filament: NDArray[np.int64], rows: NDArray[np.bool_], colors: NDArray[np.float32]
    ) -> Surface:
        """What has no material of 3MF. Sets the rows of ``colors`` (F, 3, 3)."""
        table = self._slicer.colors
        used = np.clip(filament[rows] - 1, 0, len(table) - 1)  # parts that name none are printed in the first one
        self._filaments |= {*used.tolist()}
        colors[rows] = table[used][:, None]
        return Surface(name, "vertex colours", _FILAMENTS, colored=True)

    def _without_filament(self) -> None:
        """One filament alone is mostly that of the slicer's profile, whatever was printed with."""
        red, green, blue = np.round(255 * self._slicer.colors[self._filaments.pop()]).astype(int).tolist()
        why = f"it has no colour; the slicer's filament is {red}/{green}/{blue}"
        for raw in self._found:
            raw.surfaces = [grey_surface(s.name, why) if s.source == _FILAMENTS else s for s in raw.surfaces]


def _name(thing: ET.Element) -> str:
    return thing.get("name") or f"object {thing.get('id')}"


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


def _xml(data: bytes) -> ET.Element:
    """The root. Prefixes that the file does not declare, of extensions of which nothing is read, are declared."""
    try:
        return ET.fromstring(data)
    except ET.ParseError as error:
        if "unbound prefix" not in str(error):
            raise
    used = set(re.findall(rb"[<\s/]([A-Za-z_][\w.-]*):[A-Za-z_]", data)) - {b"xml", b"xmlns"}
    used -= set(re.findall(rb"xmlns:([\w.-]+)\s*=", data))
    declared = b"".join(b' xmlns:%s="undeclared"' % prefix for prefix in sorted(used))
    return ET.fromstring(re.sub(rb"(<[\w.:-]*model)(?=[\s>])", lambda m: m[1] + declared, data, count=1))


def _transform(text: str | None) -> Matrix:
    """(4, 4) of twelve numbers, which multiply row vectors."""
    result = np.eye(4)
    if text:
        try:
            result[:3] = np.array(text.split(), np.float64).reshape(4, 3).T
        except ValueError:
            raise MeshError(f"a part has the transform {text[:60]!r}, expected twelve numbers") from None
    return result
