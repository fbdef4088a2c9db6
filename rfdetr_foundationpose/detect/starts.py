"""Where to begin, said by somebody who sees the object: a box or a mask instead of a detector's word."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import DetectorConfig
from ..device_frame import DeviceFrame
from ..types import CameraIntrinsics, Detection, InputError
from .detector import DetectionReport
from .masks import box_depths, depth_mask, is_outline, mask_box

SOURCE = "start"
MIN_SIDE = 4
"""A box has at least so many pixels a side: anything smaller is a slip of the hand."""


@dataclass(frozen=True)
class Start:
    """An object is here, in the next frame. Either box: (4,) x0, y0, x1, y1 in pixels of the colour image, or mask:
    (H, W) bool of its size."""

    object: str
    box: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None

    def detection(self, image: DeviceFrame) -> Detection:
        """With score 1. Raises InputError for a box beside the image or a mask of another size."""
        height, width = image.depth.shape
        if self.mask is not None:
            if self.mask.shape != (height, width):
                raise InputError(
                    "mask_size",
                    f"the mask of {self.object} is {self.mask.shape[1]}x{self.mask.shape[0]}, the image {width}x{height}",
                )
            box = mask_box(self.mask)
        else:
            assert self.box is not None
            box = np.clip(np.asarray(self.box, np.float32), 0, np.array([width, height, width, height], np.float32))
        if box is None or min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
            raise InputError(
                "start_empty",
                f"the box of {self.object} covers less than {MIN_SIDE} pixels of the {width}x{height} image",
            )
        median = float(box_depths(torch.from_numpy(box)[None].to(image.depth.device), image.depth)[0])
        depth = median if np.isfinite(median) else None
        if self.mask is not None:
            pixels = torch.from_numpy(np.ascontiguousarray(self.mask)).to(image.depth.device)
        else:
            pixels = depth_mask(box, depth, image.depth, image.camera)
        outlined = self.mask is not None and is_outline(self.mask, box)
        return Detection(self.object, self.object, 1.0, box, pixels, SOURCE, depth, outlined)


class Starts:
    """Starts that wait for the next frame. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: list[Start] = []
        self._lock = threading.Lock()

    def add(self, start: Start) -> None:
        with self._lock:
            self._waiting.append(start)

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def join(self, report: DetectionReport, image: DeviceFrame) -> tuple[DetectionReport, list[str]]:
        """The report with what was waiting before the detector's own, and sentences on starts that are none."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return report, []
        found: list[Detection] = []
        wrong: list[str] = []
        for start in waiting:
            try:
                found.append(start.detection(image))
            except InputError as error:
                wrong.append(str(error))
        return replace(report, detections=[*found, *report.detections]), wrong


class NoDetector:
    """``detector.source=none``: objects are tracked from where somebody says they are, and nothing looks for them."""

    source = "none"
    backend = ""
    weights = "none (starts by box or mask)"
    degraded: Sequence[str] = ()

    def warm_up(self, camera: CameraIntrinsics) -> None:
        """Nothing to warm up."""

    def apply(self, config: DetectorConfig) -> None:
        """Nothing to set."""

    def detect(self, frame: DeviceFrame) -> DetectionReport:
        return DetectionReport([], judges=False)
