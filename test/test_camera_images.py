"""Messages to arrays: every encoding, padding, byte order, compressed transports, and what is refused."""

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

from rfdetr_foundationpose.camera import compressed, images
from rfdetr_foundationpose.types import InputError

HEIGHT, WIDTH = 6, 8


def Image(**fields: object) -> SimpleNamespace:
    """A sensor_msgs/Image by its fields, as rclpy and rosbags have them."""
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


def shares_memory(message: SimpleNamespace, pixels: np.ndarray) -> bool:
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
    got = images.image_to_rgb(message)
    np.testing.assert_array_equal(got, rgb)
    assert shares_memory(message, got) == encoding.startswith("rgb")


def test_mono8_becomes_grey():
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    got = images.image_to_rgb(image(grey, "mono8"))
    np.testing.assert_array_equal(got, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns(pattern):
    """The pattern names the colours of the first 2x2 pixels; areas of one colour come back as that colour."""
    rgb = np.repeat(np.repeat(picture(), 4, 0), 4, 1)
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for i, letter in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(letter)]
    got = images.image_to_rgb(image(mosaic, f"bayer_{pattern}8"))
    inner = np.s_[4:-4, 4:12]
    np.testing.assert_array_equal(got[inner], rgb[inner])


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "UYVY"), ("yuv422_yuy2", "YUYV")])
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
@pytest.mark.parametrize("padding", [0, 4, 3])
def test_depth_in_millimetres_and_metres(padding, big_endian):
    millimetres = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 257
    message = image(millimetres, "16UC1", padding, big_endian)
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


def test_depth_with_a_colour_encoding_is_refused():
    with pytest.raises(InputError, match="16UC1"):
        images.image_to_depth(image(picture(), "rgb8"), 0.001)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("rgb16", None),
        ("bgr16", cv2.COLOR_RGB2BGR),
        ("16UC3", cv2.COLOR_RGB2BGR),
        ("rgba16", cv2.COLOR_RGB2RGBA),
        ("bgra16", cv2.COLOR_RGB2BGRA),
    ],
)
def test_of_16_bit_colour_the_upper_half_is_kept(encoding, code, padding, big_endian):
    rgb = picture()
    wide = rgb.astype(np.uint16) * 256 + 17
    message = image(wide if code is None else cv2.cvtColor(wide, code), encoding, padding, big_endian)
    np.testing.assert_array_equal(images.image_to_rgb(message), rgb)


def test_mono16_becomes_grey():
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 1000
    got = images.image_to_rgb(image(grey, "mono16"))
    np.testing.assert_array_equal(got, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2))


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    plane = np.empty(rgb.shape[:2], rgb.dtype)
    for i, letter in enumerate(pattern):
        plane[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(letter)]
    return plane


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_of_16_bits(pattern):
    rgb = np.repeat(np.repeat(picture(), 4, 0), 4, 1)
    got = images.image_to_rgb(image(mosaic(rgb.astype(np.uint16) * 256, pattern), f"bayer_{pattern}16"))
    inner = np.s_[4:-4, 4:12]
    np.testing.assert_array_equal(got[inner], rgb[inner])


@pytest.mark.parametrize("padding", [0, 10])
@pytest.mark.parametrize("counts_both_planes", [False, True])
@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
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
@pytest.mark.parametrize("encoding", ["nv16", "nv61", "nv24", "nv42", "NV24", "i420", "yuv420p", "YV12"])
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
