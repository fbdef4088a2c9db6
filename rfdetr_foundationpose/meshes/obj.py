"""Wavefront OBJ: geometry. Its materials are resolved in ``obj_surfaces``.

Read in pieces whose lines are parsed by kind at once, which is as fast as reading text gets in numpy and keeps what the
surfaces need (names of materials, polygons, three indices a corner).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .mtl import decode
from .obj_surfaces import resolve
from .polygons import triangulate
from .raw import MeshError, RawMesh

_PIECE = 1 << 21
_ABSENT = int(np.iinfo(np.int32).min)
_WIDEST = 8
"""Numbers of a line that are read: a position with weight and a colour with alpha."""
Ints = NDArray[np.int64]


@dataclass
class _Parts:
    """What the pieces gave so far. blocks: (v or vt or vn) -> arrays; counts: corners of polygons; corners: for v, vt, vn
    the indices of each piece (N,), and how many there are where it has none."""

    blocks: dict[int, list[NDArray[np.floating]]] = field(default_factory=lambda: {1: [], 2: [], 3: []})
    sizes: dict[int, int] = field(default_factory=lambda: {1: 0, 2: 0, 3: 0})
    counts: list[NDArray[np.int32]] = field(default_factory=list)
    corners: tuple[list[NDArray[np.int32] | int], ...] = field(default_factory=lambda: ([], [], []))
    polygons: int = 0
    libraries: list[str] = field(default_factory=list)
    uses: list[tuple[int, str]] = field(default_factory=list)


def read(path: Path) -> RawMesh:
    """The polygons of an OBJ file. Raises MeshError that names the line that is wrong."""
    parts = _Parts()
    line = 1
    for piece in _pieces(path):
        _parse(piece, line, parts)
        line += piece.count(b"\n")
    if parts.sizes[1] == 0 or parts.polygons == 0:
        raise MeshError("it has no faces (a point cloud or lines?); export it as triangles")
    values = _join(parts.blocks[1])
    counts = _joined_counts(parts)
    corners, uv_corners, normal_corners = (_joined_corners(column) for column in parts.corners)
    if corners is None:
        raise MeshError("a face names no vertex")
    if int(corners.max(initial=0)) >= parts.sizes[1]:
        raise MeshError(
            f"a face asks for v {int(corners.max()) + 1}, but the file has {parts.sizes[1]}; is it cut off?"
        )
    notes = []
    for kind, column, name in ((2, uv_corners, "vt"), (3, normal_corners, "vn")):
        if column is not None and int(column.max(initial=0)) >= max(parts.sizes[kind], 1):
            column[column >= parts.sizes[kind]] = -1
            notes.append(
                f"faces ask for '{name}' lines that the file does not have ({parts.sizes[kind]}); they go without"
            )
    triangles, owner = triangulate(counts, corners, values[:, :3])
    at = None if len(counts) * 3 == len(corners) else triangles
    del counts, triangles
    faces = _of_triangles(corners, at)
    if int(faces.min(initial=0)) < 0:
        raise MeshError("a face names no vertex")
    mesh = RawMesh(vertices=values[:, :3], faces=faces, surfaces=[], notes=notes)
    if values.shape[1] >= 6:
        mesh.colors = _colors(values)
        mesh.vertices = values[:, :3].copy()
    del values, corners
    if parts.sizes[3] and normal_corners is not None:
        normal_index = _of_triangles(normal_corners, at)
        if int(normal_index.min(initial=0)) >= 0:
            mesh.normals = _join(parts.blocks[3])[:, :3]
            mesh.normal_index = None if np.array_equal(normal_index, faces) else normal_index
    if parts.sizes[2]:
        mesh.uv = _join(parts.blocks[2])
        uv_index = np.full_like(faces, -1) if uv_corners is None else _of_triangles(uv_corners, at)
        mesh.uv_index = None if np.array_equal(uv_index, faces) else uv_index
    del uv_corners, normal_corners, at
    resolve(mesh, path, parts.libraries, parts.uses, owner)
    return mesh


def _joined_counts(parts: _Parts) -> NDArray[np.int32]:
    """Of all pieces; the parts lose them."""
    counts = np.concatenate(parts.counts)
    parts.counts.clear()
    return counts


def _joined_corners(column: list[NDArray[np.int32] | int]) -> NDArray[np.int32] | None:
    """The indices of all pieces, -1 where a piece has none, None where none has; the list loses them."""
    if all(isinstance(piece, int) for piece in column):
        return None
    found = np.full(sum(p if isinstance(p, int) else len(p) for p in column), -1, np.int32)
    end = len(found)
    while column:
        piece = column.pop()
        first = end - (piece if isinstance(piece, int) else len(piece))
        if not isinstance(piece, int):
            found[first:end] = piece
        end = first
    return found


def _of_triangles(corners: NDArray[np.int32], at: NDArray[np.signedinteger] | None) -> NDArray[np.int32]:
    """(F, 3) from those of the polygons' corners, which are triangles already where ``at`` is None."""
    return corners.reshape(-1, 3) if at is None else corners[at]


def _colors(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """(V, 3) in [0, 1] of vertices x y z r g b, with w before or alpha behind the colour; NaN where a vertex has none."""
    weighted = values.shape[1] == 7 and (values[:, 3] == 1).all() and not (values[:, 6] == 1).all()
    colors = values[:, 4:7] if weighted else values[:, 3:6]
    return np.clip(colors / (255.0 if np.nanmax(colors, initial=0) > 1 else 1.0), 0, 1).astype(np.float32)


def _pieces(path: Path) -> Iterator[bytes]:
    """The file in pieces that end with a line; continued lines are joined, comments and leading blanks removed."""
    with path.open("rb") as raw:
        head = raw.read(2)
        raw.seek(0)
        file: IO[bytes] = raw
        if head in (b"\xff\xfe", b"\xfe\xff"):
            file = io.BytesIO(raw.read().decode("utf-16", "replace").encode())
        rest = b""
        while True:
            block = file.read(_PIECE)
            end = (block.rfind(b"\n") + 1) if block else 0
            if block and (end == 0 or block[:end].rstrip(b"\r\n").endswith(b"\\")):
                rest += block
                continue
            piece, rest = rest + block[:end], block[end:]
            if not block:
                piece += b"\n"
            if b"\\" in piece:
                piece = piece.replace(b"\\\r\n", b"  ").replace(b"\\\n", b" ")
            if b"\r" in piece:
                piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            yield piece.removeprefix(b"\xef\xbb\xbf")
            if not block:
                return


def _parse(piece: bytes, line: int, parts: _Parts) -> None:
    """Add the lines of a piece, of which the first is number ``line`` of the file."""
    if b"\t" in piece or b"\n " in piece or piece[:1] == b" " or b"#" in piece:
        piece = b"\n".join(p.partition(b"#")[0].strip().replace(b"\t", b" ") for p in piece.split(b"\n"))
    text = np.frombuffer(piece, np.uint8)
    ends = np.flatnonzero(text == 10)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else np.zeros(0, np.int64)
    padded = np.concatenate([text, np.zeros(3, np.uint8)])
    first, second, third = padded[starts], padded[starts + 1], padded[starts + 2]
    kind = np.zeros(len(starts), np.uint8)
    kind[(first == ord("v")) & (second == ord(" "))] = 1
    kind[(first == ord("v")) & (second == ord("t")) & (third == ord(" "))] = 2
    kind[(first == ord("v")) & (second == ord("n")) & (third == ord(" "))] = 3
    kind[(first == ord("f")) & ((second == ord(" ")) | (second == ord("o")) & (third == ord(" ")))] = 4
    lengths = ends - starts + 1
    bases = {k: parts.sizes[k] for k in (1, 2, 3)}
    for k, name in ((1, "v"), (2, "vt"), (3, "vn")):
        rows = np.flatnonzero(kind == k)
        if len(rows):
            block = _lines(piece, starts, lengths, rows, len(name))
            table = _table(block, len(rows), name, line, rows)
            parts.blocks[k].append(table if k == 1 else table[:, : 2 if k == 2 else 3].astype(np.float32))
            parts.sizes[k] += len(rows)
    rows = np.flatnonzero(kind == 4)
    before = parts.polygons
    if len(rows):
        seen = {k: bases[k] + np.cumsum(kind == k)[rows] for k in (1, 2, 3)}
        counts, corners = _faces(_lines(piece, starts, lengths, rows, 1), len(rows), line, rows, seen)
        parts.counts.append(counts)
        for every, column in zip(parts.corners, corners, strict=True):
            every.append(int(counts.sum()) if column is None else column)
        parts.polygons += len(rows)
    for i in np.flatnonzero((kind == 0) & ((first == ord("u")) | (first == ord("m")))).tolist():
        key, _, rest = decode(piece[starts[i] : ends[i]]).strip().partition(" ")
        if key == "mtllib":
            parts.libraries.append(rest.strip())
        elif key == "usemtl":
            parts.uses.append((before + int(np.searchsorted(rows, i)), rest.strip()))


def _lines(piece: bytes, starts: Ints, lengths: Ints, rows: Ints, key: int) -> bytes:
    """The lines ``rows``, in a row, without the ``key`` letters that each begins with."""
    breaks = np.flatnonzero(np.diff(rows) != 1)
    runs_from, runs_to = rows[np.concatenate([[0], breaks + 1])], rows[np.concatenate([breaks, [len(rows) - 1]])]
    block = b"".join(
        piece[a:b]
        for a, b in zip(starts[runs_from].tolist(), (starts[runs_to] + lengths[runs_to]).tolist(), strict=True)
    )
    text = np.frombuffer(block, np.uint8).copy()
    at = np.cumsum(lengths[rows]) - lengths[rows]
    for i in range(key):
        text[at + i] = 32
    return text.tobytes()


def _words(block: bytes, lines: int) -> Ints:
    """(lines,) words of each line."""
    text = np.frombuffer(block, np.uint8)
    blank = text <= 32
    begins = np.flatnonzero(blank[:-1] & ~blank[1:])  # every line begins with a blank
    ends = np.flatnonzero(text == 10)
    return np.diff(np.searchsorted(begins, ends), prepend=0)[:lines]


def _table(block: bytes, lines: int, name: str, line: int, rows: Ints) -> NDArray[np.float64]:
    """(lines, k) numbers of lines that each have k."""
    try:
        values = np.loadtxt(io.BytesIO(block), np.float64, comments=None, ndmin=2)
    except ValueError:
        values = np.zeros((0, 0))
    if len(values) != lines:
        values = _uneven(block, lines, name, line, rows)
    if values.shape[1] < (1 if name == "vt" else 3):
        raise MeshError(f"line {line + int(rows[0])} has too few numbers for '{name}'")
    return np.concatenate([values, np.zeros((lines, 1))], 1) if values.shape[1] == 1 else values


def _uneven(block: bytes, lines: int, name: str, line: int, rows: Ints) -> NDArray[np.float64]:
    """Of lines of which some have more numbers, such as a colour: as wide as the widest, NaN where there is none."""
    words = _words(block, lines)
    if int(words.min()) < (1 if name == "vt" else 3):
        raise MeshError(f"line {line + int(rows[int(np.argmin(words))])} has too few numbers for '{name}'")
    table = np.full((lines, min(int(words.max()), _WIDEST)), np.nan)
    every = block.splitlines()
    for width in np.unique(words).tolist():
        some, kept = np.flatnonzero(words == width), min(width, _WIDEST)
        values = _numbers(
            b"".join(b" " + b" ".join(every[i].split()[:kept]) + b"\n" for i in some.tolist()), np.float64
        )
        if len(values) != len(some) * kept:
            raise MeshError(_wrong_line(block, line, rows, name, float))
        table[some, :kept] = values.reshape(-1, kept)
    return table


def _numbers(block: bytes, dtype: type) -> NDArray[np.generic]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of text that is no number: the caller counts
        try:
            return np.fromstring(block, dtype=dtype, sep=" ")  # type: ignore[call-overload,no-any-return]
        except ValueError:
            return np.zeros(0, dtype)


def _wrong_line(block: bytes, line: int, rows: Ints, name: str, number: type) -> str:
    for row, text in zip(rows.tolist(), block.splitlines(), strict=False):
        for word in text.split():
            try:
                number(word)
            except ValueError:
                shown = text.decode("latin-1").strip()[:60]
                return f"line {line + row} is damaged: '{name} {shown}'"
    return f"the '{name}' lines after line {line + int(rows[0])} are damaged"


def _faces(
    block: bytes, lines: int, line: int, rows: Ints, seen: dict[int, Ints]
) -> tuple[NDArray[np.int32], list[NDArray[np.int32] | None]]:
    """Corner counts (lines,) and, for v, vt and vn, the corners' indices (N,) from 0, -1 where one has none, None for all.

    seen: for v, vt and vn, how many the file had before each line, which negative indices count from.
    """
    if b"o" in block[:2]:
        block = block.replace(b"o", b" ")
    counts = _words(block, lines).astype(np.int32)
    slashes, doubles, corners = block.count(b"/"), block.count(b"//"), int(counts.sum())
    columns = {(0, 0): (0,), (corners, 0): (0, 1), (2 * corners, corners): (0, 2), (2 * corners, 0): (0, 1, 2)}.get(
        (slashes, doubles)
    )
    written: list[NDArray[np.int32] | None] = [None, None, None]
    values = _numbers(block.replace(b"/", b" "), np.int32) if columns is not None else np.zeros(0, np.int32)
    if columns is not None and len(values) == corners * len(columns):
        for i, column in enumerate(columns):
            written[column] = np.array(values[i :: len(columns)], np.int32)
    else:
        every = np.full((corners, 3), _ABSENT, np.int32)
        _mixed_corners(block, every, line, rows)
        written = [None if (every[:, k] == _ABSENT).all() else every[:, k].copy() for k in range(3)]
    for column, used in enumerate(written):
        if used is None:
            continue
        if (used == 0).any():
            raise MeshError(f"a face after line {line + int(rows[0])} has the index 0; OBJ counts from 1")
        if int(used.min(initial=1)) > 0:
            used -= 1
            continue
        base = np.repeat(seen[column + 1], counts).astype(np.int64)
        absolute = np.where(used < 0, base + used, used - 1)
        absent = used == _ABSENT
        if (absolute[~absent] < 0).any():
            raise MeshError(f"a face after line {line + int(rows[0])} counts back to before the first vertex")
        used[:] = np.where(absent, -1, absolute)
    return counts, written


def _mixed_corners(block: bytes, result: NDArray[np.int32], line: int, rows: Ints) -> None:
    """Fill (corners, 3) with the numbers as written, of faces that are not all of one form."""
    try:
        for i, word in enumerate(block.split()):
            for k, number in enumerate(word.split(b"/")[:3]):
                if number:
                    value = int(number)
                    if not -(1 << 31) < value < 1 << 31:
                        raise ValueError
                    result[i, k] = value
    except ValueError:
        raise MeshError(_wrong_line(block.replace(b"/", b" "), line, rows, "f", int)) from None


def _join(blocks: list[NDArray[np.floating]]) -> NDArray[np.floating]:
    """One table of all pieces, as wide as the widest, NaN where others have nothing; the list loses them."""
    width = max(b.shape[1] for b in blocks)
    joined = np.full((sum(len(b) for b in blocks), width), np.nan, blocks[0].dtype)
    end = len(joined)
    while blocks:
        block = blocks.pop()
        joined[end - len(block) : end, : block.shape[1]] = block
        end -= len(block)
    return joined
