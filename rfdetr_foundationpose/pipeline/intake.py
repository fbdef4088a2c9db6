"""A frame's images to the device, and its depth through the filter: also of an early image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..device_frame import DeviceFrame, Uploader
from ..latency import StageTimer
from ..types import Frame

if TYPE_CHECKING:
    from ..pose.estimator import PoseEstimator
    from ..pose.observation import Observation


class Intake:
    """Uploads frames and filters their depth, on the current stream. For one thread at a time."""

    def __init__(self, estimator: PoseEstimator, device: torch.device, timer: StageTimer) -> None:
        self._estimator = estimator
        self._timer = timer
        self._uploader = Uploader(device)
        # Of an early depth image: as uploaded, metres a unit, filtered.
        self._filtered: tuple[Tensor, float, Tensor] | None = None

    def upload_early(self, rgb: NDArray[np.uint8] | None, depth: NDArray[Any] | None, depth_scale: float) -> None:
        """Upload rgb (H, W, 3) or depth (H, W), in units of ``depth_scale`` m, of the next frame; filter depth.

        ``upload`` and ``prepare`` of a frame over the same memory do not do it again; the image must not change before.
        """
        if rgb is not None:
            self._uploader.upload_early("rgb", rgb)
        if depth is not None:
            raw = self._uploader.upload_early("depth", depth)
            with self._timer.stage("preprocess"):
                self._filtered = (raw, depth_scale, self._estimator.filter_depth(raw, depth_scale))

    def upload(self, frame: Frame) -> DeviceFrame:
        """Its host images may be reused after ``wait``."""
        return self._uploader(frame)

    def prepare(self, image: DeviceFrame) -> Observation:
        """What the pose stage looks at, of the frame that was uploaded last."""
        early, self._filtered = self._filtered, None
        if early is not None and early[0] is image.raw_depth and early[1] == image.frame.depth_scale:
            return self._estimator.prepare(image, early[2])
        with self._timer.stage("preprocess"):
            return self._estimator.prepare(image)

    def wait(self) -> None:
        """Until the images of the newest frame are copied."""
        self._uploader.wait()
