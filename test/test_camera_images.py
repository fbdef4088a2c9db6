"""sensor_msgs/Image to arrays: every encoding, padding, byte order, and what is refused."""

from __future__ import annotations

import array
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rfdetr_foundationpose.camera import images
from rfdetr_foundationpose.types import InputError
from support.image_messages import HEIGHT, WIDTH, Image, image, mosaic, picture

FORMATS = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
# Encoding -> OpenCV's code from RGB; None: the same bytes.
EIGHT_BITS = {
    "rgb8": None,
    "bgr8": cv2.COLOR_RGB2BGR,
    "8UC3": cv2.COLOR_RGB2BGR,
    "rgba8": cv2.COLOR_RGB2RGBA,
    "bgra8": cv2.COLOR_RGB2BGRA,
    "8UC4": cv2.COLOR_RGB2BGRA,
}
SIXTEEN_BITS = {
    "rgb16": None,
    "bgr16": cv2.COLOR_RGB2BGR,
    "16UC3": cv2.COLOR_RGB2BGR,
    "rgba16": cv2.COLOR_RGB2RGBA,
    "bgra16": cv2.COLOR_RGB2BGRA,
    "16UC4": cv2.COLOR_RGB2BGRA,
}
GREY = ("mono8", "8UC1")
PATTERNS = ("rggb", "bggr", "gbrg", "grbg")
YUV422 = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUYV", "yuyv": "YUYV"}
NV12 = ("nv12", "nv21")
PLANES = ("nv16", "nv61", "nv24", "nv42", "NV24", "i420", "iyuv", "yuv420", "yuv420p", "YV12")
TESTED = {
    *EIGHT_BITS,
    *SIXTEEN_BITS,
    *GREY,
    "mono16",
    *(f"bayer_{pattern}{bits}" for pattern in PATTERNS for bits in (8, 16)),
    *YUV422,
    *NV12,
    *(name.lower() for name in PLANES),
}


CONVERTED = {"64FC1": np.float64, "16SC1": np.int16, "32SC1": np.int32}


def test_every_encoding_is_tested_below():
    assert set(images.COLOR_ENCODINGS) == TESTED, "a new encoding goes into the lists above"
    of_depth = {"16UC1", "mono16", "32FC1", *CONVERTED}
    assert set(images.DEPTH_ENCODINGS) == of_depth, "test_depth_in_millimetres_and_metres"


@pytest.mark.parametrize("encoding", sorted({*images.COLOR_ENCODINGS, *images.DEPTH_ENCODINGS}))
def test_every_encoding_is_in_the_docs(encoding):
    (section,) = re.findall(r"^## Images$(.*?)^## ", FORMATS.read_text(), re.MULTILINE | re.DOTALL)
    known = set(re.findall(r"\w+", section))
    assert encoding in known or (encoding.startswith("bayer_") and "bayer_*" in section)


def shares_memory(message: SimpleNamespace, pixels: np.ndarray) -> bool:
    return np.shares_memory(pixels, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(("encoding", "code"), EIGHT_BITS.items())
def test_colour_encodings(encoding, code, padding):
    rgb = picture()
    message = image(rgb if code is None else cv2.cvtColor(rgb, code), encoding, padding)
    got = images.image_to_rgb(message)
    np.testing.assert_array_equal(got, rgb)
    assert shares_memory(message, got) == encoding.startswith("rgb")


@pytest.mark.parametrize("encoding", GREY)
def test_grey_of_8_bits(encoding):
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    got = images.image_to_rgb(image(grey, encoding))
    np.testing.assert_array_equal(got, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bayer_patterns(pattern):
    """The pattern names the colours of the first 2x2 pixels; areas of one colour come back as that colour."""
    rgb = np.repeat(np.repeat(picture(), 4, 0), 4, 1)
    got = images.image_to_rgb(image(mosaic(rgb, pattern), f"bayer_{pattern}8"))
    inner = np.s_[4:-4, 4:12]
    np.testing.assert_array_equal(got[inner], rgb[inner])


@pytest.mark.parametrize(("encoding", "order"), YUV422.items())
def test_yuv422(encoding, order):
    grey = {"U": 128, "V": 128, "Y": 130}
    message = image(
        np.tile(np.array([grey[c] for c in order], np.uint8), (HEIGHT, WIDTH // 2)).reshape(HEIGHT, WIDTH, 2), encoding
    )
    got = images.image_to_rgb(message)
    assert got.shape == (HEIGHT, WIDTH, 3)
    assert np.ptp(got) <= 1
    assert abs(int(got[0, 0, 0]) - 133) <= 3


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", CONVERTED)
def test_depth_of_other_numbers_becomes_float32(encoding, big_endian):
    kind = CONVERTED[encoding]
    values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * (0.01 if kind == np.float64 else 10) - 20).astype(kind)
    depth, scale = images.image_to_depth(image(values, encoding, 3, big_endian), 0.001)
    assert depth.dtype == np.float32 and scale == (1.0 if kind == np.float64 else 0.001)
    np.testing.assert_allclose(depth, values.astype(np.float32))


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 4, 3])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_depth_in_millimetres_and_metres(encoding, padding, big_endian):
    millimetres = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 257
    message = image(millimetres, encoding, padding, big_endian)
    depth, scale = images.image_to_depth(message, 0.001)
    assert (depth.dtype, scale) == (np.uint16, 0.001)
    np.testing.assert_array_equal(depth, millimetres)
    assert shares_memory(message, depth) == (not big_endian and padding % 2 == 0)

    metres = (millimetres / 1000).astype(np.float32)
    metres[0, 0] = np.nan
    depth, scale = images.image_to_depth(image(metres, "32FC1", padding, big_endian), 0.001)
    assert (depth.dtype, scale) == (np.float32, 1.0)
    np.testing.assert_array_equal(depth, metres)


def test_depth_unit_is_the_parameters():
    _, scale = images.image_to_depth(image(np.ones((2, 2), np.uint16), "16UC1"), 0.00025)
    assert scale == 0.00025


def test_views_are_what_torch_takes():
    import torch

    for padding in (0, 5):
        got = images.image_to_rgb(image(picture(), "rgb8", padding))
        np.testing.assert_array_equal(torch.from_numpy(got).numpy(), picture())
        depth, _ = images.image_to_depth(image(np.ones((4, 4), np.uint16), "16UC1", padding), 0.001)
        assert int(torch.from_numpy(depth).to(torch.int32).sum()) == 16


def test_mask():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[2, 3] = 255
    got = images.image_to_mask(image(mask, "mono8"))
    assert got.dtype == bool
    assert got.sum() == 1
    with pytest.raises(InputError, match="mono8"):
        images.image_to_mask(image(picture(), "rgb8"))


def spoiled(**fields: object) -> SimpleNamespace:
    message = image(picture(), "rgb8")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        (spoiled(encoding="rgb12"), "bad_encoding", "supported are rgb8"),
        (spoiled(step=23), "bad_step", "step 23"),
        (spoiled(width=0), "empty_image", "0x6"),
        (spoiled(data=array.array("B")), "empty_image", "0 bytes"),
        (spoiled(data=array.array("B", bytes(40))), "truncated_image", "expected 144"),
    ],
)
def test_unusable_images_are_refused_with_what_is_wrong(message, kind, words):
    with pytest.raises(InputError, match=words) as caught:
        images.image_to_rgb(message)
    assert caught.value.kind == kind


def test_depth_with_a_colour_encoding_is_refused():
    with pytest.raises(InputError, match="16UC1"):
        images.image_to_depth(image(picture(), "rgb8"), 0.001)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(("encoding", "code"), SIXTEEN_BITS.items())
def test_of_16_bit_colour_the_upper_half_is_kept(encoding, code, padding, big_endian):
    rgb = picture()
    wide = rgb.astype(np.uint16) * 256 + 17
    message = image(wide if code is None else cv2.cvtColor(wide, code), encoding, padding, big_endian)
    np.testing.assert_array_equal(images.image_to_rgb(message), rgb)


def test_mono16_becomes_grey():
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 1000
    got = images.image_to_rgb(image(grey, "mono16"))
    np.testing.assert_array_equal(got, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bayer_of_16_bits(pattern):
    rgb = np.repeat(np.repeat(picture(), 4, 0), 4, 1)
    got = images.image_to_rgb(image(mosaic(rgb.astype(np.uint16) * 256, pattern), f"bayer_{pattern}16"))
    inner = np.s_[4:-4, 4:12]
    np.testing.assert_array_equal(got[inner], rgb[inner])


@pytest.mark.parametrize("padding", [0, 10])
@pytest.mark.parametrize("counts_both_planes", [False, True])
@pytest.mark.parametrize("encoding", NV12)
def test_two_planes(encoding, counts_both_planes, padding):
    """Red above, blue below, as YUV by BT.601: a plane of Y, then U and V (nv12) or V and U (nv21) in turn."""
    yuv = {"red": (82, 90, 240), "blue": (41, 240, 110)}
    luma = np.empty((12, WIDTH), np.uint8)
    chroma = np.empty((6, WIDTH), np.uint8)
    for half, name in enumerate(yuv):
        y, u, v = yuv[name]
        luma[half * 6 : half * 6 + 6] = y
        chroma[half * 3 : half * 3 + 3, 0::2] = u if encoding == "nv12" else v
        chroma[half * 3 : half * 3 + 3, 1::2] = v if encoding == "nv12" else u
    message = image(np.vstack([luma, chroma]), encoding, padding)
    if not counts_both_planes:
        message.height = 12
    got = images.image_to_rgb(message)
    assert got.shape == (12, WIDTH, 3)
    np.testing.assert_allclose(got[2, 3], (255, 0, 0), atol=4)
    np.testing.assert_allclose(got[9, 3], (0, 0, 255), atol=4)


def planes_of(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y (H, W), U and V (H / 2, W / 2) of BT.601 as OpenCV makes them."""
    height, width = rgb.shape[:2]
    flat = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    quarter = height * width // 4
    rest = flat.reshape(-1)[height * width :]
    half = (height // 2, width // 2)
    return flat[:height], rest[:quarter].reshape(half), rest[quarter:].reshape(half)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("encoding", PLANES)
def test_planes_of_every_resolution(encoding, padding):
    """Four patches; each encoding gives what NV12 gives, since no colour changes within a cell of it."""
    rgb = np.zeros((8, 12, 3), np.uint8)
    rgb[:4, :6], rgb[:4, 6:], rgb[4:, :6], rgb[4:, 6:] = (200, 30, 20), (20, 190, 40), (30, 40, 210), (180, 180, 180)
    bright, u, v = planes_of(rgb)
    first, second = (v, u) if encoding.lower() in ("nv61", "nv42", "yv12") else (u, v)
    if encoding.lower().startswith("nv"):
        down, across = (1 if encoding.lower() in ("nv24", "nv42", "nv16", "nv61") else 2), (2 if "6" in encoding else 1)
        full = [p.repeat(2 // down, 0).repeat(2 // across, 1) for p in (first, second)]
        color = [np.stack(full, 2).reshape(full[0].shape[0], -1)]
    else:
        color = [first, second]

    def padded(plane: np.ndarray) -> np.ndarray:
        return np.pad(plane, ((0, 0), (0, padding * plane.shape[1] // 12)), constant_values=77).reshape(-1)

    data = np.concatenate([padded(p) for p in (bright, *color)])
    message = Image(
        height=8, width=12, encoding=encoding, is_bigendian=0, step=12 + padding, data=array.array("B", data.tobytes())
    )
    wanted = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), cv2.COLOR_YUV2RGB_I420)
    np.testing.assert_array_equal(images.image_to_rgb(message), wanted)
    message.data = message.data[: -12 - padding]
    with pytest.raises(InputError, match="bytes, expected"):
        images.image_to_rgb(message)
