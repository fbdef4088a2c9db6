"""sensor_msgs/Image as arrays, without a copy where the layout allows it.

Functions take messages by their fields, so they serve the messages of rclpy, of rosbags and of ROS 1 alike.
Every unusable message is an InputError whose ``kind`` is the counter of the skipped frame.

OpenCV converts: rosbags-image ignores ``step``, so that rows with padding come out sheared, and expects NV12 in another
layout than drivers send (findings/rosbags-image-padded-rows-and-nv12.sh).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import InputError

# encoding -> (bits, channels, OpenCV code to RGB; None: already RGB order, extra channels are cut off)
_COLOR: dict[str, tuple[int, int, int | None]] = {
    "rgb8": (8, 3, None),
    "rgba8": (8, 4, None),
    "bgr8": (8, 3, cv2.COLOR_BGR2RGB),
    "8UC3": (8, 3, cv2.COLOR_BGR2RGB),
    "bgra8": (8, 4, cv2.COLOR_BGRA2RGB),
    "8UC4": (8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (8, 1, cv2.COLOR_GRAY2RGB),
    "yuv422": (8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "rgb16": (16, 3, None),
    "rgba16": (16, 4, None),
    "bgr16": (16, 3, cv2.COLOR_BGR2RGB),
    "16UC3": (16, 3, cv2.COLOR_BGR2RGB),
    "bgra16": (16, 4, cv2.COLOR_BGRA2RGB),
    "16UC4": (16, 4, cv2.COLOR_BGRA2RGB),
    "mono16": (16, 1, cv2.COLOR_GRAY2RGB),
}
# OpenCV names a Bayer pattern by its second row, ROS by its first.
_BAYER: dict[str, int] = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
_COLOR |= {f"{name}{bits}": (bits, 1, code) for name, code in _BAYER.items() for bits in (8, 16)}
# A plane of brightness, then one of colour, two bytes a pixel: with a pixel for how many of brightness, across and down.
_TWO_PLANES: dict[str, tuple[int, int, int]] = {
    "nv12": (2, 2, cv2.COLOR_YUV2RGB_NV12),
    "nv21": (2, 2, cv2.COLOR_YUV2RGB_NV21),
    "nv16": (2, 1, cv2.COLOR_YUV2RGB_NV12),
    "nv61": (2, 1, cv2.COLOR_YUV2RGB_NV21),
    "nv24": (1, 1, cv2.COLOR_YUV2RGB_NV12),
    "nv42": (1, 1, cv2.COLOR_YUV2RGB_NV21),
}
# A plane of brightness, then two of colour at half the width and height.
_THREE_PLANES: dict[str, int] = {
    **dict.fromkeys(("i420", "iyuv", "yuv420", "yuv420p"), cv2.COLOR_YUV2RGB_I420),
    "yv12": cv2.COLOR_YUV2RGB_YV12,
}
# encoding -> (type, type that becomes of it, metres a unit; None: as ``input.depth_unit`` says)
_DEPTH: dict[str, tuple[type[np.generic], type[np.generic], float | None]] = {
    "16UC1": (np.uint16, np.uint16, None),
    "mono16": (np.uint16, np.uint16, None),
    "32FC1": (np.float32, np.float32, 1.0),
    # Of programs that publish an array of numpy as it is: of floats, and of integers below 0 where there is no depth.
    "64FC1": (np.float64, np.float32, 1.0),
    "16SC1": (np.int16, np.float32, None),
    "32SC1": (np.int32, np.float32, None),
}
COLOR_ENCODINGS = (*_COLOR, *_TWO_PLANES, *_THREE_PLANES)
DEPTH_ENCODINGS = tuple(_DEPTH)
"""Every encoding of a sensor_msgs/Image that is read; docs/formats.md lists them."""


def stamp_ns(header: Any) -> int:
    """Nanoseconds of a std_msgs/Header stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def image_to_rgb(msg: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image: a view for rgb8 and rgba8, one pass for the others.

    Of 16-bit colour the upper eight bits are kept. Raises InputError.
    """
    planes = msg.encoding.lower()
    if planes in _TWO_PLANES:
        return _two_planes(msg, *_TWO_PLANES[planes])
    if planes in _THREE_PLANES:
        return _three_planes(msg, _THREE_PLANES[planes])
    if msg.encoding not in _COLOR:
        known = ", ".join(COLOR_ENCODINGS)
        raise InputError("bad_encoding", f"rgb image has encoding {msg.encoding!r}; supported are {known}")
    bits, channels, code = _COLOR[msg.encoding]
    pixels = _pixels(msg, np.dtype(np.uint16 if bits == 16 else np.uint8), channels, "rgb")
    if bits == 16:
        pixels = (pixels >> 8).astype(np.uint8)
    if code is None:
        return pixels[:, :, :3]
    return _convert(pixels[:, :, 0] if channels == 1 else pixels, code, msg)


def _two_planes(msg: Any, across: int, down: int, code: int) -> NDArray[np.uint8]:
    """NV12 and its kin. Drivers give the height of the picture; some count the rows of both planes instead.

    OpenCV knows NV12 alone: brightness is spread so that colour of higher resolution fits it, and thinned out again.
    """
    height, step, row = int(msg.height), int(msg.step), int(msg.width)
    cells = across * down
    colored, length = 2 // across * step, 2 // across * row  # bytes from row to row of colour, and in one
    if len(msg.data) <= step * height and height * cells % (cells + 2) == 0:
        height = height * cells // (cells + 2)
    rows = height // down
    bright = _rows(msg, np.dtype(np.uint8), 1, "rgb", height)[:, :, 0]
    if len(msg.data) < step * height + colored * (rows - 1) + length:
        raise InputError(
            "truncated_image",
            f"rgb image of {row}x{height} {msg.encoding} has {len(msg.data)} bytes, expected {step * height + colored * rows}",
        )
    color = np.ndarray((rows, length), np.uint8, msg.data, step * height, (colored, 1))
    wide, tall = 2 // across, 2 // down
    picture = np.concatenate([bright.repeat(tall, 0).repeat(wide, 1), color])
    return np.ascontiguousarray(_convert(picture, code, msg)[::tall, ::wide])


def _three_planes(msg: Any, code: int) -> NDArray[np.uint8]:
    """I420 and YV12: rows of colour are half as long as those of brightness, padding included."""
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    bright = _rows(msg, np.dtype(np.uint8), 1, "rgb", height)[:, :, 0]
    if width % 2 or height % 2:
        raise InputError("bad_rgb", f"{msg.encoding} image of {width}x{height}: width and height must be even")
    if len(msg.data) < step * height * 3 // 2 - (step - width):
        raise InputError(
            "truncated_image",
            f"rgb image of {width}x{height} {msg.encoding} has {len(msg.data)} bytes, expected {step * height * 3 // 2}",
        )
    color = np.ndarray((height, width // 2), np.uint8, msg.data, step * height, (step // 2, 1))
    return _convert(np.concatenate([bright, color.reshape(height // 2, width)]), code, msg)


def demosaic(pixels: NDArray[Any], encoding: str) -> NDArray[np.uint8] | None:
    """(H, W, 3) uint8 RGB of a Bayer mosaic (H, W) of 8 or 16 bits; None when ``encoding`` names no Bayer pattern."""
    code = _BAYER.get(encoding.rstrip("0123456789"))
    if code is None or pixels.ndim != 2:
        return None
    values = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    return np.asarray(cv2.cvtColor(values, code), np.uint8)


def image_to_depth(msg: Any, depth_unit: float) -> tuple[NDArray[Any], float]:
    """Depth (H, W), uint16 or float32, with the scale that makes it metres; of 16UC1 and 32FC1 a view unless the byte order differs.

    depth_unit: metres per unit of integers. Floating point is metres already. Raises InputError.
    """
    if msg.encoding not in _DEPTH:
        known = ", ".join(f"{name} (units of {unit or depth_unit:g} m)" for name, (_, _, unit) in _DEPTH.items())
        raise InputError("bad_encoding", f"depth image has encoding {msg.encoding!r}; supported are {known}")
    kind, made, unit = _DEPTH[msg.encoding]
    pixels = _pixels(msg, np.dtype(kind), 1, "depth")[:, :, 0]
    return pixels if kind is made else pixels.astype(made), unit or depth_unit


def image_to_mask(msg: Any) -> NDArray[np.bool_]:
    """(H, W) bool of a mono8 image; any value but 0 is set. Raises InputError."""
    if msg.encoding not in ("mono8", "8UC1"):
        raise InputError("bad_mask", f"mask has encoding {msg.encoding!r}, expected mono8")
    mask: NDArray[np.bool_] = _pixels(msg, np.dtype(np.uint8), 1, "mask")[:, :, 0] != 0
    return mask


def _convert(pixels: NDArray[Any], code: int, msg: Any) -> NDArray[np.uint8]:
    try:
        return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    except cv2.error as error:
        raise InputError(
            "bad_rgb", f"{msg.encoding} image of {msg.width}x{msg.height} cannot be decoded: {first_line(error)}"
        ) from None


def first_line(error: Exception) -> str:
    """What an exception says, without the further lines that OpenCV adds."""
    return str(error).strip().split("\n")[0]


def _pixels(msg: Any, dtype: np.dtype[Any], channels: int, what: str) -> NDArray[Any]:
    return _rows(msg, dtype, channels, what, int(msg.height))


def _rows(msg: Any, dtype: np.dtype[Any], channels: int, what: str, height: int) -> NDArray[Any]:
    """(height, W, channels) view into the message; a copy only when the machine's byte order differs from the message's."""
    width, step = int(msg.width), int(msg.step)
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
