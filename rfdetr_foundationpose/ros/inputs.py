"""The camera's topics: subscriptions, synchronization, calibration, and frames out of synchronized messages."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ..camera import compressed, images
from ..camera.calibration import Calibration, is_rectified, read_calibration
from ..camera.rectify import Rectifier
from ..config import Config
from ..types import CameraIntrinsics, Frame, InputError
from .guards import guarded
from .reporting import REPEAT
from .sync import PairSynchronizer, Subscriber
from .worker import LatestFrame, Pair

CAMERA_INFO = "rgb/camera_info"
# A stamp that is farther back than this is a bag that started again; less disorder is the network's.
JUMP_NS = 1_000_000_000
# More late frames in a row than this are no disorder of the network either.
LATE_LIMIT = 5
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
        wanted = config.input.use_mask_topics or config.detector.source == "mask-topic"
        # Resolved: counting publishers knows no remappings.
        self._mask_topics = {n: node.resolve_topic_name(f"mask/{n}") for n in instances} if wanted else {}
        self._latest = latest
        self._on_jump = on_jump
        self._on_error = on_error
        self._group = MutuallyExclusiveCallbackGroup()
        self._guard = StampGuard()
        self._sync: PairSynchronizer | None = None
        self._subscriptions: list[Any] = []
        self._lock = threading.Lock()
        self._calibration: Calibration | None = None
        self._rectified_topic = is_rectified(node.resolve_topic_name("rgb/image"))
        self._rectifier = Rectifier()
        self._bad_info: InputError | None = None
        self._masks: dict[str, OrderedDict[int, Any]] = {name: OrderedDict() for name in self._mask_topics}
        self._mask_arrived = threading.Condition()
        self._counted: dict[str, int] = {}
        # Frame of the newest depth image, where it is not the colour image's.
        self.depth_frame = ""
        # Frames of a lens that distorts which were taken as they are, and what to do about it.
        self.distorted = 0
        self.distortion = ""
        # Best effort matches any publisher.
        self._info_subscriptions = [self._subscribe_camera_info(qos_profile_sensor_data)]
        # Steady: ROS time may stand still until a clock comes.
        self._seeker = node.create_timer(
            0.2,
            guarded(self._seek_latched, self._on_error),
            callback_group=self._group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    @property
    def camera(self) -> CameraIntrinsics | None:
        """Intrinsics of the newest usable camera_info."""
        with self._lock:
            calibration = self._calibration
        return None if calibration is None else calibration.of_image(self._rectified_topic)

    def open(self) -> None:
        """Subscribe to the images."""
        settings = self._config.input
        packed = settings.image_transport == "compressed"
        kind: Any = CompressedImage if packed else Image
        # A remapping names the base topic, so the transport's suffix goes on afterwards.
        rgb, depth = (self._node.resolve_topic_name(t) for t in ("rgb/image", "depth/image"))
        if packed:
            rgb, depth = f"{rgb}/compressed", f"{depth}/compressedDepth"
        make = partial(
            Subscriber,
            self._node,
            kind,
            qos_profile=self._qos(),
            callback_group=self._group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        rgb_filter, depth_filter = make(rgb), make(depth)
        slop = settings.sync_slop if settings.sync == "approximate" else None
        self._sync = PairSynchronizer(rgb_filter, depth_filter, guarded(self._on_pair, self._on_error), slop)
        self._subscriptions = [rgb_filter.sub, depth_filter.sub]
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

    def close_images(self) -> None:
        self._counted = self.counts()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._sync = None

    def close(self) -> None:
        self.close_images()
        self._node.destroy_timer(self._seeker)
        for subscription in self._info_subscriptions:
            self._node.destroy_subscription(subscription)
        self._info_subscriptions = []

    def forget(self) -> None:
        """Time has jumped: what waits for a partner or for the worker belongs to another time."""
        sync = self._sync
        if sync is not None:
            sync.clear()
        self._guard.reset()
        self._latest.clear("time_jump")
        with self._mask_arrived:
            for masks in self._masks.values():
                masks.clear()

    def counts(self) -> dict[str, int]:
        """Images received and left without a partner, since configure."""
        sync = self._sync  # a transition may take it away meanwhile
        now = sync.counts() if sync is not None else {}
        return {k: self._counted.get(k, 0) + now.get(k, 0) for k in {**self._counted, **now}}

    def assemble(self, pair: Pair) -> Frame:
        """The frame of synchronized messages. Raises InputError."""
        with self._lock:
            calibration, bad_info = self._calibration, self._bad_info
        if calibration is None:
            raise bad_info or InputError(
                "no_camera_info",
                f"no camera_info on {self._node.resolve_topic_name(CAMERA_INFO)} yet; frames wait for it",
            )
        unit = self._config.input.depth_unit
        if self._config.input.image_transport == "compressed":
            rgb = compressed.compressed_to_rgb(pair.rgb)
            depth, scale = compressed.compressed_to_depth(pair.depth, unit)
        else:
            rgb = images.image_to_rgb(pair.rgb)
            depth, scale = images.image_to_depth(pair.depth, unit)
        depth_frame = pair.depth.header.frame_id
        self.depth_frame = depth_frame if depth_frame != pair.rgb.header.frame_id else ""
        masks = self._take_masks(pair.stamp_ns) if self._mask_topics else {}
        camera = calibration.of_image(self._rectified_topic)
        frame = Frame(pair.stamp_ns, pair.rgb.header.frame_id, rgb, depth, scale, camera, masks)
        return self._undistorted(frame, calibration)

    def _undistorted(self, frame: Frame, calibration: Calibration) -> Frame:
        if not calibration.distorted or self._rectified_topic:
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

    def _qos(self, depth: int = 1) -> QoSProfile:
        reliable = self._config.input.reliability == "reliable"
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.VOLATILE,
        )

    def _subscribe_camera_info(self, qos: QoSProfile) -> Any:
        return self._node.create_subscription(
            CameraInfo, CAMERA_INFO, guarded(self._on_camera_info, self._on_error), qos, callback_group=self._group
        )

    def _seek_latched(self) -> None:
        """Recordings and some drivers send camera_info once, latched: only a latched subscription gets it late.

        Made only where such a publisher is, because with the others it would be a QoS mismatch that both sides report.
        """
        if self.camera is not None or len(self._info_subscriptions) > 1:
            return
        topic = self._node.resolve_topic_name(CAMERA_INFO)
        durabilities = [p.qos_profile.durability for p in self._node.get_publishers_info_by_topic(topic)]
        if DurabilityPolicy.TRANSIENT_LOCAL in durabilities:
            latched = QoSProfile(
                depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
            )
            self._info_subscriptions.append(self._subscribe_camera_info(latched))

    def _on_camera_info(self, message: Any) -> None:
        try:
            calibration, bad = read_calibration(message), None
        except InputError as error:
            calibration, bad = None, error
        with self._lock:
            self._calibration, self._bad_info = calibration, bad

    def _on_mask(self, name: str, message: Any) -> None:
        with self._mask_arrived:
            masks = self._masks[name]
            masks[images.stamp_ns(message.header)] = message
            while len(masks) > MASKS_KEPT:
                masks.popitem(last=False)
            self._mask_arrived.notify_all()

    def _on_pair(self, rgb: Any, depth: Any) -> None:
        stamp = images.stamp_ns(rgb.header)
        order = self._guard.check(stamp)
        if order == "jump":
            self._latest.clear("time_jump")
            self._on_jump("image stamps jumped back")
        elif order == "late":
            self._latest.refuse("out_of_order")
            return
        self._latest.put(Pair(rgb, depth, stamp, time.monotonic()))
