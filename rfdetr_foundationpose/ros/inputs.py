"""The camera's topics: subscriptions, synchronization, calibration, and frames out of synchronized messages."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
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
from .reader import Reader
from .reporting import REPEAT
from .serialized_images import TakeImage, image_take
from .sync import PairSynchronizer
from .sync_library import FilterSynchronizer
from .worker import EarlyImage, LatestFrame, Pair

# A stamp that is farther back than this is a bag that started again; less disorder is the network's.
JUMP_NS = 1_000_000_000
# More late frames in a row than this are no disorder of the network either.
LATE_LIMIT = 5
# After a pair the interpreter is the worker's for so long (s): the thread that reads has time until the next image comes.
REST = 0.001
# Images that wait for our callbacks: with one alone, a thread that is late for a moment loses a picture's partner.
HISTORY = 3
# Ground-truth masks of a recording may trail the images by this time (s).
MASK_WAIT = 0.1
# Masks of this many stamps wait for their images.
MASKS_KEPT = 10


class StampGuard:
    """Tells frames in order from late ones and from a jump back in time."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._late = 0

    def check(self, stamp: int) -> str:
        """One of "ok", "late", "jump"; after a jump, order starts anew at this stamp."""
        last = self._last
        if last is None or stamp > last:
            self._last, self._late = stamp, 0
            return "ok"
        self._late += 1
        if last - stamp > JUMP_NS or self._late > LATE_LIMIT:
            self._last, self._late = stamp, 0
            return "jump"
        return "late"

    def reset(self) -> None:
        self._last, self._late = None, 0


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
        # Resolved: counting publishers knows no remappings.
        self._mask_topics = {n: node.resolve_topic_name(f"mask/{n}") for n in instances} if wanted else {}
        self._latest = latest
        self._on_jump = on_jump
        self._on_error = on_error
        self._group = MutuallyExclusiveCallbackGroup()
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
        self._infos = CameraInfos(node, self._group, self._reader, on_error, node.resolve_topic_name("rgb/image"))
        self._steady = Steady()
        self._early = bridge.EarlyConversion()
        self._rectifier = Rectifier()
        self._masks: dict[str, OrderedDict[int, Any]] = {name: OrderedDict() for name in self._mask_topics}
        self._mask_arrived = threading.Condition()
        self._counted: dict[str, int] = {}
        self._counting = threading.Lock()
        # Frame of the newest depth image, where it is not the colour image's.
        self.depth_frame = ""
        # Frames of a lens that distorts which were taken as they are, and what to do about it.
        self.distorted = 0
        self.distortion = ""
        self.reliability = ""
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
        self.reliability = self._wanted_reliability()
        options = buffers.subscription_options(self._node, settings.buffer_backends, self._device)
        make = partial(
            subscriber,
            self._node,
            kind,
            callback_group=self._reader.group,
            qos_overriding_options=QoSOverridingOptions(policy_kinds=self._overridable()),
            **options,
        )
        # rclpy writes what overrides a profile into it: each has its own.
        rgb_filter, depth_filter = (make(topic, qos_profile=self._qos()) for topic in self._topics)
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
        for name in self._mask_topics:
            self._subscriptions.append(
                self._node.create_subscription(
                    Image,
                    f"mask/{name}",
                    guarded(partial(self._on_mask, name), self._on_error),
                    self._qos(MASKS_KEPT),
                    callback_group=self._group,
                )
            )

    def _memory(self, size: int) -> NDArray[np.uint8]:
        return image_memory(size, "cpu" if self._config.input.rectify else self._device)

    def _overridable(self) -> tuple[QoSPolicyKind, ...]:
        """Policies with a parameter of their own: that of the reliability keeps its first value, so not where we follow."""
        policies = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        return policies[:2] if self._follows() else policies

    def _follows(self) -> bool:
        given = getattr(self._node, "_parameter_overrides", {})
        own = any(f"qos_overrides.{topic}.subscription.reliability" in given for topic in self._topics)
        return self._config.input.reliability == "auto" and not own

    def _wanted_reliability(self) -> str:
        if not self._follows():
            setting = self._config.input.reliability
            return "best_effort" if setting == "auto" else setting
        offered = [
            info.qos_profile.reliability
            for topic in self._topics
            for info in self._node.get_publishers_info_by_topic(topic)
        ]
        reliable = bool(offered) and all(policy == ReliabilityPolicy.RELIABLE for policy in offered)
        return "reliable" if reliable else "best_effort"

    def _follow_publishers(self) -> None:
        """A reliable subscription gets nothing from a best-effort publisher, and a best-effort one loses large images."""
        if not self._follows():
            return
        with self._opening:
            if not self._subscriptions or self._wanted_reliability() == self.reliability:
                return
            self._close_images()
            self._open()
        self._node.get_logger().info(f"images: {self.reliability}, as their publishers offer")

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
        with self._mask_arrived:
            for masks in self._masks.values():
                masks.clear()

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
            "distortion": self.distortion,
            "distorted": self.distorted,
            "has_camera": self.camera is not None,
            "conflict": conflict,
            "reliability": self.reliability,
            "remedy": transport.remedy(self.reliability == "reliable"),
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
        depth_frame = pair.depth.header.frame_id
        self.depth_frame = depth_frame if depth_frame != pair.rgb.header.frame_id else ""
        masks = self._take_masks(pair.stamp_ns) if self._mask_topics else {}
        camera = calibration.of_image(self._infos.rectified_topic)
        frame = Frame(pair.stamp_ns, pair.rgb.header.frame_id, rgb, depth, scale, camera, masks)
        return self._undistorted(frame, calibration)

    def _undistorted(self, frame: Frame, calibration: Calibration) -> Frame:
        if not calibration.distorted or self._infos.rectified_topic:
            return frame
        if self._config.input.rectify:
            self.distortion = ""
            return self._rectifier(frame, calibration)
        self.distorted += 1
        if not self.distortion:
            self.distortion = calibration.warning(self._node.resolve_topic_name("rgb/image"))
            self._node.get_logger().warning(self.distortion)
        return frame

    def _take_masks(self, stamp: int) -> dict[str, NDArray[np.bool_]]:
        coming = [self._masks[n] for n, topic in self._mask_topics.items() if self._node.count_publishers(topic) > 0]
        if not coming:
            self._node.get_logger().warning(
                f"masks are awaited, but nobody publishes {', '.join(self._mask_topics.values())}",
                throttle_duration_sec=REPEAT,
            )
        with self._mask_arrived:
            self._mask_arrived.wait_for(lambda: all(stamp in masks for masks in coming), MASK_WAIT)
            found = {name: masks[stamp] for name, masks in self._masks.items() if stamp in masks}
        return {name: images.image_to_mask(message) for name, message in found.items()}

    def _check_camera(self, pair: Pair) -> None:
        """Raises InputError for a frame of a second camera: each change would cost the tracks and a warm-up."""
        seen = (pair.rgb.header.frame_id, getattr(pair.rgb, "width", 0), getattr(pair.rgb, "height", 0))
        if not self._steady.take(seen):
            frame, width, height = self._steady.current
            raise InputError(
                "other_camera",
                f"images of {seen[0]} ({seen[1]}x{seen[2]}) come between those of {frame} ({width}x{height}), which are used; "
                f"{self._topics[0]} is published by {publisher_names(self._node, self._topics[0])}: give each camera a topic",
            )

    def _qos(self, depth: int = HISTORY) -> QoSProfile:
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE if self.reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.VOLATILE,
        )

    def _on_mask(self, name: str, message: Any) -> None:
        with self._mask_arrived:
            masks = self._masks[name]
            masks[images.stamp_ns(message.header)] = message
            while len(masks) > MASKS_KEPT:
                masks.popitem(last=False)
            self._mask_arrived.notify_all()

    def _on_early(self, is_depth: bool, message: Any) -> None:
        self._latest.put_early(EarlyImage(message, is_depth, images.stamp_ns(message.header)))

    def _on_pair(self, rgb: Any, depth: Any) -> None:
        stamp = images.stamp_ns(rgb.header)
        with self._ordering:
            order = self._guard.check(stamp)
            if order == "jump":
                self._latest.clear("time_jump")
                self._on_jump("image stamps jumped back")
            elif order == "late":
                self._latest.refuse("out_of_order")
                return
            self._latest.put(Pair(rgb, depth, stamp, time.monotonic(), images.stamp_ns(depth.header)))
        time.sleep(REST)
        for take in self._takes:
            take.restock()
