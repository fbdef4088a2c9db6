"""Mesh files written by hand, for tests of readers: a quad strip whose patches are told apart, and the colour of a point."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pose.mesh import ObjectModel, read_object

RED, GREEN, BLUE = (190, 30, 40), (30, 170, 60), (40, 50, 200)
LEFT, RIGHT = (0.05, 0.11), (0.15, 0.07)
"""Points of the left and of the right quad of ``STRIP``, off every diagonal and texel border."""
STRIP = np.array([[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0, 0.2, 0], [0.1, 0.2, 0], [0.2, 0.2, 0]])
"""Two quads side by side in the plane z = 0, which face +z: (0, 1, 4, 3) and (1, 2, 5, 4)."""
QUADS = [(0, 1, 4, 3), (1, 2, 5, 4)]


def load(path: Path, **spec: Any) -> tuple[ObjectModel, list[str]]:
    """The model, and what is said of it."""
    model = read_object(ObjectSpec("thing", path, **spec))
    return model, [model.description, *model.warnings]


def color_at(item: ObjectModel, x: float, y: float) -> list[int]:
    """RGB of the surface at (x, y, 0), mesh as loaded: nearest texel, or the vertices' colours interpolated."""
    arrays = item.arrays
    corners = (arrays.vertices.astype(np.float64) + item.center)[arrays.faces][..., :2]
    edges = np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], 2)
    flat = np.abs(np.linalg.det(edges)) > 1e-12
    bary = np.zeros((len(edges), 2))
    bary[flat] = np.linalg.solve(edges[flat], (np.array([x, y]) - corners[flat, 0])[..., None])[..., 0]
    weights = np.stack([1 - bary.sum(1), bary[:, 0], bary[:, 1]], 1)
    inside = np.flatnonzero(flat & (weights > -1e-9).all(1))
    face, w = inside[0], weights[inside[0]]
    if arrays.texture is None:
        return [int(v) for v in np.round(255 * w @ arrays.colors[arrays.faces[face]])]
    assert arrays.uv is not None
    height, width = arrays.texture.shape[:2]
    u, v = w @ arrays.uv[face]
    return [int(c) for c in arrays.texture[int(np.floor((1 - v) * height)) % height, int(np.floor(u * width)) % width]]


def png(path: Path, color: tuple[int, int, int], size: int = 8) -> Path:
    Image.new("RGB", (size, size), color).save(path)
    return path


def stripes(*colors: tuple[int, int, int], size: int = 16) -> Image.Image:
    """Vertical stripes from left to right."""
    picture = np.zeros((size, size, 3), np.uint8)
    for part, color in zip(np.array_split(np.arange(size), len(colors)), colors, strict=True):
        picture[:, part] = color
    return Image.fromarray(picture)


def obj(path: Path, body: str, mtl: str | bytes | None = None) -> Path:
    """The strip as an OBJ with texture coordinates 0..1 on each quad; ``body`` has the usemtl and f lines."""
    lines = "".join("v {:g} {:g} {:g}\n".format(*p) for p in STRIP) + "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    head = ""
    if mtl is not None:
        path.with_suffix(".mtl").write_bytes(mtl.encode() if isinstance(mtl, str) else mtl)
        head = f"mtllib {path.with_suffix('.mtl').name}\n"
    path.write_text(head + lines + body)
    return path


LEFT_FACE, RIGHT_FACE = "f 1/1 2/2 5/3 4/4\n", "f 2/1 3/2 6/3 5/4\n"


class Gltf:
    """A glTF document in the making: ``json`` may be changed at will before ``save``."""

    TYPES = {"f4": 5126, "u2": 5123, "u1": 5121, "i1": 5120, "i2": 5122, "u4": 5125}  # noqa: RUF012

    def __init__(self) -> None:
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scenes": [{"nodes": []}],
            "nodes": [],
            "meshes": [],
            "accessors": [],
            "bufferViews": [],
        }
        self.data = b""

    def entry(self, kind: str, value: dict[str, Any]) -> int:
        self.json.setdefault(kind, []).append(value)
        return len(self.json[kind]) - 1

    def view(self, data: bytes, **more: Any) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **more}
        self.data += data
        return self.entry("bufferViews", view)

    def accessor(self, values: NDArray[Any], **more: Any) -> int:
        values = np.ascontiguousarray(values)
        width = 1 if values.ndim == 1 else values.shape[1]
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[width]
        described = {"componentType": self.TYPES[values.dtype.str[1:]], "count": len(values), "type": kind, **more}
        return self.entry("accessors", {"bufferView": self.view(values.tobytes()), **described})

    def image(self, picture: Image.Image) -> int:
        """A texture of an embedded PNG."""
        out = io.BytesIO()
        picture.save(out, "PNG")
        source = self.entry("images", {"bufferView": self.view(out.getvalue()), "mimeType": "image/png"})
        return self.entry("textures", {"source": source})

    def material(self, **base: Any) -> int:
        return self.entry("materials", {"pbrMetallicRoughness": base})

    def quad(self, which: int, material: int | None = None, **attributes: int) -> dict[str, Any]:
        """A primitive of one quad of the strip; TEXCOORD_0 is 0..1 over it, v down."""
        given = {
            "POSITION": self.accessor(STRIP[list(QUADS[which])].astype("f4")),
            "TEXCOORD_0": self.accessor(np.array([[0, 1], [1, 1], [1, 0], [0, 0]], "f4")),
            **attributes,
        }
        primitive = {"attributes": given, "indices": self.accessor(np.array([0, 1, 2, 0, 2, 3], "u2"))}
        return primitive if material is None else {**primitive, "material": material}

    def mesh(self, *primitives: dict[str, Any], **node: Any) -> int:
        mesh = self.entry("meshes", {"primitives": list(primitives)})
        self.json["scenes"][0]["nodes"].append(self.entry("nodes", {"mesh": mesh, **node}))
        return mesh

    def save(self, path: Path) -> Path:
        text = json.dumps({**self.json, "buffers": [{"byteLength": len(self.data)}]}).encode()
        text += b" " * (-len(text) % 4)
        data = self.data + b"\0" * (-len(self.data) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
        path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks)
        return path
