"""Messages to arrays: every encoding, padding, byte order, compressed transports, and what is refused."""

from __future__ import annotations

import array
import struct

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import CompressedImage, Image

from rfdetr_foundationpose.ros import conversions
from rfdetr_foundationpose.types import InputError

HEIGHT, WIDTH = 6, 8


def picture() -> np.ndarray:
    """(H, W, 3) RGB whose left half is orange and right half blue: smooth enough for Bayer and YUV."""
    rgb = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:, : WIDTH // 2] = (220, 120, 20)
    rgb[:, WIDTH // 2 :] = (20, 40, 200)
    return rgb


def image(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<")).reshape(height, -1).view(np.uint8)
    rows = np.pad(rows.reshape(height, -1), ((0, 0), (0, padding)), constant_values=99)
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=int(big_endian))
    message.data = array.array("B", rows.tobytes())
    return message


def shares_memory(message: Image, pixels: np.ndarray) -> bool:
    return np.shares_memory(pixels, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("rgb8", None),
        ("bgr8", cv2.COLOR_RGB2BGR),
        ("8UC3", cv2.COLOR_RGB2BGR),
        ("rgba8", cv2.COLOR_RGB2RGBA),
        ("bgra8", cv2.COLOR_RGB2BGRA),
    ],
)
def test_colour_encodings(encoding, code, padding):
    rgb = picture()
    message = image(rgb if code is None else cv2.cvtColor(rgb, code), encoding, padding)
    got = conversions.image_to_rgb(message)
    np.testing.assert_array_equal(got, rgb)
    assert shares_memory(message, got) == encoding.startswith("rgb")


def test_mono8_becomes_grey():
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    got = conversions.image_to_rgb(image(grey, "mono8"))
    np.testing.assert_array_equal(got, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns(pattern):
    """The pattern names the colours of the first 2x2 pixels; areas of one colour come back as that colour."""
    rgb = np.repeat(np.repeat(picture(), 4, 0), 4, 1)
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for i, letter in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(letter)]
    got = conversions.image_to_rgb(image(mosaic, f"bayer_{pattern}8"))
    inner = np.s_[4:-4, 4:12]
    np.testing.assert_array_equal(got[inner], rgb[inner])


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "UYVY"), ("yuv422_yuy2", "YUYV")])
def test_yuv422(encoding, order):
    grey = {"U": 128, "V": 128, "Y": 130}
    message = image(
        np.tile(np.array([grey[c] for c in order], np.uint8), (HEIGHT, WIDTH // 2)).reshape(HEIGHT, WIDTH, 2), encoding
    )
    got = conversions.image_to_rgb(message)
    assert got.shape == (HEIGHT, WIDTH, 3)
    assert np.ptp(got) <= 1
    assert abs(int(got[0, 0, 0]) - 133) <= 3


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 4, 3])
def test_depth_in_millimetres_and_metres(padding, big_endian):
    millimetres = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 257
    message = image(millimetres, "16UC1", padding, big_endian)
    depth, scale = conversions.image_to_depth(message, 0.001)
    assert (depth.dtype, scale) == (np.uint16, 0.001)
    np.testing.assert_array_equal(depth, millimetres)
    assert shares_memory(message, depth) == (not big_endian and padding % 2 == 0)

    metres = (millimetres / 1000).astype(np.float32)
    metres[0, 0] = np.nan
    depth, scale = conversions.image_to_depth(image(metres, "32FC1", padding, big_endian), 0.001)
    assert (depth.dtype, scale) == (np.float32, 1.0)
    np.testing.assert_array_equal(depth, metres)


def test_depth_unit_is_the_parameters():
    _, scale = conversions.image_to_depth(image(np.ones((2, 2), np.uint16), "16UC1"), 0.00025)
    assert scale == 0.00025


def test_views_are_what_torch_takes():
    import torch

    for padding in (0, 5):
        got = conversions.image_to_rgb(image(picture(), "rgb8", padding))
        np.testing.assert_array_equal(torch.from_numpy(got).numpy(), picture())
        depth, _ = conversions.image_to_depth(image(np.ones((4, 4), np.uint16), "16UC1", padding), 0.001)
        assert int(torch.from_numpy(depth).to(torch.int32).sum()) == 16


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_compressed_colour(extension):
    big = np.repeat(np.repeat(picture(), 8, 0), 8, 1)
    data = cv2.imencode(extension, cv2.cvtColor(big, cv2.COLOR_RGB2BGR))[1].tobytes()
    got = conversions.compressed_to_rgb(CompressedImage(format="rgb8; compressed bgr8", data=array.array("B", data)))
    assert got.shape == big.shape
    assert np.abs(got.astype(int) - big)[8:-8, 8:24].max() <= (0 if extension == ".png" else 8)


def compressed_depth(values: np.ndarray, format: str, header: bytes) -> CompressedImage:
    png = cv2.imencode(".png", values)[1].tobytes()
    return CompressedImage(format=format, data=array.array("B", header + png))


@pytest.mark.parametrize("header", [bytes(12), b""])
def test_compressed_depth_of_millimetres(header):
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 100
    depth, scale = conversions.compressed_to_depth(
        compressed_depth(values, "16UC1; compressedDepth png", header), 0.001
    )
    np.testing.assert_array_equal(depth, values)
    assert scale == 0.001


def test_compressed_depth_of_quantized_metres():
    """Encoded as compressed_depth_image_transport does: quantA = p (p + 1), quantB = 1 - quantA / depth_max."""
    metres = np.linspace(0.3, 9.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    metres[0, 0] = np.nan
    png_level, depth_max = 100.0, 10.0
    quant_a = png_level * (png_level + 1)
    quant_b = 1 - quant_a / depth_max
    with np.errstate(invalid="ignore"):
        values = np.where(np.isfinite(metres), quant_a / metres + quant_b, 0).astype(np.uint16)
    message = compressed_depth(values, "32FC1; compressedDepth", struct.pack("<iff", 1, quant_a, quant_b))
    depth, scale = conversions.compressed_to_depth(message, 0.001)
    assert (depth.dtype, scale) == (np.float32, 1.0)
    assert depth[0, 0] == 0
    np.testing.assert_allclose(depth.ravel()[1:], metres.ravel()[1:], rtol=0.002)


def test_mask():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[2, 3] = 255
    got = conversions.image_to_mask(image(mask, "mono8"))
    assert got.dtype == bool
    assert got.sum() == 1
    with pytest.raises(InputError, match="mono8"):
        conversions.image_to_mask(image(picture(), "rgb8"))


def spoiled(**fields: object) -> Image:
    message = image(picture(), "rgb8")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        (spoiled(encoding="rgb16"), "bad_encoding", "supported are rgb8"),
        (spoiled(step=23), "bad_step", "step 23"),
        (spoiled(width=0), "empty_image", "0x6"),
        (spoiled(data=array.array("B")), "empty_image", "0 bytes"),
        (spoiled(data=array.array("B", bytes(40))), "truncated_image", "expected 144"),
    ],
)
def test_unusable_images_are_refused_with_what_is_wrong(message, kind, words):
    with pytest.raises(InputError, match=words) as caught:
        conversions.image_to_rgb(message)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no data"),
        (bytes(12) + b"RVL" * 20, "not rvl"),
        (bytes(12) + b"\x89PNG\r\n\x1a\n" + b"x" * 50, "cannot be decoded"),
    ],
)
def test_unusable_compressed_depth_is_refused(data, words):
    with pytest.raises(InputError, match=words):
        conversions.compressed_to_depth(
            CompressedImage(format="16UC1; compressedDepth", data=array.array("B", data)), 0.001
        )


def test_garbage_jpeg_is_refused():
    with pytest.raises(InputError) as caught:
        conversions.compressed_to_rgb(CompressedImage(format="jpeg", data=array.array("B", b"\xff\xd8garbage" * 9)))
    assert caught.value.kind == "bad_compressed"


def test_depth_with_a_colour_encoding_is_refused():
    with pytest.raises(InputError, match="16UC1"):
        conversions.image_to_depth(image(picture(), "rgb8"), 0.001)
