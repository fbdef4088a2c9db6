"""Images and calibrations in Foxglove's own schemas (protobuf or JSON, as its SDK logs them) as the messages of ROS that they mirror."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from . import recording_messages as messages
from .recording_packets import FOXGLOVE, packed

_IMAGE, _COMPRESSED, _INFO = (f"sensor_msgs/msg/{n}" for n in ("Image", "CompressedImage", "CameraInfo"))
TYPES = {
    "foxglove.RawImage": _IMAGE,
    "foxglove.CompressedImage": _COMPRESSED,
    "foxglove.CameraCalibration": _INFO,
    "foxglove.CompressedVideo": FOXGLOVE,
}
# Numbers of the fields in protobuf (https://docs.foxglove.dev/docs/visualization/message-schemas).
_FIELDS: dict[str, dict[int, str]] = {
    _IMAGE: {1: "timestamp", 2: "width", 3: "height", 4: "encoding", 5: "step", 6: "data", 7: "frame_id"},
    _COMPRESSED: {1: "timestamp", 2: "data", 3: "format", 4: "frame_id"},
    FOXGLOVE: {1: "timestamp", 2: "frame_id", 3: "data", 4: "format"},
    _INFO: {
        1: "timestamp",
        2: "width",
        3: "height",
        4: "distortion_model",
        5: "D",
        6: "K",
        7: "R",
        8: "P",
        9: "frame_id",
    },
}
_TEXTS = ("encoding", "format", "frame_id", "distortion_model")


def translator(schema: str, encoding: str) -> tuple[str, Callable[[bytes], bytes]] | None:
    """The type of ROS that a schema mirrors, and what makes CDR of its messages; None for others.

    What it raises for damaged messages is a ValueError.
    """
    kind = TYPES.get(schema.replace("foxglove_msgs/msg/", "foxglove.").replace("foxglove_msgs.", "foxglove."))
    read = {"protobuf": _of_protobuf, "json": _of_json}.get(encoding)
    if kind is None or read is None:
        return None

    def translate(data: bytes) -> bytes:
        try:
            found = read(data, kind)
            if kind == FOXGLOVE:
                frame, codec = (str(found.get(name, "")) for name in ("frame_id", "format"))
                return packed(int(found.get("timestamp", 0)), frame, bytes(found.get("data", b"")), codec)
            return bytes(messages.STORE.serialize_cdr(_message(kind, found), kind))
        except (struct.error, IndexError, KeyError, TypeError, AttributeError, OverflowError, AssertionError) as error:
            raise ValueError(f"its bytes are no {schema} ({type(error).__name__})") from error

    return kind, translate


def _message(kind: str, fields: Mapping[str, Any]) -> Any:
    header = messages.header_message(fields.get("timestamp", 0), fields.get("frame_id", ""))
    types = messages.TYPES
    data = np.frombuffer(fields.get("data", b""), np.uint8)
    if kind == _COMPRESSED:
        return types[kind](header, fields.get("format", ""), data)
    height, width = int(fields.get("height", 0)), int(fields.get("width", 0))
    if kind == _IMAGE:
        return types[kind](header, height, width, fields.get("encoding", ""), 0, int(fields.get("step", 0)), data)
    D, K, R, P = (np.asarray(fields.get(name, ()), np.float64) for name in "DKRP")
    K, R, P = (v if len(v) == n else np.zeros(n) for v, n in ((K, 9), (R, 9), (P, 12)))
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return types[kind](header, height, width, fields.get("distortion_model", ""), D, K, R, P, 0, 0, roi)


def _of_json(data: bytes, kind: str) -> dict[str, Any]:
    tree = json.loads(data)
    time = tree.get("timestamp") or {}
    tree["timestamp"] = int(time.get("sec", 0)) * 1_000_000_000 + int(time.get("nsec", 0))
    if "data" in tree:
        tree["data"] = base64.b64decode(tree["data"])
    return dict(tree)


def _of_protobuf(data: bytes, kind: str) -> dict[str, Any]:
    names = _FIELDS[kind]
    found: dict[str, Any] = {}
    for number, value in _wire(data):
        name = names.get(number, "")
        if name == "timestamp":
            parts = dict(_wire(value))
            found[name] = int(parts.get(1, 0)) * 1_000_000_000 + int(parts.get(2, 0))
        elif name in _TEXTS:
            found[name] = bytes(value).decode()
        elif name in ("D", "K", "R", "P"):
            more = (
                np.frombuffer(value, "<f8")
                if isinstance(value, bytes)
                else np.array(struct.unpack("<d", struct.pack("<Q", value)))
            )
            found[name] = np.concatenate([found.get(name, np.zeros(0)), more])
        elif name:
            found[name] = value
    return found


def _wire(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of the fields of a protobuf message: integers as they are, all else as bytes. Raises ValueError."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
        elif kind == 1:
            yield key >> 3, struct.unpack_from("<Q", data, at)[0]
            at += 8
        elif kind == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field is cut off")
            yield key >> 3, data[at : at + length]
            at += length
        elif kind == 5:
            yield key >> 3, struct.unpack_from("<I", data, at)[0]
            at += 4
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number has no end")
