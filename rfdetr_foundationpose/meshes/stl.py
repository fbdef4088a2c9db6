"""STL, with the colours that some programs put into its spare bytes."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .raw import MeshError, RawMesh, Surface, grey_surface

_ROW = np.dtype([("normal", "<f4", 3), ("points", "<f4", (3, 3)), ("extra", "<u2")])
_PIECE = 1 << 23


def read(path: Path) -> RawMesh:
    """The triangles of an ASCII or binary STL. Raises MeshError."""
    colors = None
    with path.open("rb") as file:
        head, size = file.read(1024), path.stat().st_size
    if _is_binary(head, size):
        rows = _rows(path, head, size)
        points = rows["points"].reshape(-1, 3)
        colors = _colors(head[:80], rows["extra"])
        del rows
    else:
        points = _ascii(path)
    if not len(points):
        raise MeshError("it has no faces; export it as triangles")
    faces = np.arange(len(points), dtype=np.int32).reshape(-1, 3)
    surface = grey_surface("", "STL has no colours")
    if colors is not None:
        surface = Surface("", "face colours", "face colours (in the spare bytes)", colored=True)
    return RawMesh(points, faces, [surface], face_colors=colors, smooth=True)


def _is_binary(head: bytes, size: int) -> bool:
    """Many binary files begin with "solid" too."""
    if size < 84 or size == 84 + 50 * int.from_bytes(head[80:84], "little"):
        return size >= 84
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return not text.startswith(b"solid") or b"facet" not in text or b"\0" in text


def _rows(path: Path, head: bytes, size: int) -> NDArray[np.void]:
    """(F,) of ``_ROW``, over the file."""
    count, held = int.from_bytes(head[80:84], "little"), (size - 84) // 50
    if count in (0, 0xFFFFFFFF) and (size - 84) % 50 == 0:  # written as a stream, without going back to the header
        count = held
    if count > held:
        raise MeshError(f"it has {size} of the {84 + 50 * count} bytes that its {count} triangles take; is it cut off?")
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), _ROW, count, 84)


def _ascii(path: Path) -> NDArray[np.floating]:
    found: list[NDArray[np.floating]] = []
    with path.open("rb") as file:
        rest = b""
        while True:
            block = file.read(_PIECE)
            text = (rest + block).replace(b"\r", b"\n")
            end = text.rfind(b"\n") + 1 if block else len(text)
            named = re.sub(rb"^[ \t]*(end)?solid[^\n]*", b"", text[:end], flags=re.IGNORECASE | re.MULTILINE)
            found.append(_numbers(re.findall(rb"vertex\s+(\S+\s+\S+\s+\S+)", named, re.IGNORECASE)))
            if (
                found[-1].size
                and np.spacing(np.float32(np.abs(found[-1]).max())) < 1e-5 * np.ptp(found[-1], axis=0).max()
            ):
                found[-1] = found[-1].astype(np.float32)  # but not in map coordinates, far from the origin
            rest = text[end:]
            if not block:
                break
    points = np.concatenate(found)
    if len(points) % 3:
        raise MeshError("its last triangle is not whole; is it cut off?")
    return points


def _numbers(lines: list[bytes]) -> NDArray[np.float64]:
    """(n, 3) of the lines of vertices."""
    try:
        return np.loadtxt(lines, np.float64, comments=None, ndmin=2).reshape(-1, 3) if lines else _NONE
    except ValueError:
        raise MeshError("a vertex of it is damaged") from None


_NONE = np.zeros((0, 3), np.float64)


def _colors(header: bytes, extra: NDArray[np.uint16]) -> NDArray[np.float32] | None:
    """(F, 3) of the two dialects: Magics' header names a colour and its bit 15 is off where a face has its own, red lowest;
    VisCAM's bit 15 is on there, blue lowest.

    MeshLab writes Magics' header with a grey of 127 into every file, and sets bit 15 where a face has a colour: all spare bytes
    are 0 where none has, and there is bit 15 in all of them where all have.
    """
    at = header.find(b"COLOR=")
    magics = 0 <= at <= 70
    own = (extra & 0x8000 == 0) if magics else (extra & 0x8000 != 0)
    if magics and not extra.any():
        if header[at + 6 : at + 9] == b"\x7f\x7f\x7f":
            return None
        own = ~own
    elif magics and not own.any() and (extra & 0x7FFF).any():
        own = ~own
    if not magics and not own.any():
        return None
    parts = np.stack([extra & 31, extra >> 5 & 31, extra >> 10 & 31], 1).astype(np.float32) / 31
    if not magics:
        parts = parts[:, ::-1]
    default = np.array(list(header[at + 6 : at + 9]) if magics else [128, 128, 128], np.float32) / 255
    return np.where(own[:, None], parts, default).astype(np.float32)
