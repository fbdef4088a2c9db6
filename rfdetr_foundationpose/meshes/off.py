"""OFF: polygons, with colours of vertices or faces. Geomview's prefixes: ST texture, C colour, N normal, 4 and n dimensions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .mtl import decode
from .polygons import triangulate
from .raw import MeshError, RawMesh, Surface, grey_surface

_KEYWORD = re.compile(r"(?P<kind>(?:ST|C|N|4|n)*)(?:OFF|off)(?P<binary>\s+BINARY\b)?(?![A-Za-z])")


def read(path: Path) -> RawMesh:
    """The polygons of an OFF file. Raises MeshError."""
    text = decode(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in (part.partition("#")[0].strip() for part in text.split("\n")) if line]
    if not lines:
        raise MeshError("it is empty; was it copied in full?")
    kind = _KEYWORD.match(lines[0])
    has = "" if kind is None else kind["kind"]
    if kind is not None:
        if kind["binary"] or "4" in has or "n" in has:
            raise MeshError("it is an OFF file that is binary or of another dimension; export it as PLY")
        lines[0] = lines[0][kind.end() :].strip()
        lines = lines[not lines[0] :]
    counts = lines[0].split()[:2] if lines else []
    if len(counts) < 2 or not all(c.isdigit() for c in counts):
        raise MeshError("its first line says no numbers of vertices and faces")
    vertices, faces = int(counts[0]), int(counts[1])
    try:
        if 1 + vertices + faces > len(lines):
            raise MeshError(f"it ends within its {vertices} vertices and {faces} faces; is it cut off?")
        table = _table(lines[1 : 1 + vertices])
        sizes, corners, painted = _faces(lines[1 + vertices : 1 + vertices + faces])
    except MeshError as error:
        free = _free_form(" ".join(lines).split(), vertices, faces, has)
        if free is None:
            raise error from None
        table, sizes, corners = free
        painted = np.full((len(sizes), 3), np.nan)
    if not len(corners):
        raise MeshError("it has no faces; export it as triangles")
    if int(corners.min()) < 0 or int(corners.max()) >= vertices:
        raise MeshError(f"a face asks for vertex {int(corners.max())}, but the file has {vertices}; is it cut off?")
    triangles, owner = triangulate(sizes, corners, table[:, :3])
    mesh = RawMesh(table[:, :3], corners[triangles].astype(np.int32), [])
    if "C" in has and "N" in has and _color_first(table):
        table = np.concatenate([table[:, :3], table[:, 7:10], table[:, 3:7], table[:, 10:]], 1)
    at = 3
    if "N" in has and table.shape[1] >= 6:
        mesh.normals, at = table[:, 3:6], 6
    if table.shape[1] - at in (3, 4) or ("C" in has and table.shape[1] >= at + 3):
        mesh.colors = _scaled(table[:, at : at + 3])
        mesh.surfaces = [Surface("", "vertex colours", "vertex colours", colored=True)]
    elif np.isfinite(painted).all(1).any():
        colors = _scaled(painted)
        grey = 128 / 255
        mesh.face_colors = np.nan_to_num(colors, nan=grey)[owner]
        mesh.surfaces = [Surface("", "face colours", "face colours", colored=True)]
    else:
        mesh.surfaces = [grey_surface("", "it has no colours")]
    return mesh


def _color_first(table: NDArray[np.float64]) -> bool:
    """Whether a vertex is x y z, four bytes of colour, normal, as MeshLab writes it, and not with the normal first."""
    if table.shape[1] < 10:
        return False
    color, normal = table[:, 3:7], table[:, 7:10]
    bytes_alone = bool((color == np.round(color)).all() and color.min() >= 0 and 1 < color.max() <= 255)
    return bytes_alone and not (normal == np.abs(np.round(normal))).all()


def _table(lines: list[str]) -> NDArray[np.float64]:
    """(V, 3 or more) numbers, as many as every vertex has."""
    words = [line.split() for line in lines]
    width = min((len(w) for w in words), default=0)
    if width < 3:
        raise MeshError("a vertex of it has fewer than three numbers")
    try:
        return np.array([w[:width] for w in words], np.float64)
    except ValueError:
        raise MeshError("a vertex of it is damaged") from None


def _faces(lines: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Corner counts (P,), corners, and colours (P, 3) as written, NaN where a face has none."""
    sizes, corners = np.zeros(len(lines), np.int64), []
    colors = np.full((len(lines), 3), np.nan)
    try:
        for i, line in enumerate(lines):
            words = line.split()
            n = sizes[i] = int(words[0])
            if not 0 <= n < len(words):
                raise ValueError
            corners += [int(w) for w in words[1 : 1 + n]]
            if len(words) - 1 - n in (3, 4):  # one number is an index into a colour map that the file does not have
                colors[i] = [float(w) for w in words[1 + n : 4 + n]]
    except ValueError:
        raise MeshError(f"its face {i} is damaged: {line[:60]!r}") from None
    return sizes, np.array(corners, np.int64), colors


def _free_form(
    words: list[str], vertices: int, faces: int, has: str
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]] | None:
    """Vertices (V, 3 or more), corner counts and corners of a file whose rows are broken into lines elsewhere; None where
    its words are not just those, after three counts. Faces have no colours then, since nothing tells where one ends."""
    width = 3 + 3 * ("N" in has) + 4 * ("C" in has) + 2 * ("ST" in has)
    at = 3 + width * vertices
    try:
        table = np.array(words[3:at], np.float64).reshape(vertices, width)
        sizes = np.zeros(min(faces, len(words)), np.int64)
        corners: list[int] = []
        for i in range(faces):
            size = sizes[i] = int(words[at])
            corners += [int(w) for w in words[at + 1 : at + 1 + size]]
            at += 1 + max(size, 0)
    except (ValueError, IndexError):
        return None
    if at != len(words) or int(sizes.sum()) != len(corners):
        return None
    return table, sizes, np.array(corners, np.int64)


def _scaled(colors: NDArray[np.float64]) -> NDArray[np.float32]:
    """In [0, 1], from 0..1 or 0..255; NaN stays."""
    top = 255.0 if np.nanmax(colors, initial=0) > 1 else 1.0
    return (colors / top).clip(0, 1).astype(np.float32)
