"""MCAP of Foxglove's SDK: its own schemas in protobuf and JSON."""

from __future__ import annotations

import base64
import json
import struct

import cv2
import numpy as np
import pytest
from mcap.writer import Writer

from rfdetr_foundationpose.replay.recording import Recording, RecordingError

START, PERIOD = 1_700_000_000_000_000_000, 33_000_000
PIXELS = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
DEPTH = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) // 8 + 400
K = [60.0, 0, 31.5, 0, 61.0, 23.5, 0, 0, 1]
P = [60.0, 0, 31.5, 0, 0, 61.0, 23.5, 0, 0, 0, 1, 0]


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, value):
    """As protobuf writes it: texts and bytes with their length, numbers of 32 bits fixed, lists of doubles packed."""
    if isinstance(value, int):
        return varint(number << 3 | 5) + struct.pack("<I", value)
    if isinstance(value, list):
        value = struct.pack(f"<{len(value)}d", *value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def time(stamp):
    seconds, nanos = divmod(stamp, 1_000_000_000)
    return varint(1 << 3) + varint(seconds) + varint(2 << 3) + varint(nanos)


def image(stamp, pixels, encoding):
    numbers = {1: time(stamp), 7: "camera", 2: 64, 3: 48, 4: encoding, 5: pixels.strides[0], 6: pixels.tobytes()}
    names = {
        "frame_id": "camera",
        "width": 64,
        "height": 48,
        "encoding": encoding,
        "step": pixels.strides[0],
        "data": pixels.tobytes(),
    }
    return "foxglove.RawImage", numbers, names


def packed(stamp, pixels):
    data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    return (
        "foxglove.CompressedImage",
        {1: time(stamp), 4: "camera", 2: data, 3: "png"},
        {"frame_id": "camera", "data": data, "format": "png"},
    )


def info(stamp):
    numbers = {
        1: time(stamp),
        9: "camera",
        2: 64,
        3: 48,
        4: "plumb_bob",
        5: [0.0] * 5,
        6: K,
        7: [1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        8: P,
    }
    names = {"frame_id": "camera", "width": 64, "height": 48, "distortion_model": "", "D": [], "K": K, "R": [], "P": P}
    return "foxglove.CameraCalibration", numbers, names


def write(path, encoding, color, spoil=lambda data: data):
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        channels = {}
        for i in range(4):
            stamp = START + i * PERIOD
            sent = {"/info": info(stamp), "/depth": image(stamp, DEPTH + i, "16UC1")}
            sent["/color"] = packed(stamp, PIXELS) if color == "png" else image(stamp, PIXELS, "rgb8")
            for topic, (schema, numbers, names) in sent.items():
                if topic not in channels:
                    how = "jsonschema" if encoding == "json" else encoding
                    known = writer.register_schema(schema, how, b"{}")
                    channels[topic] = writer.register_channel(topic, encoding, known)
                data = b"".join(field(n, v) for n, v in numbers.items())
                if encoding == "json":
                    names = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in names.items()}
                    seconds, nanos = divmod(stamp, 1_000_000_000)
                    data = json.dumps({"timestamp": {"sec": seconds, "nsec": nanos}, **names}).encode()
                writer.add_message(channels[topic], stamp, spoil(data) if topic == "/color" and i == 2 else data, stamp)
        writer.finish()
    return path


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize("color", ["raw", "png"])
def test_images_and_calibrations_of_foxglove_are_read(tmp_path, encoding, color):
    tape = Recording(write(tmp_path / "a.mcap", encoding, color))
    frames = [frame for frame, _ in tape]
    assert len(frames) == 4 and not tape.invalid and not tape.problems
    for i, frame in enumerate(frames):
        assert frame.stamp_ns == START + i * PERIOD and frame.frame_id == "camera"
        np.testing.assert_array_equal(frame.rgb, PIXELS)
        np.testing.assert_array_equal(frame.depth, DEPTH + i)
        assert (frame.camera.fx, frame.camera.fy, frame.camera.cx, frame.camera.cy) == (60, 61, 31.5, 23.5)


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[: len(data) // 2], lambda data: b"\xff" * 40, lambda data: b""],
    ids=["cut", "noise", "empty"],
)
def test_a_damaged_message_is_counted(tmp_path, encoding, spoil):
    tape = Recording(write(tmp_path / "a.mcap", encoding, "raw", spoil))
    assert len([*tape]) == 3
    assert tape.tally.published == 4 == tape.tally.frames + sum(tape.tally.dropped.values())


def test_other_encodings_are_named(tmp_path):
    with pytest.raises(RecordingError, match="messages in flatbuffer are not read"):
        Recording(write(tmp_path / "a.mcap", "flatbuffer", "raw"))
