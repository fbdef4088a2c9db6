"""STL, with the colours that some programs put into its spare bytes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .raw import MeshError, RawMesh, Surface, grey_surface

_ROW = np.dtype([("normal", "<f4", 3), ("points", "<f4", (3, 3)), ("extra", "<u2")])


def read(path: Path) -> RawMesh:
    """The triangles of an ASCII or binary STL. Raises MeshError."""
    data = path.read_bytes()
    colors = None
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else 0
    whole = 84 + 50 * count
    if len(data) >= 84 and (len(data) == whole or (data[:5].lower() != b"solid" or b"facet" not in data[:1000])):
        if len(data) < whole:
            raise MeshError(f"it has {len(data)} of the {whole} bytes that its {count} triangles take; is it cut off?")
        rows = np.frombuffer(data, _ROW, count, 84)
        points = rows["points"].reshape(-1, 3)
        colors = _colors(data[:80], rows["extra"])
    else:
        points = _ascii(data)
    if not len(points):
        raise MeshError("it has no faces; export it as triangles")
    faces = np.arange(len(points), dtype=np.int32).reshape(-1, 3)
    surface = grey_surface("", "STL has no colours")
    if colors is not None:
        surface = Surface("", "face colours", "face colours (in the spare bytes)", colored=True)
    return RawMesh(points, faces, [surface], face_colors=colors, smooth=True)


def _ascii(data: bytes) -> NDArray[np.float64]:
    words = re.findall(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", data, re.IGNORECASE)
    try:
        points = np.array(words, np.float64).reshape(-1, 3)
    except ValueError:
        raise MeshError("a vertex of it is damaged") from None
    if len(points) % 3:
        raise MeshError("its last triangle is not whole; is it cut off?")
    return points


def _colors(header: bytes, extra: NDArray[np.uint16]) -> NDArray[np.float32] | None:
    """(F, 3) of the two dialects: Magics' header names a colour and its bit 15 is off where a face has its own, red lowest;
    VisCAM's bit 15 is on there, blue lowest."""
    at = header.find(b"COLOR=")
    magics = 0 <= at <= 70
    own = (extra & 0x8000 == 0) if magics else (extra & 0x8000 != 0)
    if not magics and not own.any():
        return None
    parts = np.stack([extra & 31, extra >> 5 & 31, extra >> 10 & 31], 1).astype(np.float32) / 31
    if not magics:
        parts = parts[:, ::-1]
    default = np.array(list(header[at + 6 : at + 9]) if magics else [128, 128, 128], np.float32) / 255
    return np.where(own[:, None], parts, default).astype(np.float32)
