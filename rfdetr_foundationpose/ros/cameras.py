"""Which camera the images are of: its calibration, and two cameras that publish on one topic."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo

from ..camera.calibration import Calibration, is_rectified, read_calibration
from ..types import CameraIntrinsics, InputError
from .guards import guarded
from .reader import Reader

CAMERA_INFO = "rgb/camera_info"
# Another camera is taken after this many of its messages in a row, or when the old one is silent for this time (s).
IN_A_ROW = 5
SILENT = 2.0
# From one camera_info to the next a lens that focuses changes the intrinsics by less than this share of the image's width; two cameras
# of one make differ by more.
DRIFT = 0.002
# A latched camera_info is looked for so often (s); once there is one, seldom: each time the executor makes its wait set anew,
# for which it holds Python's lock.
SEEK, SEEK_SELDOM = 0.2, 2.0


def difference(one: CameraIntrinsics, other: CameraIntrinsics) -> float:
    """The largest one between their focal lengths or principal points, in image widths; infinite for images of two sizes."""
    if (one.width, one.height) != (other.width, other.height):
        return math.inf
    pairs = ((one.fx, other.fx), (one.fy, other.fy), (one.cx, other.cx), (one.cy, other.cy))
    return max(abs(a - b) for a, b in pairs) / one.width


class Steady:
    """Keeps to what comes all the time, when something else comes between."""

    def __init__(self) -> None:
        self._current: Any = None
        self._last = 0.0
        self._others = 0

    def take(self, key: Any, now: float | None = None) -> bool:
        """Whether ``key`` is what comes all the time. now: monotonic seconds."""
        now = time.monotonic() if now is None else now
        if self._current is None or key == self._current:
            self._current, self._last, self._others = key, now, 0
            return True
        self._others += 1
        if self._others < IN_A_ROW and now - self._last < SILENT:
            return False
        self._current, self._last, self._others = key, now, 0
        return True

    def replace(self, key: Any) -> None:
        """From now on ``key`` is what was the current one."""
        self._current = key

    @property
    def current(self) -> Any:
        return self._current


class CameraInfos:
    """The camera_info subscriptions. A calibration that comes between those of another is counted and not used.

    One that drifts is followed: a lens that focuses by itself changes its focal length a little with every image.
    """

    def __init__(
        self,
        node: Any,
        group: CallbackGroup,
        reader: Reader,
        on_error: Callable[[str, Exception], None],
        image_topic: str,
    ) -> None:
        self._node = node
        self._reader = reader
        self._on_error = on_error
        self._lock = threading.Lock()
        # The seeker's timer may be at it when a transition closes this.
        self._subscribing = threading.Lock()
        self._closed = False
        self._calibration: Calibration | None = None
        self._steady = Steady()
        self._bad: InputError | None = None
        self._frame_id = ""
        self.rectified_topic = is_rectified(image_topic)
        self.topic = node.resolve_topic_name(CAMERA_INFO)
        self.received = 0
        self.conflicts = 0
        # Best effort matches any publisher.
        self._subscriptions = [self._subscribe(qos_profile_sensor_data)]
        # Steady: ROS time may stand still until a clock comes.
        self._seeker = node.create_timer(
            SEEK,
            guarded(self._seek_latched, on_error),
            callback_group=group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    @property
    def camera(self) -> CameraIntrinsics | None:
        """Intrinsics of the images, by the newest usable camera_info."""
        with self._lock:
            calibration = self._calibration
        return None if calibration is None else calibration.of_image(self.rectified_topic)

    @property
    def frame_id(self) -> str:
        """Of the newest one; "" before the first, and where it has none."""
        with self._lock:
            return self._frame_id

    def calibration(self) -> Calibration:
        """The newest one. Raises InputError where there is none."""
        with self._lock:
            calibration, bad = self._calibration, self._bad
        if calibration is None:
            raise bad or InputError("no_camera_info", f"no camera_info on {self.topic} yet; frames wait for it")
        return calibration

    def close(self) -> None:
        self._node.destroy_timer(self._seeker)
        with self._subscribing:
            self._closed = True
            for subscription in self._subscriptions:
                self._reader.remove(subscription)
                self._node.destroy_subscription(subscription)
            self._subscriptions = []

    def _subscribe(self, qos: QoSProfile) -> Any:
        made = self._node.create_subscription(
            CameraInfo, CAMERA_INFO, guarded(self._on_message, self._on_error), qos, callback_group=self._reader.group
        )
        self._reader.add(made)
        return made

    def _seek_latched(self) -> None:
        """Recordings and some drivers send camera_info once, latched: only a latched subscription gets it late.

        Made only where such a publisher is, because with the others it would be a QoS mismatch that both sides report.
        """
        with self._subscribing:
            if self._closed:
                return
            known = self.camera is not None
            self._seeker.timer_period_ns = round((SEEK_SELDOM if known else SEEK) * 1e9)
            if known or len(self._subscriptions) > 1:
                return
            durabilities = [p.qos_profile.durability for p in self._node.get_publishers_info_by_topic(self.topic)]
            if DurabilityPolicy.TRANSIENT_LOCAL in durabilities:
                latched = QoSProfile(
                    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
                )
                self._subscriptions.append(self._subscribe(latched))

    def _on_message(self, message: Any) -> None:
        self.received += 1
        try:
            calibration, bad = read_calibration(message), None
        except InputError as error:
            calibration, bad = None, error
        key = (message.header.frame_id, calibration)
        if self._drifted(*key):
            self._steady.replace(key)
        if not self._steady.take(key):
            self.conflicts += 1
            return
        with self._lock:
            self._calibration, self._bad, self._frame_id = calibration, bad, message.header.frame_id

    def _drifted(self, frame_id: str, calibration: Calibration | None) -> bool:
        """Whether it is the current calibration but for a little."""
        if self._steady.current is None or calibration is None:
            return False
        known_id, known = self._steady.current
        if known is None or frame_id != known_id:
            return False
        same_lens = (calibration.model, calibration.distortion) == (known.model, known.distortion)
        return same_lens and difference(calibration.rectified, known.rectified) <= DRIFT


def publisher_names(node: Any, topic: str) -> str:
    """Full names of the nodes that publish a topic: "/left/camera, /right/camera"."""
    infos = node.get_publishers_info_by_topic(topic)
    names = {f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in infos}
    return ", ".join(sorted(names)) or "nobody"
