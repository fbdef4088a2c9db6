"""Which camera the pipeline is ready for: its warm-up, and what a camera that changes means."""

from __future__ import annotations

import threading
import time
from typing import Any

from ..types import CameraIntrinsics, Frame
from .cameras import difference
from .inputs import Inputs
from .pipeline import PosePipeline
from .ros_lock import RosLock
from .state import NodeState

# Configure waits this long (s) for a camera_info, so that the warm-up uses the camera's real size.
CAMERA_WAIT = 1.0
# Intrinsics that change by more than this share of the image's width show tracked objects elsewhere than where they are tracked.
ZOOM = 0.02


class WarmUp:
    """Warms one pipeline up for the size of the camera's images. lock: set aside meanwhile."""

    def __init__(self, pipeline: PosePipeline, state: NodeState, lock: RosLock, logger: Any) -> None:
        self._pipeline = pipeline
        self._state = state
        self._lock = lock
        self._logger = logger
        self._size: tuple[int, int] | None = None
        self._seen: tuple[str, int, int] | None = None
        self._camera: CameraIntrinsics | None = None

    @property
    def frame_id(self) -> str:
        """Of the newest frame; "" before the first."""
        return "" if self._seen is None else self._seen[0]

    def is_for(self, width: int, height: int) -> bool:
        """Whether images of this size need no warm-up."""
        return self._size == (width, height)

    def before_frames(self, inputs: Inputs, closing: threading.Event) -> None:
        """Warm up if the camera's size is known within CAMERA_WAIT, or leave it to the first frame."""
        with self._lock.set_aside():
            camera = inputs.wait_for_camera(CAMERA_WAIT, closing)
        if camera is None:
            self._logger.info("no camera_info yet: the warm-up waits for the first frame")
        else:
            self._warm_up(camera)

    def start_over(self) -> None:
        """The next frame may be of another camera than the last one."""
        self._seen = self._camera = None

    def follow(self, frame: Frame) -> None:
        """A new image size needs a warm-up; a new camera frame, size or calibration makes the tracks meaningless."""
        width, height = frame.camera.width, frame.camera.height
        seen = (frame.frame_id, width, height)
        if self._seen is not None and seen != self._seen:
            self._logger.warning(f"camera changed from {self._seen} to {seen}: searching again")
            self._pipeline.reset()
        elif self._camera is not None and difference(self._camera, frame.camera) > ZOOM:
            self._logger.warning(
                f"intrinsics changed from {_brief(self._camera)} to {_brief(frame.camera)}: searching again"
            )
            self._pipeline.reset()
        self._seen, self._camera = seen, frame.camera
        if not self.is_for(width, height):
            self._warm_up(frame.camera)

    def _warm_up(self, camera: CameraIntrinsics) -> None:
        self._state.doing = "warm-up"
        self._logger.info(f"warming up for {camera.width}x{camera.height}")
        begin = time.monotonic()
        with self._lock.set_aside():
            self._pipeline.warm_up(camera)
        self._size = (camera.width, camera.height)
        self._logger.info(f"warmed up in {time.monotonic() - begin:.1f} s")


def _brief(camera: CameraIntrinsics) -> str:
    return f"({camera.fx:.0f}, {camera.fy:.0f}, {camera.cx:.0f}, {camera.cy:.0f})"
