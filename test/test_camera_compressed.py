"""CompressedImage to arrays: JPEG and PNG, compressedDepth in PNG and RVL, the zstd transport, and what is refused."""

from __future__ import annotations

import array
import gzip
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import zstandard

from rfdetr_foundationpose.camera import compressed
from rfdetr_foundationpose.types import InputError
from support.image_messages import HEIGHT, WIDTH, CompressedImage, image, mosaic, picture


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_compressed_colour(extension):
    big = np.repeat(np.repeat(picture(), 8, 0), 8, 1)
    data = cv2.imencode(extension, cv2.cvtColor(big, cv2.COLOR_RGB2BGR))[1].tobytes()
    got = compressed.compressed_to_rgb(CompressedImage(format="rgb8; compressed bgr8", data=array.array("B", data)))
    assert got.shape == big.shape
    assert np.abs(got.astype(int) - big)[8:-8, 8:24].max() <= (0 if extension == ".png" else 8)


def compressed_depth(values: np.ndarray, format: str, header: bytes) -> SimpleNamespace:
    png = cv2.imencode(".png", values)[1].tobytes()
    return CompressedImage(format=format, data=array.array("B", header + png))


@pytest.mark.parametrize("header", [bytes(12), b""])
def test_compressed_depth_of_millimetres(header):
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 100
    depth, scale = compressed.compressed_to_depth(compressed_depth(values, "16UC1; compressedDepth png", header), 0.001)
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
    depth, scale = compressed.compressed_to_depth(message, 0.001)
    assert (depth.dtype, scale) == (np.float32, 1.0)
    assert depth[0, 0] == 0
    np.testing.assert_allclose(depth.ravel()[1:], metres.ravel()[1:], rtol=0.002)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no data"),
        (bytes(12) + b"\xff\xd8JPEG" * 20, "neither PNG nor RVL"),
        (bytes(12) + b"\x89PNG\r\n\x1a\n" + b"x" * 50, "cannot be decoded"),
    ],
)
def test_unusable_compressed_depth_is_refused(data, words):
    with pytest.raises(InputError, match=words):
        compressed.compressed_to_depth(
            CompressedImage(format="16UC1; compressedDepth", data=array.array("B", data)), 0.001
        )


def test_garbage_jpeg_is_refused():
    with pytest.raises(InputError) as caught:
        compressed.compressed_to_rgb(CompressedImage(format="jpeg", data=array.array("B", b"\xff\xd8garbage" * 9)))
    assert caught.value.kind == "bad_compressed"


@pytest.mark.parametrize("pack", [zstandard.ZstdCompressor().compress, zlib.compress, gzip.compress])
def test_the_zstd_transport_holds_whole_images(pack):
    """As zstd_image_transport writes them, with zstd and, in its first releases, with zlib."""

    def packed(message: SimpleNamespace) -> SimpleNamespace:
        name = message.encoding.encode()
        head = struct.pack("<IIBII", message.height, message.width, message.is_bigendian, message.step, len(name))
        return CompressedImage("zstd", array.array("B", head + name + pack(bytes(message.data))))

    rgb = picture()
    np.testing.assert_array_equal(compressed.compressed_to_rgb(packed(image(rgb[..., ::-1], "bgr8", padding=5))), rgb)
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300
    values, scale = compressed.compressed_to_depth(packed(image(depth, "16UC1")), 0.001)
    np.testing.assert_array_equal(values, depth)
    assert scale == 0.001
    cut = packed(image(depth, "16UC1"))
    for length in (3, 19, 24, len(cut.data) - 18):
        with pytest.raises(InputError):
            compressed.compressed_to_depth(CompressedImage("zstd", cut.data[:length]), 0.001)


def turned(data: bytes, kind: str) -> bytes:
    """The same file with an EXIF note that it is to be turned by a quarter."""
    exif = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    if kind == ".jpg":
        block = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    chunk = b"eXIf" + exif
    return data[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_exif_turns_nothing(kind):
    rgb = np.repeat(np.repeat(picture(), 8, 0), 8, 1)
    plain = cv2.imencode(kind, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
    assert cv2.imdecode(np.frombuffer(turned(plain, kind), np.uint8), cv2.IMREAD_COLOR).shape == (64, 48, 3)
    for format in ("jpeg", "bayer_rggb8; jpeg compressed bgr8"):
        got = compressed.compressed_to_rgb(CompressedImage(format, array.array("B", turned(plain, kind))))
        assert got.shape == rgb.shape and abs(int(got[4, 4, 0]) - 220) < 8


@pytest.mark.parametrize(
    ("kind", "format", "depth"),
    [
        (".png", "bayer_rggb8; png compressed ", np.uint8),
        (".png", "bayer_rggb16; png compressed ", np.uint16),
        (".jpg", "bayer_rggb8; jpeg compressed ", np.uint8),
        (".jpg", "bayer_rggb8; jpeg compressed mono8", np.uint8),
    ],
)
def test_a_compressed_bayer_mosaic_is_colour(kind, format, depth):
    rgb = np.repeat(np.repeat(picture(), 8, 0), 8, 1)
    plane = mosaic(rgb, "rggb").astype(depth) * (256 if depth is np.uint16 else 1)
    data = cv2.imencode(kind, plane, [cv2.IMWRITE_JPEG_QUALITY, 100] if kind == ".jpg" else [])[1].tobytes()
    got = compressed.compressed_to_rgb(CompressedImage(format, array.array("B", data)))
    inner = np.s_[8:-8, 8:24]
    assert np.abs(got[inner].astype(int) - rgb[inner]).max() <= (0 if kind == ".png" else 12)


@pytest.mark.parametrize(
    ("format", "order"),
    [("rgb8; png compressed bgr8", "bgr"), ("rgb8; png compressed rgb8", "rgb"), ("png", "bgr"), ("bgr16; png", "bgr")],
)
def test_the_format_says_in_which_order_colours_were_stored(format, order):
    rgb = picture()
    stored = rgb if order == "rgb" else rgb[:, :, ::-1]
    wide = stored.astype(np.uint16) * 256 if "16" in format else stored
    data = cv2.imencode(".png", np.ascontiguousarray(wide))[1].tobytes()
    np.testing.assert_array_equal(compressed.compressed_to_rgb(CompressedImage(format, array.array("B", data))), rgb)


def rvl(values: np.ndarray) -> bytes:
    """The paper's encoder, number by number."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            nibbles.append((value & 7) | (8 if value >> 3 else 0))
            value >>= 3
            if not value:
                return

    flat, i, last = values.ravel().tolist(), 0, 0
    while i < len(flat):
        zeros = next((k for k, v in enumerate(flat[i:]) if v), len(flat) - i)
        i += zeros
        count = next((k for k, v in enumerate(flat[i:]) if not v), len(flat) - i)
        put(zeros)
        put(count)
        for value in flat[i : i + count]:
            step = value - last
            put((step << 1) ^ (step >> 31))
            last = value
        i += count
    nibbles += [0] * (-len(nibbles) % 8)
    words = np.array(nibbles, np.uint32).reshape(-1, 8)
    return (words << np.arange(28, -1, -4, dtype=np.uint32)).sum(1, dtype=np.uint32).astype("<u4").tobytes()


def rvl_message(values: np.ndarray, format: str, quantization: tuple[float, float] = (0.0, 0.0)) -> SimpleNamespace:
    height, width = values.shape
    data = struct.pack("<iffII", 0, *quantization, width, height) + rvl(values)
    return CompressedImage(format, array.array("B", data))


def depth_pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    noisy = rng.integers(0, 65536, (31, 47)).astype(np.uint16)
    holes = (900 + rng.normal(0, 3, (40, 60))).astype(np.uint16)
    holes[rng.random(holes.shape) < 0.3] = 0
    return [noisy, holes, np.zeros((5, 7), np.uint16), np.full((3, 3), 65535, np.uint16)]


@pytest.mark.parametrize("index", range(4))
def test_rvl_depth(index):
    values = depth_pictures()[index]
    depth, scale = compressed.compressed_to_depth(rvl_message(values, "16UC1; compressedDepth rvl"), 0.001)
    assert (depth.dtype, scale) == (np.uint16, 0.001)
    np.testing.assert_array_equal(depth, values)


def test_rvl_of_quantized_metres():
    values = np.array([[0, 1000], [2000, 4000]], np.uint16)
    message = rvl_message(values, "32FC1; compressedDepth rvl", (10100.0, -1009.0))
    depth, scale = compressed.compressed_to_depth(message, 0.001)
    assert scale == 1.0 and depth[0, 0] == 0
    np.testing.assert_allclose(depth[0, 1], 10100 / (1000 + 1009), rtol=1e-6)


@pytest.mark.parametrize("cut", [12, 18, 24, 60])
def test_a_cut_rvl_stream_is_refused(cut):
    message = rvl_message(depth_pictures()[1], "16UC1; compressedDepth rvl")
    with pytest.raises(InputError, match="rvl"):
        compressed.compressed_to_depth(CompressedImage(message.format, message.data[:cut]), 0.001)


def test_damaged_rvl_ends_in_a_reason_or_an_image():
    rng = np.random.default_rng(2)
    message = rvl_message(depth_pictures()[1], "16UC1; compressedDepth rvl")
    outcomes = set()
    for _ in range(200):
        data = array.array("B", message.data)
        for at in rng.integers(12, len(data), 3):
            data[at] = int(rng.integers(256))
        try:
            compressed.compressed_to_depth(CompressedImage(message.format, data), 0.001)
            outcomes.add("image")
        except InputError as error:
            outcomes.add(error.kind)
    assert outcomes == {"image", "bad_compressed"}
