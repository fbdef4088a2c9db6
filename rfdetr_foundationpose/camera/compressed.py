"""sensor_msgs/CompressedImage as arrays: image_transport's ``compressed``, ``compressedDepth`` and ``zstd``.

An image is decoded as its pixels lie in the file: a camera matrix belongs to them, so an orientation noted beside them
(EXIF) turns nothing. Every unusable message is an InputError whose ``kind`` is the counter of the skipped frame.
"""

from __future__ import annotations

import io
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray

from ..types import InputError
from .images import demosaic, first_line, image_to_depth, image_to_rgb
from .rvl import decode_rvl

_PNG = b"\x89PNG\r\n\x1a\n"
# compressed_depth_image_transport puts a ConfigHeader before the picture: int32 format, float32 quantA, float32 quantB.
_DEPTH_HEADER = 12
_RVL_SIZE = struct.Struct("<II")  # These are columns and rows.
_LARGEST = 1 << 26  # A damaged header must not ask for all memory: so many pixels are the most.
# zstd_image_transport packs height, width, is_bigendian, step and the length of the encoding's name, which follows.
_WHOLE_IMAGE = struct.Struct("<IIBII")
_ZSTD = b"\x28\xb5\x2f\xfd"


def compressed_to_rgb(msg: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a sensor_msgs/CompressedImage (JPEG, PNG or what else OpenCV reads). Raises InputError.

    ``format`` names the encoding before compression: a Bayer mosaic that was compressed as it is becomes colour here.
    """
    if msg.format == "zstd":
        return image_to_rgb(_whole_image(msg, "rgb"))
    encoding, _, how = msg.format.partition(";")
    if encoding.startswith("bayer_"):
        stored = _imdecode(msg.data, cv2.IMREAD_UNCHANGED, "rgb", msg.format)
        colored = demosaic(stored, encoding.strip())
        if colored is not None:
            return colored
    image = _imdecode(msg.data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, "rgb", msg.format)
    # compressed_image_transport's subscriber: without this note the colours were stored in the order of the encoding.
    if "compressed rgb" in how:
        return np.asarray(image, np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def compressed_to_depth(msg: Any, depth_unit: float) -> tuple[NDArray[Any], float]:
    """Depth (H, W) and its scale to metres of a CompressedImage: compressedDepth in PNG or RVL, or a plain PNG.

    depth_unit: metres per unit of 16UC1. Quantized 32FC1 holds inverse depth (compressed_depth_image_transport):
    depth = quantA / (value - quantB) metres, 0 is none. Raises InputError.
    """
    data = np.frombuffer(msg.data, np.uint8)
    if len(data) == 0:
        raise InputError("empty_image", "compressed depth image has no data")
    if msg.format == "zstd":
        return image_to_depth(_whole_image(msg, "depth"), depth_unit)
    head = data[: _DEPTH_HEADER + len(_PNG)].tobytes()
    header = None
    if head.startswith(_PNG):
        values = _imdecode(data, cv2.IMREAD_UNCHANGED, "depth", msg.format)
    elif head[_DEPTH_HEADER:] == _PNG:
        values = _imdecode(data[_DEPTH_HEADER:], cv2.IMREAD_UNCHANGED, "depth", msg.format)
        header = np.frombuffer(head[4:_DEPTH_HEADER], "<f4")
    elif "rvl" in msg.format.lower():
        values = _rvl(data[_DEPTH_HEADER:], msg.format)
        header = np.frombuffer(head[4:_DEPTH_HEADER], "<f4")
    else:
        raise InputError(
            "bad_compressed",
            f"compressed depth of format {msg.format!r} holds neither PNG nor RVL; record the compressedDepth topic "
            "(JPEG loses depth) or the raw one",
        )
    if values.ndim != 2 or values.dtype != np.uint16:
        raise InputError(
            "bad_compressed",
            f"compressed depth decodes to {values.dtype} {values.shape}, expected uint16 (H, W): pictures to look at hold no depth",
        )
    if "32FC1" not in msg.format:
        return values, depth_unit
    if header is None or not np.isfinite(header).all() or header[0] <= 0:
        raise InputError(
            "bad_compressed", f"32FC1 compressed depth has quantization {header}, expected positive, finite"
        )
    quant_a, quant_b = (float(v) for v in header)
    with np.errstate(divide="ignore"):
        depth = np.float32(quant_a) / (values.astype(np.float32) - np.float32(quant_b))
    depth[values == 0] = 0.0
    return depth, 1.0


def _whole_image(msg: Any, what: str) -> Any:
    """The sensor_msgs/Image that zstd_image_transport packed: with zstd, or with zlib, which its first releases used under
    that name. Raises InputError."""
    data = np.frombuffer(msg.data, np.uint8).tobytes()
    try:
        height, width, big, step, length = _WHOLE_IMAGE.unpack_from(data)
        start = _WHOLE_IMAGE.size + length
        encoding, packed = data[_WHOLE_IMAGE.size : start].decode("ascii"), data[start:]
        most = 3 * height * step
        if length > 64 or most > 24 * _LARGEST:
            raise ValueError(f"its header says {width}x{height}, {step} bytes a row")
        if packed.startswith(_ZSTD):
            pixels = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read(most)
        else:
            pixels = zlib.decompressobj(47).decompress(packed, most)  # 47: with the header of zlib or of gzip
    except (struct.error, ValueError, zlib.error, zstandard.ZstdError) as error:
        raise InputError("bad_compressed", f"compressed {what} image ('zstd') cannot be decoded: {error}") from None
    return SimpleNamespace(height=height, width=width, step=step, is_bigendian=big, encoding=encoding, data=pixels)


def _rvl(data: NDArray[np.uint8], format: str) -> NDArray[np.uint16]:
    if len(data) < _RVL_SIZE.size:
        raise InputError("bad_compressed", f"compressed depth ({format!r}) has {len(data)} bytes: cut off")
    columns, rows = _RVL_SIZE.unpack(data[: _RVL_SIZE.size].tobytes())
    stream = data[_RVL_SIZE.size :]
    if not 0 < columns * rows <= _LARGEST:
        raise InputError(
            "bad_compressed", f"compressed depth ({format!r}) says {columns}x{rows} pixels in {len(stream)} bytes"
        )
    try:
        return decode_rvl(stream, columns * rows).reshape(rows, columns)
    except ValueError as error:
        raise InputError("bad_compressed", f"compressed depth ({format!r}) cannot be decoded: {error}") from None


def _imdecode(data: Any, flags: int, what: str, format: str) -> NDArray[Any]:
    buffer = np.frombuffer(data, np.uint8)
    if len(buffer) == 0:
        raise InputError("empty_image", f"compressed {what} image has no data")
    try:
        image = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise InputError(
            "bad_compressed", f"compressed {what} image ({format!r}) cannot be decoded: {first_line(error)}"
        ) from None
    if image is None:
        raise InputError(
            "bad_compressed", f"compressed {what} image ({format!r}, {len(buffer)} bytes) cannot be decoded"
        )
    return image
