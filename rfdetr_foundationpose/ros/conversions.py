"""Image, CompressedImage and CameraInfo messages as arrays, without a copy where the layout allows it.

Functions take messages by their fields, so they also serve messages of other ROS implementations.
Every unusable message is an InputError whose ``kind`` is the counter of the skipped frame.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import CameraIntrinsics, InputError

# encoding -> (channels, OpenCV code to RGB; None: already RGB order, extra channels are cut off)
_COLOR: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "rgba8": (4, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    # OpenCV names a Bayer pattern by its second row, ROS by its first.
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
}
_DEPTH: dict[str, type[np.generic]] = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}

_PNG = b"\x89PNG\r\n\x1a\n"
# compressed_depth_image_transport puts a ConfigHeader before the PNG: int32 format, float32 quantA, float32 quantB.
_DEPTH_HEADER = 12


def stamp_ns(header: Any) -> int:
    """Nanoseconds of a std_msgs/Header stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def image_to_rgb(msg: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image: a view for rgb8 and rgba8, one pass for the others."""
    if msg.encoding not in _COLOR:
        raise InputError("bad_encoding", f"rgb image has encoding {msg.encoding!r}; supported are {', '.join(_COLOR)}")
    channels, code = _COLOR[msg.encoding]
    pixels = _pixels(msg, np.dtype(np.uint8), channels, "rgb")
    if code is None:
        return pixels[:, :, :3]
    if channels == 1:
        pixels = pixels[:, :, 0]
    try:
        return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    except cv2.error as error:
        raise InputError(
            "bad_rgb", f"{msg.encoding} image of {msg.width}x{msg.height} cannot be decoded: {error}"
        ) from None


def image_to_depth(msg: Any, depth_unit: float) -> tuple[NDArray[Any], float]:
    """Depth (H, W), uint16 or float32, with the scale that makes it metres; a view unless the byte order differs.

    depth_unit: metres per unit of 16UC1. 32FC1 is metres already.
    """
    if msg.encoding not in _DEPTH:
        raise InputError(
            "bad_encoding",
            f"depth image has encoding {msg.encoding!r}; supported are 16UC1 (units of {depth_unit:g} m) and 32FC1 (m)",
        )
    dtype = np.dtype(_DEPTH[msg.encoding])
    depth = _pixels(msg, dtype, 1, "depth")[:, :, 0]
    return depth, (1.0 if dtype == np.float32 else depth_unit)


def image_to_mask(msg: Any) -> NDArray[np.bool_]:
    """(H, W) bool of a mono8 image; any value but 0 is set."""
    if msg.encoding not in ("mono8", "8UC1"):
        raise InputError("bad_mask", f"mask has encoding {msg.encoding!r}, expected mono8")
    mask: NDArray[np.bool_] = _pixels(msg, np.dtype(np.uint8), 1, "mask")[:, :, 0] != 0
    return mask


def compressed_to_rgb(msg: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a sensor_msgs/CompressedImage (JPEG, PNG or what else OpenCV reads)."""
    image = _imdecode(msg.data, cv2.IMREAD_COLOR, "rgb", msg.format)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def compressed_to_depth(msg: Any, depth_unit: float) -> tuple[NDArray[Any], float]:
    """Depth of a CompressedImage as image_to_depth gives it: compressedDepth PNG (16UC1, quantized 32FC1) or plain PNG.

    Quantized 32FC1 holds inverse depth (compressed_depth_image_transport): depth = quantA / (value - quantB), 0 is none.
    """
    data = np.frombuffer(msg.data, np.uint8)
    if len(data) == 0:
        raise InputError("empty_image", "compressed depth image has no data")
    head = data[: _DEPTH_HEADER + len(_PNG)].tobytes()
    if head.startswith(_PNG):
        values, header = _imdecode(data, cv2.IMREAD_UNCHANGED, "depth", msg.format), None
    elif head[_DEPTH_HEADER:] == _PNG:
        values = _imdecode(data[_DEPTH_HEADER:], cv2.IMREAD_UNCHANGED, "depth", msg.format)
        header = np.frombuffer(head[4:_DEPTH_HEADER], "<f4")
    else:
        raise InputError(
            "bad_compressed",
            f"compressed depth of format {msg.format!r} holds no PNG; set the publisher's compressedDepth format to png (not rvl)",
        )
    if values.ndim != 2 or values.dtype != np.uint16:
        raise InputError(
            "bad_compressed", f"compressed depth decodes to {values.dtype} {values.shape}, expected uint16 (H, W)"
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


def camera_info_to_intrinsics(msg: Any) -> CameraIntrinsics:
    """Intrinsics of the rectified image: P where the driver fills it, else K; region of interest and binning applied."""
    P, K = list(msg.p), list(msg.k)
    fx, cx, fy, cy = (P[0], P[2], P[5], P[6]) if len(P) == 12 and P[0] > 0 else (K[0], K[2], K[4], K[5])
    width, height = msg.roi.width or msg.width, msg.roi.height or msg.height
    bx, by = max(int(msg.binning_x), 1), max(int(msg.binning_y), 1)
    return CameraIntrinsics(
        fx / bx,
        fy / by,
        (cx - msg.roi.x_offset) / bx,
        (cy - msg.roi.y_offset) / by,
        int(width) // bx,
        int(height) // by,
    )


def _imdecode(data: Any, flags: int, what: str, format: str) -> NDArray[Any]:
    buffer = np.frombuffer(data, np.uint8)
    if len(buffer) == 0:
        raise InputError("empty_image", f"compressed {what} image has no data")
    try:
        image = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise InputError("bad_compressed", f"compressed {what} image ({format!r}) cannot be decoded: {error}") from None
    if image is None:
        raise InputError(
            "bad_compressed", f"compressed {what} image ({format!r}, {len(buffer)} bytes) cannot be decoded"
        )
    return image


def _pixels(msg: Any, dtype: np.dtype[Any], channels: int, what: str) -> NDArray[Any]:
    """(H, W, channels) view into the message; a copy only when the machine's byte order differs from the message's."""
    width, height, step = int(msg.width), int(msg.height), int(msg.step)
    row = width * channels * dtype.itemsize
    if width == 0 or height == 0 or len(msg.data) == 0:
        raise InputError("empty_image", f"{what} image of {width}x{height} has {len(msg.data)} bytes")
    if step < row:
        raise InputError(
            "bad_step", f"{what} image has step {step}, but a row of {width} {msg.encoding} pixels is {row} bytes"
        )
    needed = step * (height - 1) + row
    if len(msg.data) < needed:
        raise InputError(
            "truncated_image",
            f"{what} image of {width}x{height} {msg.encoding} has {len(msg.data)} bytes, expected {step * height}",
        )
    big = bool(msg.is_bigendian) and dtype.itemsize > 1
    source = dtype.newbyteorder(">" if big else "<")
    pixels: NDArray[Any] = np.ndarray(
        (height, width, channels), source, msg.data, strides=(step, channels * dtype.itemsize, dtype.itemsize)
    )
    # torch, which reads the array later, takes only strides that are multiples of the item.
    if source != dtype or step % dtype.itemsize:
        return pixels.astype(dtype)
    return pixels
