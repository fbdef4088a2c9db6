"""What the faces of an OBJ look like: its material libraries, their images, tiles of UDIM sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import images, mtl
from .raw import GREY, RawMesh, Surface, Texture, grey_surface

_TINT = 0.02
"""From this spread on Kd tints its image. Exporters write a grey Kd beside an image that stands for the whole colour."""


def resolve(
    mesh: RawMesh,
    path: Path,
    libraries: Sequence[str],
    uses: Sequence[tuple[int, str]],
    polygon: NDArray[np.integer],
) -> None:
    """Set ``surfaces`` and ``surface`` of a mesh read from ``path``, and its ``uv`` to what its images are sampled at.

    libraries: as ``mtllib`` names them. uses: (first polygon, material) of each ``usemtl``. polygon: (F,) of each face,
    ascending.
    """
    materials = _materials(path, libraries, bool(uses), mesh.notes)
    firsts = np.array([0, *(first for first, _ in uses)])
    names: list[str | None] = [None, *(name for _, name in uses)]
    sizes = np.diff(np.searchsorted(polygon, firsts), append=len(polygon))  # faces of each run of one material
    used = np.flatnonzero(sizes).tolist()
    if mesh.colors is not None and (mesh.colors == 1).all() and any(m.colors or m.maps for m in materials.values()):
        mesh.colors = None  # white is what exporters fill in
    absent: NDArray[np.bool_] | None = None
    if mesh.colors is not None and np.isnan(mesh.colors).any():
        absent = np.asarray(np.isnan(mesh.colors).any(1))
    distinct = list(dict.fromkeys(names[r] for r in used))
    number = np.zeros(len(names), np.int32)
    number[used] = [distinct.index(names[r]) for r in used]
    of_face = np.repeat(number, sizes)
    mesh.surface = of_face if len(distinct) > 1 else None
    look = _Look(mesh, path, of_face, None if absent is None else np.asarray(absent[mesh.faces].all(1)))
    for i, name in enumerate(distinct):
        material = _material(name, materials, bool(uses))
        look.add(i, name or "", material, f"no material {name!r} is defined" if name else "no material, no colours")
        if material is None and name and mesh.colors is None and (materials or not libraries):
            files = ", ".join(dict.fromkeys(m.file.name for m in materials.values()))
            mesh.notes.append(
                f"usemtl names {name!r}, which no material library defines "
                f"({'looked in ' + files if files else 'there is no mtllib line'}); that part is rendered grey"
            )
    mesh.surfaces = look.surfaces
    mesh.surface = look.of_face if len(look.surfaces) > 1 else None
    if absent is not None and mesh.colors is not None:
        mesh.colors[absent] = np.array(GREY, np.float32) / 255
        said = np.array([s.kind in ("vertex colours", "uniform grey") for s in look.surfaces])
        grey = np.unique(mesh.faces[said[look.of_face]])
        grey = grey[absent[grey]]
        if len(grey):
            mesh.notes.append(f"{len(grey)} of its {len(absent)} vertices have no colour and are rendered grey")


def _materials(path: Path, libraries: Sequence[str], named: bool, notes: list[str]) -> dict[str, mtl.Material]:
    """Materials of all libraries by name; of the one beside the mesh where the mesh names none but uses materials."""
    found: dict[str, mtl.Material] = {}
    for statement in dict.fromkeys(libraries):
        for file in _library_files(statement, path.parent):
            try:
                for material in mtl.parse(images.find(file, path.parent)):
                    found.setdefault(material.name, material)
            except images.ImageError as error:
                notes.append(f"its material library {error}; put it there, or set color in objects.yaml")
            except OSError as error:
                notes.append(f"its material library {file} cannot be read ({error.strerror})")
    beside = path.with_suffix(".mtl")
    if not libraries and named and beside.is_file():
        found = {material.name: material for material in mtl.parse(beside)}
        notes.append(f"it has no mtllib line; the materials are those of {beside.name} beside it")
    return found


def _library_files(statement: str, folder: Path) -> list[str]:
    """A library, whose name may hold spaces, or several."""
    try:
        images.find(statement, folder)
    except images.ImageError:
        words = statement.split()
        if len(words) > 1 and all(w.lower().endswith(".mtl") for w in words):
            return words
    return [statement]


def _material(name: str | None, materials: dict[str, mtl.Material], named: bool) -> mtl.Material | None:
    if name is None:  # faces before the first usemtl; a file without any has the one material of its library
        return next(iter(materials.values())) if len(materials) == 1 and not named else None
    if name in materials:
        return materials[name]
    same = [m for n, m in materials.items() if _bare(n) == _bare(name)]
    return same[0] if len(same) == 1 else None


def _bare(name: str) -> str:
    """Without quotes, case, and a comment behind it."""
    return name.partition(" #")[0].strip("\"' ").casefold()


def _tile_file(reference: str, u: int, v: int) -> str | None:
    """The image of tile (u, v), from 0, of a set whose names tell the tile: 1001, or u1_v1 (Mudbox); None of another name."""
    names = {"udim": str(1001 + min(u, 9) + 10 * v), "uvtile": f"u{u + 1}_v{v + 1}"}
    for pattern, name in (
        (r"<UDIM>", names["udim"]),
        (r"<UVTILE>", names["uvtile"]),
        (r"(?<!\d)1\d{3}(?!\d)(?=[^/\\]*$)", names["udim"]),
        (r"(?<![a-z\d])u\d+_v\d+(?!\d)(?=[^/\\]*$)", names["uvtile"]),
    ):
        if re.search(pattern, reference, re.IGNORECASE):
            return re.sub(pattern, name, reference, flags=re.IGNORECASE)
    return None


class _Look:
    """Builds the surfaces; ``of_face`` (F,) follows where one material becomes several. bare: (F,) faces none of whose vertices
    has a colour, None where each has."""

    def __init__(
        self, mesh: RawMesh, path: Path, of_face: NDArray[np.int32], bare: NDArray[np.bool_] | None = None
    ) -> None:
        self.mesh, self.path, self.bare = mesh, path, bare
        self.material_of_face = of_face
        self.of_face = np.zeros(len(of_face), np.int32)
        self.surfaces: list[Surface] = []
        self._pixels: dict[Path, NDArray[np.uint8]] = {}

    def add(self, number: int, name: str, material: mtl.Material | None, why: str) -> None:
        """The surfaces of a material and the faces that have them."""
        faces = np.flatnonzero(self.material_of_face == number).astype(np.int32)
        rest = faces
        if material is not None and material.maps:
            if self.mesh.uv is None:
                self.mesh.notes.append(
                    f"material {name!r} has an image, but the mesh has no texture coordinates; export them (UVs)"
                )
                why = "no texture coordinates"
            else:
                index = self.mesh.faces if self.mesh.uv_index is None else self.mesh.uv_index
                placed, without = faces, faces[:0]
                if int(index.min(initial=0)) < 0:
                    there = (index[faces] >= 0).all(1)
                    placed, without = faces[there], faces[~there]
                if self._paint(placed, name, material):
                    rest = without
                    why = "no texture coordinates"
                else:
                    why = "its image is missing"
        bare = rest[:0] if self.bare is None else rest[self.bare[rest]]
        if self.bare is not None:
            rest = rest[~self.bare[rest]]
        if len(rest):
            self._put(rest, self._plain(name, material, why, self.mesh.colors is not None))
        if len(bare):
            self._put(bare, self._plain(name, material, why, False))

    def _put(self, faces: NDArray[np.integer], surface: Surface) -> None:
        self.of_face[faces] = len(self.surfaces)
        self.surfaces.append(surface)

    def _plain(self, name: str, material: mtl.Material | None, why: str, colored: bool) -> Surface:
        if colored:
            return Surface(name, "vertex colours", "vertex colours", colored=True)
        if material is None:
            return grey_surface(name, why)
        color = next((material.colors[k] for k in ("kd", "ka", "ke") if k in material.colors), None)
        if color is None:
            return grey_surface(
                name, "its material has neither Kd nor map_Kd" if why.startswith("no material") else why
            )
        if material.maps and max(color) - min(color) < _TINT:
            return grey_surface(name, why)
        light = ", Blender's linear light" if material.linear else ""
        return Surface(name, "uniform colour", f"Kd {_rgb(color)} of {material.file.name}{light}", color)

    def _paint(self, faces: NDArray[np.integer], name: str, material: mtl.Material) -> bool:
        """Give the faces the image of their material; False where there is none that can be read."""
        problems = []
        for key in ("map_kd", "map_ka", "map_ke"):
            image = material.maps.get(key)
            if image is None or not len(faces):
                continue
            try:
                for tile, part in self._tiles(image.file, material, faces).items():
                    file = self._find(tile, material)
                    self._put(self._place(part, image), self._textured(name, material, key, image, file))
                return True
            except images.ImageError as error:
                problems.append(
                    f"the texture of material {name!r} ({material.file.name}: map_{key[4:].capitalize()}) {error}"
                )
        self.mesh.notes.extend(
            f"{p}; that part is rendered without it and may turn about an axis unseen" for p in problems
        )
        return False

    def _find(self, reference: str, material: mtl.Material) -> Path:
        """Beside the material library first, then beside the mesh. Raises ImageError for the first."""
        try:
            return images.find(reference, material.file.parent)
        except images.ImageError:
            if self.path.parent == material.file.parent:
                raise
            return images.find(reference, self.path.parent)

    def _tiles(
        self, reference: str, material: mtl.Material, faces: NDArray[np.integer]
    ) -> dict[str, NDArray[np.integer]]:
        """Image -> faces: one, or one a UDIM tile where the file's name has a tile's number and the others exist too."""
        if _tile_file(reference, 0, 0) is None:
            return {reference: faces}
        index = self.mesh.faces if self.mesh.uv_index is None else self.mesh.uv_index
        assert self.mesh.uv is not None
        tile = np.floor(np.nan_to_num(self.mesh.uv[index[faces]].mean(1))).astype(np.int64).clip(0, (9, 899))
        found = {}
        for u, v in np.unique(tile, axis=0).tolist():
            found[_tile_file(reference, u, v) or reference] = faces[(tile == (u, v)).all(1)]
        if "<" not in reference:
            try:
                for name in found:
                    self._find(name, material)
            except images.ImageError:
                return {reference: faces}  # a name with a number in it, tiled as any other
        return found

    def _place(self, faces: NDArray[np.integer], image: mtl.Map) -> NDArray[np.integer]:
        """Scale and move the texture coordinates of ``faces`` as the map says; returns them."""
        if image.scale == (1.0, 1.0) and image.offset == (0.0, 0.0):
            return faces
        mesh = self.mesh
        assert mesh.uv is not None
        index = (mesh.faces if mesh.uv_index is None else mesh.uv_index).copy()
        rows, again = np.unique(index[faces], return_inverse=True)
        placed = mesh.uv[rows] * np.array(image.scale, np.float32) + np.array(image.offset, np.float32)
        index[faces] = again.reshape(-1, 3) + len(mesh.uv)
        mesh.uv, mesh.uv_index = np.concatenate([mesh.uv, placed]), index.astype(np.int32)
        return faces

    def _textured(self, name: str, material: mtl.Material, key: str, image: mtl.Map, file: Path) -> Surface:
        if file not in self._pixels:
            try:
                self._pixels[file] = images.read(file)
            except images.ImageError as error:
                raise images.ImageError(f"{file}: {error}") from error
        pixels = self._pixels[file]
        source = f"texture {file.name} ({pixels.shape[1]} x {pixels.shape[0]})"
        if (image.base, image.gain) != (0.0, 1.0):
            pixels = (255 * image.base + image.gain * pixels.astype(np.float32)).clip(0, 255).astype(np.uint8)
        factor = (1.0, 1.0, 1.0)
        color = material.colors.get("kd")
        if key == "map_kd" and color is not None and max(color) - min(color) >= _TINT:
            factor, source = color, f"{source} x Kd {_rgb(color)}"
        wrap = ("clamp", "clamp") if image.clamp else ("repeat", "repeat")
        return Surface(name, "texture", source, factor, texture=Texture(pixels, wrap))


def _rgb(color: Sequence[float]) -> str:
    return "/".join(str(round(255 * c)) for c in color)
