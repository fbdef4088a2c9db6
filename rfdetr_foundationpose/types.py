"""The nouns every room speaks: frames, detections, poses.

Frames follow REP 103/105: the camera optical frame has x right, y down, z forward; metres, radians.
Stamps are integer nanoseconds of ROS time. ``T_a_b`` maps points from frame b to frame a.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UserError


class InputError(UserError, ValueError):
    """A frame, mask or calibration that cannot be used. ``kind`` is the counter it is counted under."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class CameraIntrinsics:
    """Pinhole intrinsics in pixels of a rectified image of ``width`` x ``height``."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        if not all(np.isfinite(v) for v in values) or self.fx <= 0 or self.fy <= 0:
            raise InputError(
                "bad_camera_info",
                f"camera matrix has fx={self.fx}, fy={self.fy}, cx={self.cx}, cy={self.cy}; "
                "fx and fy must be positive and all finite. Is the camera calibrated, and is its CameraInfo published?",
            )
        if self.width <= 0 or self.height <= 0:
            raise InputError("bad_camera_info", f"camera size {self.width}x{self.height} must be positive")

    @property
    def K(self) -> NDArray[np.float64]:
        """(3, 3) camera matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    @classmethod
    def from_matrix(cls, K: NDArray[Any], width: int, height: int) -> CameraIntrinsics:
        """From a (3, 3) camera matrix. Raises InputError when it is all zero or not finite."""
        K = np.asarray(K, dtype=np.float64).reshape(3, 3)
        return cls(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), width, height)


@dataclass(frozen=True)
class Frame:
    """One synchronized RGB-D image pair.

    rgb: (H, W, 3) uint8, RGB order. depth: (H, W), uint16 or float32, registered to rgb;
    ``depth * depth_scale`` is metres (0.001 for 16UC1 millimetres, 1.0 for 32FC1); 0, NaN and inf mean "no depth".
    masks: recorded instance masks by object name, (H, W) bool; only set where a recording carries them.
    """

    stamp_ns: int
    frame_id: str
    rgb: NDArray[np.uint8]
    depth: NDArray[Any]
    depth_scale: float
    camera: CameraIntrinsics
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        h, w = self.camera.height, self.camera.width
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise InputError("bad_rgb", f"rgb is {self.rgb.dtype} {self.rgb.shape}, expected uint8 (H, W, 3)")
        if self.depth.ndim != 2 or self.depth.dtype not in (np.dtype(np.uint16), np.dtype(np.float32)):
            raise InputError(
                "bad_depth", f"depth is {self.depth.dtype} {self.depth.shape}, expected uint16 or float32 (H, W)"
            )
        if self.depth.shape != self.rgb.shape[:2]:
            raise InputError(
                "size_mismatch",
                f"depth is {self.depth.shape[1]}x{self.depth.shape[0]} but rgb is {self.rgb.shape[1]}x{self.rgb.shape[0]}; "
                "use the camera driver's depth-registered-to-colour ('aligned') topic",
            )
        if self.rgb.shape[:2] != (h, w):
            raise InputError(
                "size_mismatch",
                f"image is {self.rgb.shape[1]}x{self.rgb.shape[0]} but camera_info says {w}x{h}; "
                "use the CameraInfo of the rgb topic",
            )


@dataclass(frozen=True)
class Detection:
    """One detected instance. box: (4,) float32 x0, y0, x1, y1 in pixels.

    mask: (H, W) bool, a numpy array or a torch tensor on the pose device.
    depth: median depth inside the mask in metres, None where nothing was measured.
    """

    object: str
    label: str
    score: float
    box: NDArray[np.float32]
    mask: Any
    source: str
    depth: float | None = None


def instance_name(object: str, instance_id: int) -> str:
    """Topic- and TF-safe: ``mug`` for the first instance, ``mug_1`` for the second."""
    return object if instance_id == 0 else f"{object}_{instance_id}"


class TrackState(str, Enum):
    SEARCHING = "searching"
    TRACKING = "tracking"
    LOST = "lost"


@dataclass(frozen=True)
class ObjectPose:
    """Pose of one object instance in the camera optical frame.

    T_cam_obj: (4, 4) float64, of the mesh as loaded (its own origin), metres.
    confidence: calibrated probability in [0, 1] that the pose is right (ADD-S below 0.1 diameter).
    visibility: share of the rendered model's pixels whose observed depth agrees, in [0, 1].
    """

    object: str
    instance_id: int
    T_cam_obj: NDArray[np.float64]
    confidence: float
    visibility: float
    state: TrackState
    stamp_ns: int
    frame_id: str

    @property
    def name(self) -> str:
        """Topic- and TF-safe name: ``mug`` for the first instance, ``mug_1`` for the second."""
        return instance_name(self.object, self.instance_id)
