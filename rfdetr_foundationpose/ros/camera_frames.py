"""Frames of a camera on the graph, one after the other, by the node's own subscriptions: for tools that record or look."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from ..config import Config
from ..errors import UserError
from ..types import Frame, InputError
from .inputs import Inputs
from .worker import LatestFrame

PATIENCE = 10.0
"""s without a frame after which a camera counts as silent."""
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class NoCamera(UserError, RuntimeError):
    """No frame came; the message says which topics there are."""


class CameraFrames:
    """Undistorted frames of ``rgb/image``, ``depth/image`` and ``rgb/camera_info``; a context manager that iterates.

    topics: what to read in their places, by these names. Images pair by stamps within ``input.sync_slop``.
    """

    def __init__(self, topics: Mapping[str, str]) -> None:
        self.topics = dict(topics)
        self.unusable: dict[str, int] = {}
        self._latest = LatestFrame()
        self._open = ExitStack()
        self._stop = threading.Event()

    def __enter__(self) -> CameraFrames:
        context = Context()
        rclpy.init(context=context)
        self._open.callback(context.try_shutdown)
        remaps = [word for name, topic in self.topics.items() for word in ("-r", f"{name}:={topic}")]
        self._node = Node("object_scan", context=context, cli_args=["--ros-args", *remaps])
        self._open.callback(self._node.destroy_node)
        settings = Config()
        wanted = replace(settings.input, sync="approximate", rectify=True)
        self._inputs = Inputs(
            self._node, replace(settings, device="cpu", input=wanted), (), self._latest, lambda _: None, self._failed
        )
        self._open.callback(self._inputs.close)
        self._inputs.open()
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        thread = threading.Thread(target=self._spin, daemon=True)
        thread.start()
        # Ended in the opposite order: the thread before what it spins.
        self._open.callback(self._executor.shutdown)
        self._open.callback(thread.join)
        self._open.callback(self._stop.set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def frames(self, stop: Callable[[], bool]) -> Iterator[Frame]:
        """The newest frame, again and again, until ``stop``. Raises NoCamera after PATIENCE seconds without one."""
        self._latest.clear("old")
        silent = time.monotonic()
        while not stop():
            pair = self._latest.take(0.1)
            if pair is None:
                if time.monotonic() - silent > PATIENCE:
                    raise NoCamera(self._silence())
                continue
            frame: Frame | None = None
            with ExitStack() as leases:
                try:
                    frame = self._inputs.assemble(pair, leases)
                except InputError as error:
                    self.unusable[str(error)] = self.unusable.get(str(error), 0) + 1
                self._latest.done(None if frame is not None else "unusable")
            if frame is not None:
                silent = time.monotonic()
                yield frame

    @property
    def depth_frame(self) -> str:
        """Frame of the last depth image where it is another one than colour's, else ""."""
        return self._inputs.depth_frame

    def _spin(self) -> None:
        while not self._stop.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                return

    def _failed(self, where: str, error: Exception) -> None:
        self._node.get_logger().error(f"{where}: {error}", throttle_duration_sec=5.0)

    def _silence(self) -> str:
        asked = ", ".join(self.topics.values())
        if self.unusable:
            return f"no frame of {asked} can be used: {max(self.unusable, key=lambda e: self.unusable[e])}"
        counts = self._inputs.counts()
        received = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()) if count) or "nothing"
        there = sorted(
            name
            for name, kinds in self._node.get_topic_names_and_types()  # our own subscriptions are among them
            if any(kind in IMAGES for kind in kinds) and self._node.count_publishers(name)
        )
        return (
            f"no frame came for {PATIENCE:.0f} s on {asked} (received: {received}); images are published on "
            f"{', '.join(there) or 'no topic'}. Start the camera's driver with depth registered to colour, and name its topics by "
            "--rgb, --depth and --camera-info"
        )
