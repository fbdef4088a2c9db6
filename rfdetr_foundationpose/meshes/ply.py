"""PLY: what its elements mean as a mesh."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import images, ply_file
from .polygons import triangulate
from .raw import MeshError, RawMesh, Surface, Texture, grey_surface

_COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_UVS = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"), ("s0", "t0"), ("u0", "v0"))
_TEXTURE = re.compile(r"texture[ _]?(?:file)?\s*[:=]?\s+(.+)", re.IGNORECASE)


def read(path: Path) -> RawMesh:
    """The faces or triangle strips of a PLY file. Raises MeshError."""
    file = ply_file.read(path, ("vertex", "face", "tristrips"))
    vertex = file.elements.get("vertex")
    if vertex is None or not {"x", "y", "z"} <= set(vertex.numbers):
        raise MeshError("it has no vertices with x, y and z")
    points = np.stack([vertex.numbers[k] for k in "xyz"], 1)
    if points.dtype.kind != "f":
        points = points.astype(np.float64)
    counts, corners, face = _polygons(file)
    if len(corners) == 0:
        raise MeshError("it has no faces (a point cloud?); export it as triangles")
    if int(corners.min()) < 0 or int(corners.max()) >= len(points):
        raise MeshError(f"a face asks for vertex {int(corners.max())}, but the file has {len(points)}; is it cut off?")
    triangles, owner = triangulate(counts, corners, points)
    whole = len(counts) * 3 == len(corners)
    mesh = RawMesh(points, (corners.reshape(-1, 3) if whole else corners[triangles]).astype(np.int32, copy=False), [])
    mesh.colors = _colors(vertex)
    if {"nx", "ny", "nz"} <= set(vertex.numbers):
        mesh.normals = np.stack([vertex.numbers[f"n{k}"] for k in "xyz"], 1).astype(np.float32)
    if face is not None:
        painted = _colors(face)
        if painted is not None and (mesh.colors is None or np.ptp(mesh.colors, axis=0).max(initial=0) == 0):
            mesh.face_colors = painted[owner]
    _coordinates(mesh, vertex, face, counts, triangles, owner)
    _surfaces(mesh, path, file.comments, face, owner)
    return mesh


def _polygons(
    file: ply_file.PlyFile,
) -> tuple[NDArray[np.int64], NDArray[np.int32], ply_file.Element | None]:
    """Corner counts, corners, and the element whose rows are the polygons (strips have none)."""
    face = file.elements.get("face")
    if face is not None:
        for name in ("vertex_indices", "vertex_index"):
            if name in face.lists:
                return (
                    face.lists[name].counts,
                    face.lists[name].values.astype(np.int32, casting="unsafe", copy=False),
                    face,
                )
    strips = file.elements.get("tristrips")
    if strips is None or "vertex_indices" not in strips.lists:
        return np.zeros(0, np.int64), np.zeros(0, np.int32), None
    lists = strips.lists["vertex_indices"]
    triangles = []
    for strip in np.split(lists.values.astype(np.int64), np.cumsum(lists.counts)[:-1]):
        for part in np.split(strip, np.flatnonzero(strip < 0)):  # -1 begins a new strip
            part = part[part >= 0]
            found = np.stack([part[:-2], part[1:-1], part[2:]], 1) if len(part) > 2 else np.zeros((0, 3), np.int64)
            found[1::2] = found[1::2, ::-1]
            triangles.append(found)
    every = np.concatenate(triangles) if triangles else np.zeros((0, 3), np.int64)
    return np.full(len(every), 3), every.reshape(-1).astype(np.int32), None


def _colors(element: ply_file.Element) -> NDArray[np.float32] | None:
    """(rows, 3) in [0, 1]."""
    for names in _COLORS:
        if set(names) <= set(element.numbers):
            channels = [element.numbers[n] for n in names]
            kind = channels[0].dtype
            values = np.stack(channels, 1).astype(np.float32)
            top = 65535.0 if kind == np.uint16 else 255.0
            if kind.kind == "f" and values.max(initial=0) <= 1:
                top = 1.0
            return np.nan_to_num(values / np.float32(top)).clip(0, 1)
    return None


def _coordinates(
    mesh: RawMesh,
    vertex: ply_file.Element,
    face: ply_file.Element | None,
    counts: NDArray[np.int64],
    triangles: NDArray[np.signedinteger],
    owner: NDArray[np.signedinteger],
) -> None:
    """Texture coordinates: of the corners of faces, else of the vertices."""
    lists = None if face is None else face.lists.get("texcoord")
    if lists is not None and len(lists.values):
        if (lists.counts == 6).all() and (counts == 3).all():
            mesh.uv = lists.values.astype(np.float32, copy=False).reshape(-1, 2)
            mesh.uv_index = triangles.astype(np.int32)
            return
        full = lists.counts == 2 * counts  # faces without an image may have none
        rows = np.cumsum(lists.counts) - lists.counts
        corner = triangles - (np.cumsum(counts) - counts)[owner][:, None]
        index = (rows[owner][:, None] // 2) + corner
        if full.any() and (rows[full] % 2 == 0).all():
            mesh.uv = lists.values[: len(lists.values) // 2 * 2].astype(np.float32).reshape(-1, 2)
            mesh.uv_index = np.where(full[owner][:, None], index, -1).astype(np.int32)
            return
    for names in _UVS:
        if set(names) <= set(vertex.numbers):
            mesh.uv = np.stack([vertex.numbers[n] for n in names], 1).astype(np.float32)
            return


def _surfaces(
    mesh: RawMesh, path: Path, comments: list[str], face: ply_file.Element | None, owner: NDArray[np.signedinteger]
) -> None:
    files = [m[1].strip() for m in map(_TEXTURE.fullmatch, comments) if m]
    number = np.zeros(len(owner), np.int32)
    if face is not None and "texnumber" in face.numbers and len(files) > 1:
        number = face.numbers["texnumber"].astype(np.int32)[owner]
        number[(number < 0) | (number >= len(files))] = -1
    unplaced = mesh.uv is None or (np.zeros(len(owner), bool) if mesh.uv_index is None else (mesh.uv_index < 0).any(1))
    number = np.where(unplaced, -1, number)
    plain = _plain(mesh, files)
    found: dict[int, Surface] = {-1: plain}
    for i in np.unique(number).tolist():
        if i >= 0:
            found[i] = _textured(mesh, path, files, i) or plain
    used = np.unique(number).tolist()
    mesh.surfaces = [found[i] for i in used]
    mesh.surface = None if len(used) == 1 else np.searchsorted(used, number).astype(np.int32)


def _plain(mesh: RawMesh, files: list[str]) -> Surface:
    if mesh.face_colors is not None:
        return Surface("", "face colours", "face colours", colored=True)
    if mesh.colors is not None:
        return Surface("", "vertex colours", "vertex colours", colored=True)
    if files and mesh.uv is None:
        mesh.notes.append(f"it names the image {files[0]!r}, but has no texture coordinates; export them (UVs)")
    return grey_surface("", "its image is missing" if files else "it has neither an image nor colours")


def _textured(mesh: RawMesh, path: Path, files: list[str], i: int) -> Surface | None:
    if not files:
        if mesh.colors is None and mesh.face_colors is None:
            mesh.notes.append(
                "it has texture coordinates but names no image (comment TextureFile NAME), so its texture was not found"
            )
        return None
    try:
        file = images.find(files[i], path.parent)
        pixels = images.read(file)
    except images.ImageError as error:
        words = str(error) if "not found" in str(error) else f"{files[i]!r}: {error}"
        mesh.notes.append(f"its texture {words}; it is rendered without it and may turn about an axis unseen")
        return None
    source = f"texture {file.name} ({pixels.shape[1]} x {pixels.shape[0]})"
    return Surface(file.name if len(files) > 1 else "", "texture", source, texture=Texture(pixels))
