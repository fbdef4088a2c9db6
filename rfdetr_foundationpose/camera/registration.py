"""Depth of a depth camera, drawn into the image of the colour camera beside it: what drivers call aligned or registered depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import InputError
from .calibration import EQUIDISTANT, Calibration

Floats = NDArray[np.float64]
# A pixel of depth covers at most so many of colour across; those of a surface a few centimetres away do more, and leave gaps.
_WIDEST = 8


@dataclass(frozen=True)
class DepthCamera:
    """calibration: of the depth images; rectified: they are without distortion. T_color_depth: (4, 4), metres."""

    calibration: Calibration
    rectified: bool
    T_color_depth: Floats


class DepthRegistration:
    """Registers the depth images of one camera; rays are computed once."""

    def __init__(self, depth: DepthCamera) -> None:
        self._depth = depth
        camera = depth.calibration.of_image(depth.rectified)
        self._size = (camera.height, camera.width)
        # Corners of the pixels, whose middles have whole coordinates.
        x, y = np.meshgrid(np.arange(camera.width + 1) - 0.5, np.arange(camera.height + 1) - 0.5)
        pixels = np.stack([x, y], -1).reshape(-1, 1, 2)
        if depth.calibration.distorted and not depth.rectified:
            depth.calibration.check_distortion()
            undistort = cv2.fisheye.undistortPoints if depth.calibration.model == EQUIDISTANT else cv2.undistortPoints
            flat = undistort(pixels, camera.K, np.asarray(depth.calibration.distortion, np.float64))
        else:
            flat = (pixels - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
        rays = np.concatenate([flat, np.ones((len(flat), 1, 1))], -1).reshape(camera.height + 1, camera.width + 1, 3)
        self._corners = rays @ depth.T_color_depth[:3, :3].T

    def __call__(self, pixels: NDArray[Any], scale: float, color: Calibration, rectified: bool) -> NDArray[Any]:
        """Depth (H, W) in the pixels of the colour image, of the type of ``pixels`` (h, w) and in its units, whose metres are ``scale``.

        Each pixel is drawn as the upright rectangle around what it covers; of several surfaces the nearest is seen; 0 where none is. rectified:
        of the colour image. Raises InputError for images of another size than their calibration.
        """
        if pixels.shape != self._size:
            raise InputError(
                "size_mismatch",
                f"depth image is {pixels.shape[1]}x{pixels.shape[0]}, but its camera_info says {self._size[1]}x{self._size[0]}",
            )
        camera = color.of_image(rectified)
        metres = pixels.astype(np.float64) * scale
        rows, columns = np.nonzero(np.isfinite(metres) & (metres > 0))
        z = metres[rows, columns]
        t = self._depth.T_color_depth[:3, 3]
        ends = [self._corners[rows + i, columns + j] * z[:, None] + t for i in (0, 1) for j in (0, 1)]
        depth = np.mean([end[:, 2] for end in ends], axis=0)
        seen = np.min([end[:, 2] for end in ends], axis=0) > 1e-3
        shown = np.stack([_project(end[seen], color, rectified) for end in ends])
        depth = depth[seen]
        first, last = np.ceil(shown.min(0)).astype(np.int64), np.ceil(shown.max(0)).astype(np.int64)
        found = np.full(camera.height * camera.width, np.inf)
        widest = np.minimum((last - first).max(0, initial=0), _WIDEST)
        for dy in range(int(widest[1])):
            for dx in range(int(widest[0])):
                x, y = first[:, 0] + dx, first[:, 1] + dy
                inside = (
                    (x < last[:, 0]) & (y < last[:, 1]) & (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
                )
                np.minimum.at(found, y[inside] * camera.width + x[inside], depth[inside])
        found[~np.isfinite(found)] = 0.0
        result = found.reshape(camera.height, camera.width) / scale
        if pixels.dtype.kind == "u":
            return np.rint(np.minimum(result, np.iinfo(pixels.dtype).max)).astype(pixels.dtype)
        return result.astype(pixels.dtype)


def _project(points: Floats, color: Calibration, rectified: bool) -> Floats:
    """(n, 2) pixels of points in the colour camera's frame (n, 3), through its lens unless the image is rectified."""
    camera = color.of_image(rectified)
    if color.distorted and not rectified and len(points):
        color.check_distortion()
        still, D = np.zeros(3), np.asarray(color.distortion, np.float64)
        if color.model == EQUIDISTANT:
            shown, _ = cv2.fisheye.projectPoints(points[:, None], still, still, camera.K, D)
        else:
            shown, _ = cv2.projectPoints(points, still, still, camera.K, D)
        return np.asarray(shown, np.float64).reshape(-1, 2)
    return np.asarray(points[:, :2] / points[:, 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy))
