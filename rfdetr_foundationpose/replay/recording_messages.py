"""ROS 2 messages of frames and poses, built with rosbags' own types: no ROS needed."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from ..types import CameraIntrinsics, Frame

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types


def header_message(stamp_ns: int, frame_id: str) -> Any:
    """std_msgs/Header."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return TYPES["std_msgs/msg/Header"](TYPES["builtin_interfaces/msg/Time"](sec, nanosec), frame_id)


def image_message(header: Any, pixels: NDArray[Any], encoding: str) -> Any:
    """sensor_msgs/Image of a (H, W) or (H, W, C) array."""
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    data = pixels.reshape(-1).view(np.uint8)
    return TYPES["sensor_msgs/msg/Image"](header, height, width, encoding, 0, pixels.strides[0], data)


def depth_pixels(frame: Frame) -> tuple[NDArray[Any], str]:
    """Pixels and encoding: 16UC1 for uint16 millimetres, else 32FC1 metres."""
    if frame.depth.dtype == np.uint16:
        if abs(frame.depth_scale - 0.001) < 1e-12:
            return frame.depth, "16UC1"
        return frame.depth.astype(np.float32) * np.float32(frame.depth_scale), "32FC1"
    return frame.depth * np.float32(frame.depth_scale), "32FC1"


def camera_info_message(header: Any, camera: CameraIntrinsics) -> Any:
    """sensor_msgs/CameraInfo of a rectified pinhole camera."""
    K = camera.K
    P = np.hstack([K, np.zeros((3, 1))]).ravel()
    roi = TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header, camera.height, camera.width, "plumb_bob", np.zeros(5), K.ravel(), np.eye(3).ravel(), P, 0, 0, roi
    )


def encode_rgb(rgb: NDArray[np.uint8], kind: str) -> tuple[str, NDArray[np.uint8]]:
    """Format and data of a sensor_msgs/CompressedImage, kind "jpeg" or "png"."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    _, data = cv2.imencode(".jpg" if kind == "jpeg" else ".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    return f"rgb8; {kind} compressed bgr8", np.asarray(data, np.uint8).reshape(-1)


def encode_depth(depth: NDArray[Any], encoding: str) -> tuple[str, NDArray[np.uint8]]:
    """The same of depth in compressed_depth_image_transport's layout: 12 bytes of configuration, then PNG of millimetres.

    Raises ValueError for an encoding other than 16UC1.
    """
    if encoding != "16UC1":
        raise ValueError(
            "compressed depth is written for uint16 millimetres only; give depth as uint16 with scale 0.001"
        )
    _, data = cv2.imencode(".png", depth, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    payload = [np.frombuffer(struct.pack("<iff", 0, 0.0, 0.0), np.uint8), np.asarray(data, np.uint8).reshape(-1)]
    return "16UC1; compressedDepth png", np.concatenate(payload)


def compressed_message(header: Any, encoded: tuple[str, NDArray[np.uint8]]) -> Any:
    """sensor_msgs/CompressedImage of what ``encode_rgb`` or ``encode_depth`` gives."""
    return TYPES["sensor_msgs/msg/CompressedImage"](header, *encoded)


def pose_message(T: NDArray[np.float64]) -> Any:
    """geometry_msgs/Pose of a (4, 4) transform."""
    q = Rotation.from_matrix(T[:3, :3]).as_quat()
    point = TYPES["geometry_msgs/msg/Point"](*(float(v) for v in T[:3, 3]))
    return TYPES["geometry_msgs/msg/Pose"](point, TYPES["geometry_msgs/msg/Quaternion"](*(float(v) for v in q)))


def transform_message(header: Any, child: str, T: NDArray[np.float64]) -> Any:
    """geometry_msgs/TransformStamped of a (4, 4) transform, header frame <- child."""
    message = pose_message(T)
    vector = TYPES["geometry_msgs/msg/Vector3"](message.position.x, message.position.y, message.position.z)
    moved = TYPES["geometry_msgs/msg/Transform"](vector, message.orientation)
    return TYPES["geometry_msgs/msg/TransformStamped"](header, child, moved)


def pose_matrix(position: Any, q: Any) -> NDArray[np.float64]:
    """(4, 4) float64 of position and quaternion fields."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    T[:3, 3] = (position.x, position.y, position.z)
    return T
