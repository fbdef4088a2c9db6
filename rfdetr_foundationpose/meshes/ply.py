"""PLY: what its elements mean as a mesh."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import images, others, ply_file
from .polygons import triangulate
from .raw import GREY, MeshError, RawMesh, Surface, Texture, grey_surface

_COLORS = (*((f"{p}red", f"{p}green", f"{p}blue") for p in ("", "diffuse_", "ambient_")), ("r", "g", "b"))
_UVS = tuple(
    (a + n, b + n)
    for a, b in (
        *(("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"), ("texture_x", "texture_y")),
        *(("texcoord_u", "texcoord_v"), ("texcoord_s", "texcoord_t"), ("uv_u", "uv_v"), ("tu", "tv"), ("tx", "ty")),
    )
    for n in ("", "0", "1")
)
_TEXTURE = re.compile(r"texture[ _]?(?:file)?\s*[:=]?\s+(.+)", re.IGNORECASE)


def read(path: Path) -> RawMesh:
    """The faces or triangle strips of a PLY file. Raises MeshError."""
    file = ply_file.read(path, ("vertex", "face", "tristrips", "multi_texture_vertex", "multi_texture_face"))
    vertex = file.elements.get("vertex")
    if vertex is None or not {"x", "y", "z"} <= set(vertex.numbers):
        raise MeshError("it has no vertices with x, y and z")
    points = np.stack([vertex.numbers[k] for k in "xyz"], 1)
    if points.dtype.kind != "f":
        points = points.astype(np.float64)
    counts, corners, face = _polygons(file)
    if len(corners) == 0 and "f_dc_0" in vertex.numbers:
        raise MeshError(others.SPLATS)
    if len(corners) == 0:
        raise MeshError("it has no faces (a point cloud?); export it as triangles")
    if int(corners.min()) < 0 or int(corners.max()) >= len(points):
        raise MeshError(f"a face asks for vertex {int(corners.max())}, but the file has {len(points)}; is it cut off?")
    triangles, owner = triangulate(counts, corners, points)
    whole = len(counts) * 3 == len(corners)
    mesh = RawMesh(points, (corners.reshape(-1, 3) if whole else corners[triangles]).astype(np.int32, copy=False), [])
    mesh.colors = _colors(vertex)
    _without_color(mesh, vertex)
    if {"nx", "ny", "nz"} <= set(vertex.numbers):
        mesh.normals = np.stack([vertex.numbers[f"n{k}"] for k in "xyz"], 1).astype(np.float32)
    if face is not None:
        painted = _colors(face)
        if painted is not None and (mesh.colors is None or np.ptp(mesh.colors, axis=0).max(initial=0) == 0):
            mesh.face_colors = painted[owner]
    number = _texture_numbers(face, len(counts))
    several = _several_textures(file, counts)
    if several is None:
        _coordinates(mesh, vertex, face, counts, triangles, owner)
    else:
        mesh.uv, index, number = several
        mesh.uv_index = index[triangles]
    _surfaces(mesh, path, file.comments, number, owner)
    return mesh


def _polygons(
    file: ply_file.PlyFile,
) -> tuple[NDArray[np.int64], NDArray[np.int32], ply_file.Element | None]:
    """Corner counts, corners, and the element whose rows are the polygons (strips have none)."""
    face = file.elements.get("face")
    if face is not None:
        whole = [k for k, v in face.lists.items() if v.values.dtype.kind in "iu"]
        for name in ("vertex_indices", "vertex_index", *(whole if len(whole) == 1 else [])):
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
            if channels[0].dtype == np.int8:  # bytes by the name that C gives them
                channels = [c.view(np.uint8) for c in channels]
            values = np.stack(channels, 1).astype(np.float32)
            highest = float(np.nanmax(values, initial=0))
            top = 255.0 if highest <= 255 else 65535.0
            if channels[0].dtype.kind == "f" and highest <= 1:
                top = 1.0
            return np.nan_to_num(values / np.float32(top)).clip(0, 1)
    return None


def _without_color(mesh: RawMesh, vertex: ply_file.Element) -> None:
    """Vertices that are black and wholly transparent among others are those of objects without colours that were joined with
    coloured ones, as Blender exports them."""
    alpha = vertex.numbers.get("alpha")
    if mesh.colors is None or alpha is None or not alpha.any():
        return
    absent = (alpha == 0) & (mesh.colors == 0).all(1)
    if absent.any():
        mesh.colors[absent] = np.array(GREY, np.float32) / 255
        mesh.notes.append(
            f"{int(absent.sum())} of its {len(absent)} vertices have no colour (black with alpha 0) and are rendered grey"
        )


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


def _texture_numbers(face: ply_file.Element | None, polygons: int) -> NDArray[np.int32]:
    """(P,) which image each polygon has."""
    if face is None or "texnumber" not in face.numbers:
        return np.zeros(polygons, np.int32)
    return face.numbers["texnumber"].astype(np.int32)


def _several_textures(
    file: ply_file.PlyFile, counts: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]] | None:
    """Coordinates, their index for each corner of the polygons, and images (P,), as photogrammetry programs write them
    into elements of their own (``multi_texture_vertex``, ``multi_texture_face``); None without."""
    places, faces = file.elements.get("multi_texture_vertex"), file.elements.get("multi_texture_face")
    if places is None or faces is None or not {"u", "v"} <= set(places.numbers):
        return None
    index = faces.lists.get("texture_vertex_indices")
    if index is None or faces.rows == 0:
        return None
    uv = np.stack([places.numbers["u"], places.numbers["v"]], 1).astype(np.float32)
    polygon = faces.numbers["tn"].astype(np.int64) if "tn" in faces.numbers else np.arange(faces.rows)
    image = faces.numbers["tx"].astype(np.int32) if "tx" in faces.numbers else np.zeros(faces.rows, np.int32)
    inside = (polygon >= 0) & (polygon < len(counts))
    inside[inside] = index.counts[inside] == counts[polygon[inside]]
    corner = np.full(int(counts.sum()), -1, np.int32)
    number = np.full(len(counts), -1, np.int32)
    number[polygon[inside]] = image[inside]
    first, start = np.cumsum(counts) - counts, np.cumsum(index.counts) - index.counts
    lengths = index.counts[inside]
    step = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    given = index.values[np.repeat(start[inside], lengths) + step].astype(np.int32)
    corner[np.repeat(first[polygon[inside]], lengths) + step] = np.where((given >= 0) & (given < len(uv)), given, -1)
    return uv, corner, number


def _surfaces(
    mesh: RawMesh, path: Path, comments: list[str], numbers: NDArray[np.int32], owner: NDArray[np.signedinteger]
) -> None:
    """numbers: (P,) which image each polygon has; of one image alone, those below 0 have none if others have it."""
    files = [m[1].strip() for m in map(_TEXTURE.fullmatch, comments) if m]
    number = np.zeros(len(owner), np.int32)
    if len(files) > 1 or (files and (numbers < 0).any() and (numbers >= 0).any()):
        number = numbers[owner]
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
