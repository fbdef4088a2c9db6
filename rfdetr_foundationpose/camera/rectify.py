"""Images of a lens made pinhole images, by OpenCV: colour between pixels, depth and masks by the nearest one.

The camera keeps its matrix K and its direction (image_proc may turn it for stereo): depth is measured along the optical
axis, and stays right only so. Depth must be registered to colour, as everywhere here. What the lens did not see is black,
and without depth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import Frame
from .calibration import EQUIDISTANT, Calibration


class Rectifier:
    """Rectifies the images of one camera; maps are computed once for a calibration."""

    def __init__(self) -> None:
        self._for: Calibration | None = None
        self._smooth: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._nearest: tuple[NDArray[Any], NDArray[Any]] | None = None

    def __call__(self, frame: Frame, calibration: Calibration) -> Frame:
        """The frame without distortion. calibration: of its camera. Raises InputError for a lens that is not known."""
        if calibration != self._for:
            self._prepare(calibration)
        assert calibration.raw is not None and self._smooth is not None and self._nearest is not None
        rgb = cv2.remap(frame.rgb, *self._smooth, cv2.INTER_LINEAR)
        depth = cv2.remap(frame.depth, *self._nearest, cv2.INTER_NEAREST)
        masks = {
            name: cv2.remap(mask.astype(np.uint8), *self._nearest, cv2.INTER_NEAREST) > 0
            for name, mask in frame.masks.items()
        }
        return replace(frame, rgb=np.asarray(rgb, np.uint8), depth=depth, masks=masks, camera=calibration.raw)

    def _prepare(self, calibration: Calibration) -> None:
        calibration.check_distortion()
        assert calibration.raw is not None
        K, D = calibration.raw.K, np.asarray(calibration.distortion, np.float64)
        size = (calibration.raw.width, calibration.raw.height)
        make = cv2.fisheye.initUndistortRectifyMap if calibration.model == EQUIDISTANT else cv2.initUndistortRectifyMap
        x, y = make(K, D, np.eye(3), K, size, cv2.CV_32FC1)
        self._smooth = cv2.convertMaps(x, y, cv2.CV_16SC2)
        self._nearest = (x, y)
        self._for = calibration
