"""The nouns every room speaks: frames, detections, poses.

Frames follow REP 103/105: the camera optical frame has x right, y down, z forward; metres, radians.
Stamps are integer nanoseconds of ROS time. ``T_a_b`` maps points from frame b to frame a.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Image: TypeAlias = Any
"""A numpy array, or a torch tensor on the CPU or on a CUDA device. This module must not import torch."""


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

    @property
    def doubt(self) -> str:
        """A sentence where the matrix looks like that of images of another size, which makes every pose wrong; "" where it does not.

        Lenses look within some hundredths of the image through its middle, unless it is cut out of a larger one.
        """
        x, y = 2 * (self.cx + 0.5) / self.width, 2 * (self.cy + 0.5) / self.height
        if max(abs(x - 1), abs(y - 1)) < 0.24:
            return ""
        other = f", as if it were of {self.width * x:.0f}x{self.height * y:.0f}" if abs(x / y - 1) < 0.06 else ""
        return (
            f"the camera matrix has its principal point at ({self.cx:.0f}, {self.cy:.0f}), far from the middle of images of "
            f"{self.width}x{self.height}{other}; unless they are cut out of larger ones, give the matrix of this size: poses are wrong otherwise"
        )

    @classmethod
    def from_matrix(cls, K: NDArray[Any], width: int, height: int) -> CameraIntrinsics:
        """From a (3, 3) camera matrix. Raises InputError when it is all zero or not finite."""
        K = np.asarray(K, dtype=np.float64).reshape(3, 3)
        return cls(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), width, height)

    @classmethod
    def from_file(cls, path: str | Path, width: int | None = None, height: int | None = None) -> CameraIntrinsics:
        """Of a camera file: a 3x3 matrix as text (cam_K.txt), BOP's JSON, ROS, Kalibr, OpenCV, Open3D, RealSense, COLMAP, ...

        width, height: of the images, needed where the file does not say it; a file of the same view at another size is scaled.
        Distortion in the file is not applied. Raises InputError that names the file.
        """
        from .camera_files import read_camera

        camera = read_camera(path)
        if width is not None and height is not None:
            camera = camera.at(Path(path), width, height)
        if camera.size is None:
            raise InputError(
                "bad_camera_info",
                f"camera file {path} does not say of which size its images are: give width and height",
            )
        return cls(camera.fx, camera.fy, camera.cx, camera.cy, *camera.size)


@dataclass(frozen=True)
class Frame:
    """One synchronized RGB-D image pair.

    rgb: (H, W, 3) uint8, RGB order. depth: (H, W), uint16 or float32, registered to rgb;
    ``depth * depth_scale`` is metres (0.001 for 16UC1 millimetres, 1.0 for 32FC1); 0, NaN and inf mean "no depth".
    masks: (H, W) bool by instance name, for ``detector.source=mask-topic``: a recording's ground truth, or your own.

    Images are numpy arrays or torch tensors. A tensor on the pipeline's own device is used where it is, in the order of
    the current CUDA stream: it never goes through the host. It may be changed once ``Pipeline.process`` has returned.
    """

    stamp_ns: int
    frame_id: str
    rgb: Image
    depth: Image
    depth_scale: float
    camera: CameraIntrinsics
    masks: Mapping[str, Image] = field(default_factory=dict)

    def __post_init__(self) -> None:
        h, w = self.camera.height, self.camera.width
        rgb, depth = _layout(self.rgb), _layout(self.depth)
        if len(rgb.shape) != 3 or rgb.shape[2] != 3 or rgb.dtype != "uint8":
            raise InputError("bad_rgb", f"rgb is {rgb}, expected uint8 (H, W, 3)")
        if len(depth.shape) != 2 or depth.dtype not in ("uint16", "float32"):
            raise InputError("bad_depth", f"depth is {depth}, expected uint16 or float32 (H, W)")
        if depth.shape != rgb.shape[:2]:
            raise InputError(
                "size_mismatch",
                f"depth is {depth.shape[1]}x{depth.shape[0]} but rgb is {rgb.shape[1]}x{rgb.shape[0]}; "
                "use the camera driver's depth-registered-to-colour ('aligned') topic",
            )
        if rgb.shape[:2] != (h, w):
            raise InputError(
                "size_mismatch",
                f"image is {rgb.shape[1]}x{rgb.shape[0]} but camera_info says {w}x{h}; "
                "use the CameraInfo of the rgb topic",
            )

    @classmethod
    def from_arrays(
        cls,
        rgb: Image,
        depth: Image,
        camera: CameraIntrinsics,
        *,
        depth_scale: float | None = None,
        stamp_ns: int | None = None,
        frame_id: str = "camera_color_optical_frame",
        masks: Mapping[str, Image] | None = None,
    ) -> Frame:
        """A frame of images that carry no header. Raises InputError.

        depth_scale: metres per unit of depth; None: 0.001 for uint16 (millimetres), 1.0 for float32 (metres).
        stamp_ns: None: now.
        """
        if depth_scale is None:
            depth_scale = 0.001 if _layout(depth).dtype == "uint16" else 1.0
        stamp = time.time_ns() if stamp_ns is None else stamp_ns
        return cls(stamp, frame_id, rgb, depth, depth_scale, camera, masks or {})

    @classmethod
    def from_files(
        cls,
        color: str | Path,
        depth: str | Path,
        camera: CameraIntrinsics,
        *,
        depth_scale: float | None = None,
        stamp_ns: int | None = None,
        frame_id: str = "camera_color_optical_frame",
    ) -> Frame:
        """A frame of two image files: colour (PNG, JPEG, ...), and depth registered to it (16-bit PNG or TIFF, or .npy).

        depth_scale, stamp_ns: as ``from_arrays``. Raises InputError that names the file.
        """
        from .frame_files import read_color, read_depth

        return cls.from_arrays(
            read_color(color), read_depth(depth), camera, depth_scale=depth_scale, stamp_ns=stamp_ns, frame_id=frame_id
        )

    def to_numpy(self) -> Frame:
        """The same frame with its images as numpy arrays; tensors are copied to the host, which waits for their device."""
        masks = {name: as_numpy(mask) for name, mask in self.masks.items()}
        return replace(self, rgb=as_numpy(self.rgb), depth=as_numpy(self.depth), masks=masks)


@dataclass(frozen=True)
class _Layout:
    """shape and dtype of an image, whichever library it is of; as text for error messages."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def _layout(image: Image) -> _Layout:
    if not hasattr(image, "dtype") or not hasattr(image, "shape"):
        return _Layout((), type(image).__name__)
    return _Layout(tuple(image.shape), str(image.dtype).removeprefix("torch."))


def as_numpy(image: Image) -> NDArray[Any]:
    """The image as a numpy array; a tensor is copied to the host."""
    return image if isinstance(image, np.ndarray) else np.asarray(image.detach().cpu().numpy())


@dataclass(frozen=True)
class Detection:
    """One detected instance. box: (4,) float32 x0, y0, x1, y1 in pixels.

    mask: (H, W) bool, a numpy array or a torch tensor on the pose device.
    depth: median depth inside the mask in metres, None where nothing was measured.
    outlined: whether the mask follows the object's silhouette, as a segmenter's does; a box, or what of it has the object's
    depth, does not.
    """

    object: str
    label: str
    score: float
    box: NDArray[np.float32]
    mask: Any
    source: str
    depth: float | None = None
    outlined: bool = False


def instance_name(object: str, instance_id: int) -> str:
    """Topic- and TF-safe: ``mug`` for the first instance, ``mug_1`` for the second."""
    return object if instance_id == 0 else f"{object}_{instance_id}"


class TrackState(str, Enum):
    """What is known of an instance. UNCERTAIN: its pose does not fit the image, as in motion blur; it is searched near where
    it was, and no pose of it is given out meanwhile. LOST: it was not found again; said once."""

    SEARCHING = "searching"
    TRACKING = "tracking"
    UNCERTAIN = "uncertain"
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

    @property
    def translation_m(self) -> NDArray[np.float64]:
        """(3,) x, y, z of the mesh's origin in the camera frame, metres."""
        return self.T_cam_obj[:3, 3].copy()

    @property
    def rotation(self) -> NDArray[np.float64]:
        """(3, 3) rotation matrix from the object's frame to the camera's."""
        return self.T_cam_obj[:3, :3].copy()

    @property
    def quaternion_xyzw(self) -> NDArray[np.float64]:
        """(4,) unit quaternion x, y, z, w of the rotation, w >= 0: the order of ROS messages and of scipy."""
        from scipy.spatial.transform import Rotation

        return np.asarray(Rotation.from_matrix(self.rotation).as_quat(canonical=True))

    def __str__(self) -> str:
        x, y, z = self.translation_m
        qx, qy, qz, qw = self.quaternion_xyzw
        return (
            f"{self.name} {self.state.value}: x {x:.4f} y {y:.4f} z {z:.4f} m, "
            f"quaternion xyzw {qx:.4f} {qy:.4f} {qz:.4f} {qw:.4f}, confidence {self.confidence:.2f}"
        )
