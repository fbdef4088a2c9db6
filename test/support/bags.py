"""Small recordings in every container, written by the containers' own libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Bag1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_HUMBLE)
START, PERIOD = 1_700_000_000_000_000_000, 33_000_000
WIDTH, HEIGHT = 64, 48
RGB = "/camera/color/image_raw"
DEPTH = "/camera/aligned_depth_to_color/image_raw"
INFO = "/camera/color/camera_info"
IMAGE, COMPRESSED, CAMERA_INFO = (f"sensor_msgs/msg/{n}" for n in ("Image", "CompressedImage", "CameraInfo"))
FRAME = "camera_color_optical_frame"


# Colour that no compression makes small, so that damage meets images as in a real file.
_NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


class Sent(NamedTuple):
    """A message on its way into a bag. fields: those behind the header. time: of recording."""

    topic: str
    kind: str
    stamp: int
    time: int
    fields: tuple[Any, ...]
    frame: str = FRAME


def image(
    topic: str, stamp: int, pixels: np.ndarray, encoding: str, time: int | None = None, frame: str = FRAME
) -> Sent:
    pixels = np.ascontiguousarray(pixels)
    fields = (pixels.shape[0], pixels.shape[1], encoding, 0, pixels.strides[0], pixels.reshape(-1).view(np.uint8))
    return Sent(topic, IMAGE, stamp, stamp if time is None else time, fields, frame)


def compressed(topic: str, stamp: int, format: str, data: bytes, frame: str = FRAME) -> Sent:
    return Sent(topic, COMPRESSED, stamp, stamp, (format, np.frombuffer(data, np.uint8)), frame)


def color(stamp: int, time: int | None = None, topic: str = RGB, value: int = 0, frame: str = FRAME) -> Sent:
    pixels = _NOISE ^ np.random.default_rng(value).integers(0, 256, (HEIGHT, WIDTH, 1)).astype(np.uint8)
    pixels[0, 0] = (200, 20, value)
    return image(topic, stamp, pixels, "rgb8", time, frame)


def depth(stamp: int, time: int | None = None, topic: str = DEPTH, value: int = 500, frame: str = FRAME) -> Sent:
    return image(topic, stamp, np.full((HEIGHT, WIDTH), value, np.uint16), "16UC1", time, frame)


def info(
    stamp: int,
    time: int | None = None,
    topic: str = INFO,
    fx: float = 60.0,
    d: Sequence[float] = (0.0,) * 5,
    model: str = "plumb_bob",
    frame: str = FRAME,
) -> Sent:
    K = np.array([fx, 0, 32, 0, fx, 24, 0, 0, 1.0])
    P = np.array([fx, 0, 32, 0, 0, fx, 24, 0, 0, 0, 1, 0.0])
    fields = (HEIGHT, WIDTH, model, np.array(d, np.float64), K, np.eye(3).ravel(), P, 0, 0, "roi")
    return Sent(topic, CAMERA_INFO, stamp, stamp if time is None else time, fields, frame)


def plain(count: int = 10) -> list[Sent]:
    """Colour, depth and calibration of ``count`` frames; frame i has depth 500 + i mm and blue i."""
    sent = []
    for i in range(count):
        stamp = START + i * PERIOD
        sent += [info(stamp), color(stamp, value=i), depth(stamp, value=500 + i)]
    return sent


def _message(store: Any, sent: Sent, number: int) -> Any:
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](*divmod(sent.stamp, 1_000_000_000))
    header = types["std_msgs/msg/Header"](*((number,) if store is ROS1 else ()), stamp, sent.frame)
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return types[sent.kind](header, *(roi if isinstance(f, str) and f == "roi" else f for f in sent.fields))


def serialized(sent: Sent, ros1: bool = False, number: int = 0) -> bytes:
    store = ROS1 if ros1 else ROS2
    message = _message(store, sent, number)
    return bytes(store.serialize_ros1(message, sent.kind) if ros1 else store.serialize_cdr(message, sent.kind))


def write_rosbag2(
    path: Path, sent: Sequence[Sent], storage: str = "mcap", compression: str = "", qos: Any = ()
) -> Path:
    """compression: "", "storage" (MCAP chunks), "file" or "message"."""
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3)
    if compression:
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for item in sorted(sent, key=lambda s: s.time):
            if item.topic not in connections:
                connections[item.topic] = writer.add_connection(
                    item.topic, item.kind, typestore=ROS2, offered_qos_profiles=list(qos)
                )
            writer.write(connections[item.topic], item.time, serialized(item))
    return path


def write_ros1(path: Path, sent: Sequence[Sent], compression: str = "") -> Path:
    """compression: "", "bz2" or "lz4"."""
    writer = Bag1Writer(path)
    if compression:
        writer.set_compression(Bag1Writer.CompressionFormat[compression.upper()])
    with writer:
        connections: dict[str, Any] = {}
        for number, item in enumerate(sorted(sent, key=lambda s: s.time)):
            if item.topic not in connections:
                connections[item.topic] = writer.add_connection(item.topic, item.kind, typestore=ROS1)
            writer.write(connections[item.topic], item.time, serialized(item, True, number))
    return path


def write_mcap(
    path: Path,
    sent: Sequence[Sent],
    *,
    compression: CompressionType = CompressionType.ZSTD,
    chunking: bool = True,
    index: bool = True,
    summary: bool = True,
    ros1: bool = False,
    encoding: str = "",
    chunk_size: int = 40_000,
) -> Path:
    """An MCAP file of any layout that the format allows; about two frames a chunk."""
    with path.open("wb") as file:
        writer = McapWriter(
            file,
            chunk_size=chunk_size,
            compression=compression,
            use_chunking=chunking,
            index_types=IndexType.ALL if index else IndexType.NONE,
            repeat_channels=summary,
            repeat_schemas=summary,
            use_statistics=summary,
            use_summary_offsets=summary,
        )
        writer.start("ros1" if ros1 else "ros2", "test")
        channels: dict[str, int] = {}
        for number, item in enumerate(sent):
            if item.topic not in channels:
                name = item.kind.replace("/msg/", "/") if ros1 else item.kind
                schema = writer.register_schema(name, "ros1msg" if ros1 else "ros2msg", b"")
                channels[item.topic] = writer.register_channel(
                    item.topic, encoding or ("ros1" if ros1 else "cdr"), schema
                )
            writer.add_message(channels[item.topic], item.time, serialized(item, ros1, number), item.time)
        writer.finish()
    return path


# Layouts by name: each writes ``sent`` and returns the file or folder to open.
LAYOUTS: Mapping[str, Any] = {
    "mcap of rosbag2": lambda folder, sent: write_rosbag2(folder / "bag", sent),
    "mcap, messages in zstd": lambda folder, sent: write_rosbag2(folder / "bag", sent, "mcap", "message"),
    "mcap, chunks in zstd": lambda folder, sent: write_mcap(folder / "a.mcap", sent),
    "mcap, chunks in lz4": lambda folder, sent: write_mcap(folder / "a.mcap", sent, compression=CompressionType.LZ4),
    "mcap, plain chunks": lambda folder, sent: write_mcap(folder / "a.mcap", sent, compression=CompressionType.NONE),
    "mcap without chunks": lambda folder, sent: write_mcap(folder / "a.mcap", sent, chunking=False),
    "mcap without index": lambda folder, sent: write_mcap(folder / "a.mcap", sent, index=False, summary=False),
    "mcap of ROS 1": lambda folder, sent: write_mcap(folder / "a.mcap", sent, ros1=True),
    "sqlite3": lambda folder, sent: write_rosbag2(folder / "bag", sent, "sqlite3"),
    "sqlite3, messages in zstd": lambda folder, sent: write_rosbag2(folder / "bag", sent, "sqlite3", "message"),
    "sqlite3, file in zstd": lambda folder, sent: write_rosbag2(folder / "bag", sent, "sqlite3", "file"),
    "ROS 1": lambda folder, sent: write_ros1(folder / "a.bag", sent),
    "ROS 1 in bz2": lambda folder, sent: write_ros1(folder / "a.bag", sent, "bz2"),
    "ROS 1 in lz4": lambda folder, sent: write_ros1(folder / "a.bag", sent, "lz4"),
}


def storage_file(path: Path) -> Path:
    """The file that holds the messages."""
    if path.is_file():
        return path
    return next(p for p in sorted(path.iterdir()) if p.name != "metadata.yaml")
