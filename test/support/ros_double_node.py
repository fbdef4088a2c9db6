"""``pose_node`` with a small pipeline double of the real interface: it sleeps, then says how far the depth is.

Run as a process by the ROS tests. DOUBLE_SECONDS: processing time. A magenta first pixel makes it raise.
DOUBLE_BUILD_SECONDS, DOUBLE_BUILD_ERROR: how long building takes, and a file that, while it exists, makes it fail. DOUBLE_CLOSE_SECONDS: closing.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr_foundationpose.config import Config
from rfdetr_foundationpose.detect.starts import Start
from rfdetr_foundationpose.latency import StageTimer
from rfdetr_foundationpose.pipeline import FrameResult, PipelineStatus
from rfdetr_foundationpose.ros.main import main
from rfdetr_foundationpose.types import CameraIntrinsics, Frame, ObjectPose, TrackState

NAME = "box"
MAGENTA = (255, 0, 255)


class DoublePipeline:
    """Tracks the object ``box`` at the median depth; without valid depth nothing is found."""

    def __init__(self, config: Config) -> None:
        self.timer = StageTimer()
        self.config = config
        self._seconds = float(os.environ.get("DOUBLE_SECONDS", "0"))
        self._counters: Counter[str] = Counter()
        self._state = "searching"
        logging.getLogger("rfdetr_foundationpose.double").info("double pipeline, %s s a frame", self._seconds)
        time.sleep(float(os.environ.get("DOUBLE_BUILD_SECONDS", "0")))
        error = Path(os.environ.get("DOUBLE_BUILD_ERROR", "none"))
        if error.is_file():
            raise RuntimeError(error.read_text())

    def warm_up(self, camera: CameraIntrinsics) -> None:
        self._counters[f"warm_up_{camera.width}x{camera.height}"] += 1

    def upload_early(self, *, rgb: Any = None, depth: Any = None, depth_scale: float = 1.0) -> None:
        self._counters["early_rgb" if depth is None else "early_depth"] += 1

    def process(self, frame: Frame) -> FrameResult:
        if tuple(frame.rgb[0, 0]) == MAGENTA:
            raise RuntimeError("magenta frame")
        with self.timer.stage("track"):
            time.sleep(self._seconds)
        valid = frame.depth[np.isfinite(frame.depth) & (frame.depth > 0)]
        was, self._state = self._state, "tracking" if len(valid) else "searching"
        events = [f"{NAME} registered"] if was != self._state == "tracking" else []
        if len(valid) == 0:
            self._counters["lost"] += was == "tracking"
            return FrameResult(frame, [], [], events)
        T = np.eye(4)
        # x carries the red channel and y the mask, so that a test sees what arrived.
        covered = float(frame.masks[NAME].mean()) if NAME in frame.masks else 0.0
        T[:3, 3] = float(frame.rgb[..., 0].mean()) / 1000, covered, float(np.median(valid)) * frame.depth_scale
        found = ObjectPose(NAME, 0, T, 0.9, 0.8, TrackState.TRACKING, frame.stamp_ns, frame.frame_id)
        return FrameResult(frame, [found], None, events)

    def reset(self) -> None:
        self._counters["resets"] += 1
        self._state = "searching"

    def start_at(self, start: Start) -> None:
        assert start.box is not None
        self._counters[f"start_{start.object}_{'_'.join(f'{v:g}' for v in start.box)}"] += 1

    def apply(self, config: Config) -> None:
        self.config = config

    def close(self) -> None:
        self._state = "closed"
        time.sleep(float(os.environ.get("DOUBLE_CLOSE_SECONDS", "0")))

    def status(self) -> PipelineStatus:
        best = {NAME: 0.31} if self._state != "tracking" else {}
        degraded = ["tensorrt failed, cuda_graph runs"] if os.environ.get("DOUBLE_DEGRADED") else []
        return PipelineStatus(
            "double",
            "eager",
            "none",
            "eager",
            "none",
            "cpu",
            0,
            dict(self._counters),
            {NAME: self._state},
            best,
            degraded,
        )


if __name__ == "__main__":
    sys.exit(main(factory=DoublePipeline))
