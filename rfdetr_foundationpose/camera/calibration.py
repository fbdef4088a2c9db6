"""sensor_msgs/CameraInfo: intrinsics, and the lens that bends them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..camera_files import CameraFile
from ..types import CameraIntrinsics, InputError

PLUMB_BOB, RATIONAL, EQUIDISTANT = "plumb_bob", "rational_polynomial", "equidistant"
_RECTIFIED = re.compile(r"rect(?!ang)|undist", re.I)
# Names in use for the same models; the empty one comes with drivers that fill in nothing.
_MODELS = {
    "": PLUMB_BOB,
    PLUMB_BOB: PLUMB_BOB,
    "brown_conrady": PLUMB_BOB,
    "radtan": PLUMB_BOB,
    RATIONAL: RATIONAL,
    EQUIDISTANT: EQUIDISTANT,
    "fisheye": EQUIDISTANT,
    "kannala_brandt4": EQUIDISTANT,
}
_LENGTHS = {PLUMB_BOB: (4, 5, 8, 12, 14), RATIONAL: (8, 12, 14), EQUIDISTANT: (4,)}


@dataclass(frozen=True)
class Calibration:
    """What a CameraInfo says of its image; region of interest and binning are applied.

    rectified: intrinsics of the rectified image: P where the driver fills it, else K. raw: those of the image before
    rectification, K; None where K is empty. model: "plumb_bob", "rational_polynomial", "equidistant", or what the message
    says. distortion: its coefficients, empty where all are zero.
    """

    rectified: CameraIntrinsics
    raw: CameraIntrinsics | None
    model: str
    distortion: tuple[float, ...]

    @property
    def distorted(self) -> bool:
        """Whether the image before rectification is no pinhole image."""
        return bool(self.distortion)

    def of_image(self, rectified: bool) -> CameraIntrinsics:
        """The intrinsics of an image as it is. rectified: it was rectified before it was sent."""
        return self.raw if self.distorted and not rectified and self.raw is not None else self.rectified

    def warning(self, topic: str) -> str:
        """What to say of an image topic of this camera that is taken as it is, though the lens distorts it."""
        coefficients = ", ".join(f"{v:g}" for v in self.distortion)
        return (
            f"{topic} is not rectified, and its lens distorts ({self.model}, {coefficients}): poses are off towards the border; "
            "use the driver's rectified topic, or set input.rectify to true"
        )

    def check_distortion(self) -> None:
        """Raises InputError where the image cannot be rectified."""
        lengths = _LENGTHS.get(self.model)
        if lengths is None:
            raise InputError(
                "bad_camera_info",
                f"camera_info has distortion_model {self.model!r}; input.rectify knows {', '.join(_LENGTHS)}. Use the driver's "
                "rectified topic, or set input.rectify to false",
            )
        if len(self.distortion) not in lengths or not np.isfinite(self.distortion).all() or self.raw is None:
            raise InputError(
                "bad_camera_info",
                f"camera_info has {len(self.distortion)} coefficients {list(self.distortion)} of {self.model} and "
                f"{'no' if self.raw is None else 'a'} camera matrix K; expected {' or '.join(map(str, lengths))} finite ones "
                "and K. Calibrate the camera, or set input.rectify to false",
            )


def is_rectified(topic: str) -> bool:
    """Whether a topic's name says that its images are without distortion: ``image_rect_color``."""
    return _RECTIFIED.search(topic) is not None


def of_camera_file(path: Path, camera: CameraFile, width: int, height: int) -> Calibration:
    """Of a file of intrinsics, for images of that size. Raises InputError for a file of another view."""
    here = camera.at(path, width, height)
    intrinsics = CameraIntrinsics(here.fx, here.fy, here.cx, here.cy, width, height)
    return Calibration(intrinsics, intrinsics, _MODELS.get(here.model, here.model), here.distortion)


def read_calibration(msg: Any) -> Calibration:
    """Raises InputError for a message without usable intrinsics."""
    P, K = [float(v) for v in msg.p], [float(v) for v in msg.k]
    raw = _intrinsics(msg, K[0], K[4], K[2], K[5]) if len(K) == 9 and K[0] > 0 else None
    if len(P) == 12 and P[0] > 0:
        rectified = _intrinsics(msg, P[0], P[5], P[2], P[6])
    else:
        rectified = raw or _intrinsics(msg, *((K[0], K[4], K[2], K[5]) if len(K) == 9 else (0.0, 0.0, 0.0, 0.0)))
    coefficients = tuple(float(v) for v in msg.d)
    if not any(v != 0 for v in coefficients):
        coefficients = ()
    model = str(msg.distortion_model).strip().lower().replace(" ", "_")
    return Calibration(rectified, raw, _MODELS.get(model, model), coefficients)


def _intrinsics(msg: Any, fx: float, fy: float, cx: float, cy: float) -> CameraIntrinsics:
    width, height = msg.roi.width or msg.width, msg.roi.height or msg.height
    bx, by = max(int(msg.binning_x), 1), max(int(msg.binning_y), 1)
    return CameraIntrinsics(
        fx / bx,
        fy / by,
        (cx - msg.roi.x_offset) / bx,
        (cy - msg.roi.y_offset) / by,
        int(width) // bx,
        int(height) // by,
    )
