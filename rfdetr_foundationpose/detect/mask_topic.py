"""Detections from instance masks that a recording carries: no network, the same interface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..config import DetectorConfig
from ..device_frame import DeviceFrame
from ..objects import ObjectSpec
from ..types import CameraIntrinsics, Detection, InputError, as_numpy
from .detector import DetectionReport
from .masks import is_outline, mask_box

# Fewer pixels say nothing about a pose.
MIN_PIXELS = 20


class MaskTopicDetector:
    """One detection for each non-empty mask of a known object in ``Frame.masks``; score 1.

    Masks are named like poses: ``mug`` for the first instance, ``mug_1`` for the second.
    """

    source = "mask-topic"
    backend = ""
    weights = "none (masks of the recording)"
    degraded: Sequence[str] = ()

    def __init__(self, specs: Sequence[ObjectSpec], device: torch.device) -> None:
        self._names = {name: s.name for s in specs for name in s.instance_names}
        self._device = device

    def warm_up(self, camera: CameraIntrinsics) -> None:
        """Nothing to warm up."""

    def apply(self, config: DetectorConfig) -> None:
        """Masks have no threshold."""

    def detect(self, frame: DeviceFrame) -> DetectionReport:
        """Raises InputError for a mask that is not of the image's size."""
        size = (frame.camera.height, frame.camera.width)
        detections = []
        for mask_name, name in self._names.items():
            given = frame.frame.masks.get(mask_name)
            if given is None:
                continue
            mask = as_numpy(given).astype(bool)
            if mask.shape != size:
                raise InputError(
                    "mask_size",
                    f"mask of {mask_name} is {mask.shape[1]}x{mask.shape[0]}, the image {size[1]}x{size[0]}",
                )
            box = mask_box(mask)
            if box is None or np.count_nonzero(mask) < MIN_PIXELS:
                continue
            inside = as_numpy(frame.frame.depth)[mask] * float(frame.frame.depth_scale)
            inside = inside[np.isfinite(inside) & (inside > 0)]
            detections.append(
                Detection(
                    object=name,
                    label=name,
                    score=1.0,
                    box=box,
                    mask=torch.from_numpy(mask).to(self._device),
                    source=self.source,
                    depth=float(np.median(inside)) if inside.size else None,
                    outlined=is_outline(mask, box),
                )
            )
        return DetectionReport(detections)
