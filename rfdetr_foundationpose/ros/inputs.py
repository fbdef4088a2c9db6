"""The camera's topics: subscriptions, synchronization, calibration, and frames out of synchronized messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CompressedImage, Image

from ..camera import images
from ..camera.calibration import Calibration
from ..camera.rectify import Rectifier
from ..config import Config
from ..device import resolve_device
from ..device_frame import image_memory
from ..types import CameraIntrinsics, Frame, InputError
from . import bridge, buffers, reader, sync_library, transport
from .cameras import CameraInfos, Steady, publisher_names
from .guards import guarded
from .image_qos import ImageQoS
from .mask_topics import MaskTopics
from .reader import Reader
from .serialized_images import TakeImage, image_take
from .stamps import StampGuard
from .sync import PairSynchronizer
from .sync_library import FilterSynchronizer
from .worker import EarlyImage, LatestFrame, Pair

# After a pair the interpreter is the worker's for so long (s): the thread that reads has time until the next image comes.
REST = 0.001
NAMELESS = "neither the images nor camera_info have a frame_id: no tf is broadcast, and poses are shown nowhere; set it in the camera's driver"


class Inputs:
    """Subscriptions of one configured node; callbacks store and return.

    instances: names whose mask topics are read, where the settings ask for masks.
    on_jump: called when stamps jump back. on_error: told of exceptions, which never leave a callback.
    """

    def __init__(
        self,
        node: Any,
        config: Config,
        instances: Sequence[str],
        latest: LatestFrame,
        on_jump: Callable[[str], None],
        on_error: Callable[[str, Exception], None],
    ) -> None:
        self._node = node
        self._config = config
        self._device = str(resolve_device(config.device))
        wanted = config.input.use_mask_topics or config.detector.source == "mask-topic"
        self._latest = latest
        self._on_jump = on_jump
        self._on_error = on_error
        self._group = MutuallyExclusiveCallbackGroup()
        self._masks = MaskTopics(node, instances if wanted else (), self._group, on_error)
        self._guard = StampGuard()
        # Held while a pair is judged and stored, and while what came before is forgotten.
        self._ordering = threading.RLock()
        self._sync: PairSynchronizer | FilterSynchronizer | None = None
        # Images and calibration; masks, which few have, are the executor's.
        self._reader = Reader(node.context, on_error)
        self._subscriptions: list[Any] = []
        self._takes: list[TakeImage] = []
        # One of them at a time: a transition, or the timer that follows the publishers.
        self._opening = threading.Lock()
        self._topics = self._image_topics()
        self._qos = ImageQoS(node, self._topics, config.input.reliability)
        self._rgb_topic = node.resolve_topic_name("rgb/image")
        self._infos = CameraInfos(node, self._group, self._reader, on_error, self._rgb_topic)
        self._steady = Steady()
        self._early = bridge.EarlyConversion()
        self._rectifier = Rectifier()
        self._counted: dict[str, int] = {}
        self._counting = threading.Lock()
        # Frame of the newest depth image, where it is not the colour image's.
        self.depth_frame = ""
        # Whether the newest frame has no name, neither by its image nor by camera_info.
        self.nameless = False
        # Frames of a lens that distorts which were taken as they are, and what to do about it.
        self.distorted = 0
        self.distortion = ""
        self._follower = node.create_timer(
            0.5,
            guarded(self._follow_publishers, on_error),
            callback_group=self._group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    @property
    def camera(self) -> CameraIntrinsics | None:
        """Intrinsics of the newest usable camera_info."""
        return self._infos.camera

    def wait_for_camera(self, timeout: float, closing: threading.Event) -> CameraIntrinsics | None:
        """Those of the first camera_info; None when none comes within ``timeout`` seconds or ``closing`` is set."""
        deadline = time.monotonic() + timeout
        while self.camera is None and time.monotonic() < deadline and not closing.wait(0.02):
            pass
        return self.camera

    def _image_topics(self) -> tuple[str, str]:
        # A remapping names the base topic, so the transport's suffix goes on afterwards.
        rgb, depth = (self._node.resolve_topic_name(t) for t in ("rgb/image", "depth/image"))
        packed = self._config.input.image_transport == "compressed"
        return (f"{rgb}/compressed", f"{depth}/compressedDepth") if packed else (rgb, depth)

    def open(self) -> None:
        """Subscribe to the images. Raises ImportError where the library that is asked for is missing."""
        with self._opening:
            self._open()

    def _open(self) -> None:
        settings = self._config.input
        kind: Any = CompressedImage if settings.image_transport == "compressed" else Image
        subscriber, synchronizer = sync_library.choose(settings.sync_library)
        self._qos.choose()
        options = buffers.subscription_options(self._node, settings.buffer_backends, self._device)
        make = partial(
            subscriber,
            self._node,
            kind,
            callback_group=self._reader.group,
            qos_overriding_options=self._qos.overriding(),
            **options,
        )
        rgb_filter, depth_filter = (make(topic, qos_profile=self._qos.profile()) for topic in self._topics)
        slop = settings.sync_slop if settings.sync == "approximate" else None
        self._sync = synchronizer(rgb_filter, depth_filter, guarded(self._on_pair, self._on_error), slop)
        # After the synchronizer: an image that completes a pair is not early.
        if kind is Image and not options and self._device.startswith("cuda") and not settings.rectify:
            for source, is_depth in ((rgb_filter, False), (depth_filter, True)):
                source.registerCallback(guarded(partial(self._on_early, is_depth), self._on_error))
        self._subscriptions = [rgb_filter.sub, depth_filter.sub]
        for subscription in self._subscriptions:
            # What may be in the GPU's memory only comes as a message.
            serialized = image_take(self._memory) if kind is Image and not options else None
            self._reader.add(subscription, serialized or reader.message)
            if serialized is not None:
                self._takes.append(serialized)
        self._subscriptions += self._masks.subscribe(self._qos.profile)

    def _memory(self, size: int) -> NDArray[np.uint8]:
        return image_memory(size, "cpu" if self._config.input.rectify else self._device)

    def _follow_publishers(self) -> None:
        with self._opening:
            if not self._subscriptions or not self._qos.is_outdated():
                return
            self._close_images()
            self._open()
        self._node.get_logger().info(f"images: {self._qos.reliability}, as their publishers offer")

    def close_images(self) -> None:
        with self._opening:
            self._close_images()

    def _close_images(self) -> None:
        for subscription in self._subscriptions:
            self._reader.remove(subscription)
        with self._counting:
            if self._sync is not None:
                self._sync.clear()  # what waits finds no partner any more
            self._counted, self._sync = self._counts(), None
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions, self._takes = [], []

    def close(self) -> None:
        self.close_images()
        self._node.destroy_timer(self._follower)
        self._infos.close()
        self.stop()

    def stop(self) -> bool:
        """End the thread that reads the camera's topics, for good; False when a callback takes too long. May be called again."""
        return self._reader.close()

    def forget(self) -> None:
        """Time has jumped: what waits for a partner or for the worker belongs to another time."""
        sync = self._sync
        if sync is not None:
            sync.clear()
        with self._ordering:
            self._guard.reset()
            self._latest.clear("time_jump")
        self._masks.forget()

    def counts(self) -> dict[str, int]:
        """Images received and left without a partner, since configure."""
        with self._counting:  # a transition may take the synchronizer away meanwhile
            return self._counts()

    def _counts(self) -> dict[str, int]:
        now = self._sync.counts() if self._sync is not None else {}
        return {k: self._counted.get(k, 0) + now.get(k, 0) for k in {**self._counted, **now}}

    def health(self) -> dict[str, Any]:
        """What diagnostics say of the camera: fields of Health."""
        conflict = ""
        if self._infos.conflicts:
            conflict = (
                f"two calibrations alternate on {self._infos.topic}, published by "
                f"{publisher_names(self._node, self._infos.topic)}: the first is kept; give each camera a topic"
            )
        return {
            "images": {
                **self.counts(),
                "camera_info": self._infos.received,
                "other_camera_info": self._infos.conflicts,
            },
            "depth_frame": self.depth_frame,
            "nameless": self.nameless,
            "distortion": self.distortion,
            "distorted": self.distorted,
            "has_camera": self.camera is not None,
            "conflict": conflict,
            "reliability": self._qos.reliability,
            "remedy": transport.remedy(self._qos.reliability == "reliable"),
        }

    def convert_early(self, image: EarlyImage) -> dict[str, Any]:
        """What ``Pipeline.upload_early`` takes of an image; its frame will have the same array. Raises InputError."""
        unit = self._config.input.depth_unit
        return self._early.convert(image.message, image.is_depth, unit, self._node.get_logger())

    def assemble(self, pair: Pair, leases: ExitStack) -> Frame:
        """The frame of synchronized messages; images in the GPU's memory are the messages' own until ``leases`` is closed.

        Raises InputError.
        """
        calibration = self._infos.calibration()
        self._check_camera(pair)
        early = self._early.take(pair.rgb, pair.depth)
        rgb, depth, scale = bridge.pair_to_images(
            pair.rgb, pair.depth, self._config.input, self._device, leases, self._node.get_logger(), early
        )
        frame_id, depth_frame = self._frame_id(pair), pair.depth.header.frame_id
        self.depth_frame = depth_frame if depth_frame != frame_id else ""
        masks = self._masks.take(pair.stamp_ns)
        camera = calibration.of_image(self._infos.rectified_topic)
        frame = Frame(pair.stamp_ns, frame_id, rgb, depth, scale, camera, masks)
        return self._undistorted(frame, calibration)

    def _frame_id(self, pair: Pair) -> str:
        """Of the colour image; where its driver leaves it empty that of its camera_info, which has to be the same."""
        found = str(pair.rgb.header.frame_id) or self._infos.frame_id
        if not found and not self.nameless:
            self._node.get_logger().warning(NAMELESS)
        self.nameless = not found
        return found

    def _undistorted(self, frame: Frame, calibration: Calibration) -> Frame:
        bent = calibration.distorted and not self._infos.rectified_topic
        if not bent or self._config.input.rectify:
            self.distortion = ""
            return self._rectifier(frame, calibration) if bent else frame
        self.distorted += 1
        warning = calibration.warning(self._rgb_topic)
        if warning != self.distortion:
            self.distortion = warning
            self._node.get_logger().warning(warning)
        return frame

    def _check_camera(self, pair: Pair) -> None:
        """Raises InputError for a frame of a second camera: each change would cost the tracks and a warm-up."""
        seen = tuple(
            (m.header.frame_id, getattr(m, "width", 0), getattr(m, "height", 0)) for m in (pair.rgb, pair.depth)
        )
        if not self._steady.take(seen):
            (frame, width, height), used, topic = next(
                (other, own, topic)
                for other, own, topic in zip(seen, self._steady.current, self._topics, strict=True)
                if other != own
            )
            raise InputError(
                "other_camera",
                f"images of {frame} ({width}x{height}) come between those of {used[0]} ({used[1]}x{used[2]}), which are used; "
                f"{topic} is published by {publisher_names(self._node, topic)}: give each camera a topic",
            )

    def _refuse(self, kind: str, why: str) -> None:
        self._latest.refuse(kind)
        self._on_error(kind, InputError(kind, why))

    def _several(self) -> str:
        """Where several nodes publish the colour images, who: a recording that plays beside the camera, a driver started twice."""
        topic = self._topics[0]
        if self._node.count_publishers(topic) < 2:
            return ""
        return f" ({topic} is published by {publisher_names(self._node, topic)})"

    def _on_early(self, is_depth: bool, message: Any) -> None:
        self._latest.put_early(EarlyImage(message, is_depth, images.stamp_ns(message.header)))

    def _on_pair(self, rgb: Any, depth: Any) -> None:
        stamp = images.stamp_ns(rgb.header)
        if stamp == 0:
            self._refuse("no_stamp", "the images have no stamp (0): the camera's driver has to fill in header.stamp")
            return
        with self._ordering:
            late = self._guard.late_by(stamp)
            order = self._guard.check(stamp)
            if order == "jump":
                self._latest.clear("time_jump")
                self._on_jump(f"image stamps jumped back {late / 1e9:.3g} s{self._several()}")
            elif order == "late":
                how = (
                    f"an image is {late / 1e9:.3g} s older than one before it"
                    if late
                    else "two images have the same stamp"
                )
                self._refuse("out_of_order", how + self._several())
                return
            self._latest.put(Pair(rgb, depth, stamp, time.monotonic(), images.stamp_ns(depth.header)))
        time.sleep(REST)
        for take in self._takes:
            take.restock()
