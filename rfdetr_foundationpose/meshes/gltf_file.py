"""glTF 2.0 containers: JSON, buffers, accessors of every type, images."""

from __future__ import annotations

import base64
import json
import struct
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import images
from .raw import MeshError

Json = dict[str, Any]

_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_COMPRESSED = {
    "KHR_draco_mesh_compression": "Draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_meshopt_compression": "meshopt",
}


def compressed(extension: str) -> MeshError:
    """The error of a file whose geometry is compressed."""
    name = _COMPRESSED[extension]
    return MeshError(
        f"its geometry is compressed with {name} ({extension}), which is not decoded; export it without compression "
        "(Blender: Compression off), or rewrite it: npx @gltf-transform/cli copy IN.glb OUT.glb"
    )


class GltfFile:
    """``json`` is the document; accessors and images are read from it by index. Raises MeshError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        self._binary: bytes | None = None
        text: bytes = data
        if data[:4] == b"glTF":
            text, self._binary = _chunks(data)
        try:
            tree = json.loads(text.decode("utf-8-sig"))
        except (UnicodeDecodeError, ValueError) as error:
            raise MeshError(f"its JSON is damaged ({error})") from error
        if not isinstance(tree, dict):
            raise MeshError("its JSON is no glTF document")
        version = str((tree.get("asset") or {}).get("version", "2.0"))
        if not version.startswith("2"):
            raise MeshError(f"it is glTF {version}; export it as glTF 2.0")
        self.json: Json = tree
        self._buffers: dict[int, bytes] = {}

    def item(self, kind: str, index: Any) -> Json:
        """An entry of the array ``kind`` of the document."""
        every = self.json.get(kind) or []
        if not isinstance(index, int) or not 0 <= index < len(every) or not isinstance(every[index], dict):
            raise MeshError(f"it refers to {kind}[{index!r}], but has {len(every)}")
        entry: Json = every[index]
        return entry

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            buffer = self.item("buffers", index)
            if "uri" in buffer:
                self._buffers[index] = self.resource(str(buffer["uri"]))
            elif self._binary is not None and index == 0:
                self._buffers[index] = self._binary
            else:
                raise MeshError(f"its buffer {index} has no data")
        return self._buffers[index]

    def resource(self, uri: str) -> bytes:
        """Bytes of a data URI or of a file beside the document."""
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            try:
                return base64.b64decode(body) if head.endswith(";base64") else urllib.parse.unquote_to_bytes(body)
            except ValueError as error:
                raise MeshError(f"it embeds data that is damaged ({error})") from error
        try:
            decoded = urllib.parse.unquote(uri)
            return images.find(
                decoded if (self.path.parent / decoded).is_file() else uri, self.path.parent
            ).read_bytes()
        except images.ImageError as error:
            raise MeshError(f"its file {error}; keep it beside the .gltf, or export one .glb") from error

    def view(self, index: Any) -> tuple[bytes, int]:
        """Bytes of a buffer view and its stride, 0 where packed."""
        view = self.item("bufferViews", index)
        for extension in _COMPRESSED:
            if extension in (view.get("extensions") or {}):
                raise compressed(extension)
        start, length = _count(view, "byteOffset", 0), _count(view, "byteLength")
        buffer = self._buffer(view.get("buffer"))  # type: ignore[arg-type]
        if start + length > len(buffer):
            raise MeshError(f"its buffer ends at byte {len(buffer)} of {start + length}; is it cut off?")
        return buffer[start : start + length], _count(view, "byteStride", 0)

    def accessor(self, index: Any) -> NDArray[np.generic]:
        """(count, width) values as stored, sparse ones filled in."""
        accessor = self.item("accessors", index)
        try:
            kind, width = np.dtype(_TYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        except (KeyError, TypeError):
            raise MeshError(f"its accessor {index} has no known type") from None
        count = _count(accessor, "count")
        if "bufferView" in accessor:
            values = self._read(accessor["bufferView"], _count(accessor, "byteOffset", 0), count, kind, width)
        elif count > 50_000_000:
            raise MeshError(f"its accessor {index} claims {count} values without data")
        else:
            values = np.zeros((count, width), kind)
        sparse = accessor.get("sparse")
        if isinstance(sparse, dict):
            many = _count(sparse, "count")
            at, new = sparse.get("indices") or {}, sparse.get("values") or {}
            where = self._read(
                at.get("bufferView"), _count(at, "byteOffset", 0), many, np.dtype(_TYPES[at["componentType"]]), 1
            )
            if len(where) and int(where.max()) >= count:
                raise MeshError(f"its accessor {index} replaces values beyond its end")
            values = values.copy()
            values[where[:, 0]] = self._read(new.get("bufferView"), _count(new, "byteOffset", 0), many, kind, width)
        return values

    def _read(self, view: Any, offset: int, count: int, kind: np.dtype, width: int) -> NDArray[np.generic]:
        data, stride = self.view(view)
        size = kind.itemsize * width
        stride = stride or size
        if count == 0:
            return np.zeros((0, width), kind)
        if stride < size or offset + (count - 1) * stride + size > len(data):
            raise MeshError(f"an accessor of {count} values reaches beyond its buffer view of {len(data)} bytes")
        return np.ndarray((count, width), kind, data, offset, (stride, kind.itemsize))

    def floats(self, index: Any, *, colors: bool = False) -> NDArray[np.float32]:
        """(count, width) float32; normalized integers, and integer colours in any case, are scaled as glTF says."""
        values: NDArray[Any] = self.accessor(index)
        if values.dtype.kind == "f" or not (self.item("accessors", index).get("normalized") or colors):
            return values.astype(np.float32)
        return np.maximum(values.astype(np.float32) / float(np.iinfo(values.dtype).max), -1)

    def image(self, index: Any) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 sRGB. Raises ImageError that names it."""
        entry = self.item("images", index)
        uri = entry.get("uri")
        if uri is None:
            try:
                return images.read(self.view(entry.get("bufferView"))[0])
            except images.ImageError as error:
                raise images.ImageError(f"in the file (image {index}): {error}") from error
        if str(uri).startswith("data:"):
            try:
                return images.read(self.resource(str(uri)))
            except images.ImageError as error:
                raise images.ImageError(f"in the file (image {index}): {error}") from error
        decoded = urllib.parse.unquote(str(uri))
        raw = self.path.parent / str(uri)  # some exporters do not encode names that have a percent sign
        file = raw if raw.is_file() else images.find(decoded, self.path.parent)
        try:
            return images.read(file)
        except images.ImageError as error:
            raise images.ImageError(f"{decoded!r}: {error}") from error

    def image_name(self, index: Any) -> str:
        """What a person would call it."""
        entry = self.item("images", index)
        uri = str(entry.get("uri", "data:"))
        return str(entry.get("name") or f"image {index}") if uri.startswith("data:") else urllib.parse.unquote(uri)


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """JSON and binary chunk of a GLB."""
    if len(data) < 20:
        raise MeshError("it ends within its GLB header; is it cut off?")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise MeshError(f"it is GLB version {version}; export it as glTF 2.0")
    if length > len(data):
        raise MeshError(f"it has {len(data)} of the {length} bytes that its header says; is it cut off?")
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        found.setdefault(data[at + 4 : at + 8], data[at + 8 : at + 8 + size])
        at += 8 + size
    if b"JSON" not in found:
        raise MeshError("its GLB has no JSON chunk")
    return found[b"JSON"], found.get(b"BIN\0")


def _count(entry: Json, key: str, default: int | None = None) -> int:
    value = entry.get(key, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or value < 0:
        raise MeshError(f"its glTF JSON has {key} = {value!r}, where a count belongs")
    return value
