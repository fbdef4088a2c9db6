"""sensor_msgs/Image and CompressedImage by their fields, and small pictures to fill them with."""

from __future__ import annotations

import array
from types import SimpleNamespace

import numpy as np

HEIGHT, WIDTH = 6, 8


def Image(**fields: object) -> SimpleNamespace:
    """As rclpy and rosbags have it."""
    return SimpleNamespace(**fields)


def CompressedImage(format: str, data: array.array) -> SimpleNamespace:
    return SimpleNamespace(format=format, data=data)


def picture() -> np.ndarray:
    """(H, W, 3) RGB whose left half is orange and right half blue: smooth enough for Bayer and YUV."""
    rgb = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:, : WIDTH // 2] = (220, 120, 20)
    rgb[:, WIDTH // 2 :] = (20, 40, 200)
    return rgb


def image(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> SimpleNamespace:
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<")).reshape(height, -1).view(np.uint8)
    rows = np.pad(rows.reshape(height, -1), ((0, 0), (0, padding)), constant_values=99)
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=int(big_endian))
    message.data = array.array("B", rows.tobytes())
    return message


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """(H, W) Bayer mosaic of a colour picture (H, W, 3)."""
    plane = np.empty(rgb.shape[:2], rgb.dtype)
    for i, letter in enumerate(pattern):
        plane[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(letter)]
    return plane
