"""The throttled thread: debug image, latency topics, diagnostics. It may be late and may drop; it never holds a pose up."""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64

from ..config import Config
from ..latency import STAGES, StageStats, StageTimer
from ..overlay import OverlayModel, draw_overlay
from ..types import Detection, as_numpy
from .diagnostics import Diagnostics
from .health import Health
from .messages import header
from .rcl_bytes import publish_bytes
from .serialization import PictureBytes

if TYPE_CHECKING:
    from ..pipeline import FrameResult

# Latencies and diagnostics wait so long (s) for the end of a frame, when the next pose is farthest away.
GRACE = 0.1
# A frame that ended so long ago (s) has just ended; frames that come less often than RARE (s) are not waited for.
JUST, RARE = 0.003, 0.5
# The compressed debug image has this JPEG quality (0 to 100).
JPEG_QUALITY = 85


class Telemetry:
    """Owns the thread and its publishers. health, latency, config: asked from the thread, at their own rates."""

    def __init__(
        self,
        node: Node,
        timer: StageTimer,
        config: Callable[[], Config],
        latency: Callable[[], dict[str, StageStats]],
        health: Callable[[], Health],
        on_error: Callable[[str, Exception], None],
    ) -> None:
        self._node = node
        self._timer = timer
        self._config = config
        self._latency = latency
        self._health = health
        self._on_error = on_error
        self._models: Mapping[str, OverlayModel] = {}
        self._detections: list[Detection] = []
        self._condition = threading.Condition()
        # Held while the thread asks the node, and with it holds what the node has loaded.
        self._asking = threading.Lock()
        self._newest: FrameResult | None = None
        self._stopping = False
        # When the thread has something to do.
        self._due = 0.0
        self._offered: list[float] = []
        self._counts: dict[str, int] = {}
        self._diagnose = Diagnostics()
        self.dropped = 0
        self._image = node.create_publisher(Image, "~/debug_image", 1)
        self._picture_bytes, self._publish_bytes = PictureBytes(), publish_bytes(self._image)
        self._compressed = node.create_publisher(CompressedImage, "~/debug_image/compressed", 1)
        self._stages = {stage: node.create_publisher(Float64, f"~/latency/{stage}", 10) for stage in STAGES}
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """End the thread; False when it does not end in time."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def use_models(self, models: Mapping[str, OverlayModel]) -> None:
        """Geometry for the overlay, by object. Afterwards the thread holds nothing of what the node had before."""
        with self._asking, self._condition:
            self._models, self._newest, self._detections = models, None, []

    def offer(self, result: FrameResult) -> None:
        """Leave a result for the debug image; one that was not drawn yet is dropped. Never waits for the drawing."""
        with self._condition:
            if result.detections is not None:
                self._detections = result.detections
            self._offered = [*self._offered[-30:], time.monotonic()]
            if not self._image_wanted():
                self._newest = None
            else:
                self.dropped += self._newest is not None
                self._newest = _kept(result)
            if self._newest is not None or self._due <= self._offered[-1]:
                self._condition.notify()

    def _image_wanted(self) -> bool:
        watched = self._image.get_subscription_count() + self._compressed.get_subscription_count() > 0
        return watched and self._config().debug.image

    def _run(self) -> None:
        due = dict.fromkeys(("image", "latency", "diagnostics"), time.monotonic())
        while self._wait(due):
            settings = self._config().debug
            rates = {
                "image": settings.image_rate,
                "latency": settings.latency_rate,
                "diagnostics": settings.diagnostics_rate,
            }
            work = {"image": self._draw, "latency": self._publish_latency, "diagnostics": self._publish_diagnostics}
            for name, action in work.items():
                now = time.monotonic()
                if due[name] > now or (name == "image" and self._newest is None):
                    continue
                # Also where the end of a frame was waited for the rate is kept; that of images is the highest one.
                due[name] = 1 / rates[name] + (now if name == "image" else max(due[name], now - 1 / rates[name]))
                try:
                    action()
                except Exception as error:  # telemetry must not end because of one picture
                    self._on_error(f"telemetry_{name}", error)

    def _wait(self, due: Mapping[str, float]) -> bool:
        """Until something is due and a frame has just ended: Python's work of this thread would hold the next pose up.

        False when the thread is to end. due: monotonic seconds.
        """
        with self._condition:
            while not self._stopping:
                now = time.monotonic()
                self._due = min(when for name, when in due.items() if name != "image" or self._newest is not None)
                rare = not self._offered or now - self._offered[-1] > RARE
                grace = 0.0 if rare else GRACE
                if now >= self._due + grace or (now >= self._due and now - self._offered[-1] < JUST):
                    return True
                self._condition.wait(self._due + grace - now)
            return False

    def _draw(self) -> None:
        with self._condition:
            result, self._newest = self._newest, None
            detections, offered, models = list(self._detections), list(self._offered), self._models
        if result is None:
            return
        begin = time.perf_counter()
        frame = result.frame
        rate = (len(offered) - 1) / (offered[-1] - offered[0]) if len(offered) > 1 and offered[-1] > offered[0] else 0.0
        picture = draw_overlay(
            as_numpy(frame.rgb), frame.camera, result.poses, models, detections, [f"{rate:.1f} fps", *result.events]
        )
        head = header(frame.stamp_ns, frame.frame_id)
        if self._image.get_subscription_count() > 0:
            self._publish_picture(picture, frame.stamp_ns, frame.frame_id)
        if self._compressed.get_subscription_count() > 0:
            self._compressed.publish(_jpeg(picture, head))
        self._timer.add("visualize", (time.perf_counter() - begin) * 1e3)

    def _publish_picture(self, picture: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> None:
        """Without Python's lock, which the next frame needs."""
        message = None if self._publish_bytes is None else self._picture_bytes(picture, stamp_ns, frame_id)
        if message is None or self._publish_bytes is None:
            self._image.publish(_image(picture, header(stamp_ns, frame_id)))
        else:
            self._publish_bytes(message)

    def _publish_latency(self) -> None:
        with self._asking:
            latency = self._latency()
        for stage, stats in latency.items():
            if stage in self._stages and self._counts.get(stage) != stats.count:
                self._counts[stage] = stats.count
                self._stages[stage].publish(Float64(data=stats.last))

    def _publish_diagnostics(self) -> None:
        with self._asking:
            status = self._diagnose(self._health())
        message = DiagnosticArray(status=status)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _kept(result: FrameResult) -> FrameResult:
    """With a picture of its own where that is in the GPU's memory, which its sender takes back after the frame."""
    frame = result.frame
    if isinstance(frame.rgb, np.ndarray):
        return result
    return replace(result, frame=replace(frame, rgb=frame.rgb.clone()))


def _image(rgb: NDArray[np.uint8], head: Any) -> Image:
    height, width, _ = rgb.shape
    message = Image(header=head, height=height, width=width, encoding="rgb8", step=3 * width)
    data = array.array("B")
    data.frombytes(rgb.data.cast("B"))
    message.data = data
    return message


def _jpeg(rgb: NDArray[np.uint8], head: Any) -> CompressedImage:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return CompressedImage(header=head, format="rgb8; jpeg compressed bgr8", data=array.array("B", encoded.tobytes()))
