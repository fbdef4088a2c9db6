"""A camera as a process: publishes stored frames over DDS at a steady rate, stamped when they are sent.

As a driver in C++ it converts no Python message, and the middleware reads its images where they are: each message is serialized
once, and a frame is its bytes with another stamp.

``python -m rfdetr_foundationpose.node_bench.camera --frames DIR --rate 30 --out sent.json`` runs until SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

from ..replay.player import CAMERA_QOS, to_camera_info, to_header, to_image
from ..ros.rcl_bytes import PublishBytes
from ..ros.serialization import stamp
from ..types import CameraIntrinsics
from .helper_node import helper_node

FRAME_ID = "camera_color_optical_frame"
SLOW = 1.0
"""Seconds that a frame is shown before things move at their speed."""


@dataclass(frozen=True)
class StoredFrames:
    """rgb: (N, H, W, 3) uint8. depth: (N, H, W) uint16, mm."""

    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    camera: CameraIntrinsics

    def save(self, folder: Path) -> None:
        """Write ``folder``/rgb.npy, depth.npy and camera.json."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "rgb.npy", self.rgb)
        np.save(folder / "depth.npy", self.depth)
        c = self.camera
        (folder / "camera.json").write_text(json.dumps([c.fx, c.fy, c.cx, c.cy, c.width, c.height]))

    @classmethod
    def load(cls, folder: Path) -> StoredFrames:
        """What ``save`` wrote."""
        fx, fy, cx, cy, width, height = json.loads((folder / "camera.json").read_text())
        camera = CameraIntrinsics(fx, fy, cx, cy, int(width), int(height))
        return cls(np.load(folder / "rgb.npy"), np.load(folder / "depth.npy"), camera)


def there_and_back(count: int, index: int) -> int:
    """Frame shown at ``index`` when ``count`` frames are played forwards and backwards, so that nothing ever jumps."""
    if count < 2:
        return 0
    position = index % (2 * count - 2)
    return position if position < count else 2 * count - 2 - position


def publish(
    frames: StoredFrames, rate: float, stop: threading.Event, node: Node, moving: Path | None = None
) -> list[int]:
    """Send frames until ``stop`` is set. Returns their stamps, ns of the system clock.

    moving: until this file exists each frame is shown for SLOW seconds: on a CPU a registration takes seconds, after which a thing
    that moved at its speed would be elsewhere.
    """
    header = to_header(0, FRAME_ID)
    info = to_camera_info(header, frames.camera)
    shots = [
        [_memory(m) for m in (info, to_image(header, depth, "16UC1"), to_image(header, rgb, "rgb8"))]
        for rgb, depth in zip(frames.rgb, frames.depth, strict=True)
    ]
    kinds = ((CameraInfo, "rgb/camera_info"), (Image, "depth/image"), (Image, "rgb/image"))
    topics = [PublishBytes(node.create_publisher(kind, name, CAMERA_QOS)) for kind, name in kinds]
    sent: list[int] = []
    moved, released = 0, moving is None
    period = round(1e9 / rate)
    due = begin = time.time_ns()
    while not stop.is_set():
        due = max(due, time.time_ns())
        released = released or (moving is not None and moving.exists())
        moved = moved if released else int((due - begin) / 1e9 / SLOW)
        if stop.wait(max(0.0, (due - time.time_ns()) / 1e9)):
            break
        messages, now = shots[there_and_back(len(shots), moved)], time.time_ns()
        for message in messages:
            stamp(message, now)
        for topic, message in zip(topics, messages, strict=True):
            topic(message)
        sent.append(now)
        moved += released
        due += period
    return sent


def _memory(message: Any) -> NDArray[np.uint8]:
    return np.frombuffer(bytearray(serialize_message(message)), np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish until a signal comes, then write the stamps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--moving", type=Path, help="Each frame is shown for a second until this file exists.")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    frames = StoredFrames.load(options.frames)
    with helper_node("bench_camera") as (node, stop):
        sent = publish(frames, options.rate, stop, node, options.moving)
    options.out.write_text(json.dumps({"stamps": sent}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
