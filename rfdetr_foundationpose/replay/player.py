"""Plays frames into a node over ROS topics as a camera driver would, and collects what the node publishes."""

from __future__ import annotations

import array
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64, Header

from ..latency import STAGES
from ..ros.messages import confidence_of
from ..types import CameraIntrinsics, Frame
from .recording_messages import depth_pixels, encode_depth, encode_rgb

# The camera publishes reliably: that serves best-effort subscribers too, and large images survive small socket buffers.
CAMERA_QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=5, reliability=QoSReliabilityPolicy.RELIABLE)


def to_header(stamp_ns: int, frame_id: str) -> Header:
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    return header


def to_image(header: Header, pixels: NDArray[Any], encoding: str) -> Image:
    """sensor_msgs/Image of a (H, W) or (H, W, C) array in the machine's byte order."""
    pixels = np.ascontiguousarray(pixels)
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.step = pixels.strides[0]
    # An array of the right type code is taken as it is; anything else rclpy checks element by element.
    message.data = array.array("B", pixels.tobytes())
    return message


def to_compressed(header: Header, encoded: tuple[str, NDArray[np.uint8]]) -> CompressedImage:
    """sensor_msgs/CompressedImage of format and data."""
    kind, data = encoded
    return CompressedImage(header=header, format=kind, data=array.array("B", data.tobytes()))


def to_camera_info(header: Header, camera: CameraIntrinsics) -> CameraInfo:
    """sensor_msgs/CameraInfo of a rectified pinhole camera."""
    message = CameraInfo(header=header, width=camera.width, height=camera.height, distortion_model="plumb_bob")
    K = camera.K
    message.k = [float(v) for v in K.ravel()]
    message.d = [0.0] * 5
    message.r = [float(v) for v in np.eye(3).ravel()]
    message.p = [float(v) for v in np.hstack([K, np.zeros((3, 1))]).ravel()]
    return message


class FramePublisher:
    """rgb/image, depth/image, rgb/camera_info and mask/<object> of frames.

    compressed: rgb/image/compressed and depth/image/compressedDepth instead, both as PNG, so that what arrives is the same.
    """

    def __init__(self, node: Node, masks: Sequence[str] = (), *, compressed: bool = False) -> None:
        self._compressed = compressed
        kind, rgb, depth = (CompressedImage, "/compressed", "/compressedDepth") if compressed else (Image, "", "")
        self._rgb = node.create_publisher(kind, f"rgb/image{rgb}", CAMERA_QOS)
        self._depth = node.create_publisher(kind, f"depth/image{depth}", CAMERA_QOS)
        self._info = node.create_publisher(CameraInfo, "rgb/camera_info", CAMERA_QOS)
        self._masks = {name: node.create_publisher(Image, f"mask/{name}", CAMERA_QOS) for name in masks}

    def connected(self) -> bool:
        """Whether a node listens to images, calibration and masks."""
        publishers = (self._rgb, self._depth, self._info, *self._masks.values())
        return all(p.get_subscription_count() > 0 for p in publishers)

    def publish_camera_info(self, frame: Frame, stamp_ns: int) -> None:
        """The calibration alone, before images flow."""
        self._info.publish(to_camera_info(to_header(stamp_ns, frame.frame_id), frame.camera))

    def publish(self, frame: Frame, stamp_ns: int) -> None:
        """Publish all messages of ``frame`` under one stamp; the rgb image, which completes the set, comes last.

        Depth goes out as 16UC1 millimetres or 32FC1 metres; other scales become 32FC1. Raises ValueError where it is to be
        compressed and is not in uint16 millimetres.
        """
        header = to_header(stamp_ns, frame.frame_id)
        for name, publisher in self._masks.items():
            mask = frame.masks.get(name)
            if mask is None:
                mask = np.zeros(frame.depth.shape, np.bool_)
            publisher.publish(to_image(header, mask.astype(np.uint8) * 255, "mono8"))
        self._info.publish(to_camera_info(header, frame.camera))
        if self._compressed:
            self._depth.publish(to_compressed(header, encode_depth(*depth_pixels(frame))))
            self._rgb.publish(to_compressed(header, encode_rgb(frame.rgb, "png")))
        else:
            self._depth.publish(to_image(header, *depth_pixels(frame)))
            self._rgb.publish(to_image(header, frame.rgb, "rgb8"))


@dataclass(frozen=True)
class PoseArrival:
    """A PoseStamped as it came. T_cam_obj: (4, 4) float64. received_ns: the receiver's clock."""

    object: str
    stamp_ns: int
    T_cam_obj: NDArray[np.float64]
    received_ns: int


class Collector:
    """Everything that the node publishes on poses, latency and diagnostics. Thread-safe."""

    def __init__(self, node: Node, pose_node: str, objects: Sequence[str]) -> None:
        self._clock = node.get_clock()
        self._condition = threading.Condition()
        self.poses: list[PoseArrival] = []
        self.confidences: dict[tuple[str, int], float] = {}
        """By pose topic and stamp (ns), where ``output.covariance`` is on."""
        self.latency: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.diagnostics_count = 0
        reliable = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=100, reliability=QoSReliabilityPolicy.RELIABLE)
        best_effort = QoSProfile(
            history=QoSHistoryPolicy.KEEP_LAST, depth=100, reliability=QoSReliabilityPolicy.BEST_EFFORT
        )
        for name in objects:
            node.create_subscription(PoseStamped, f"{pose_node}/pose/{name}", self._on_pose(name), reliable)
            uncertain = f"{pose_node}/pose_with_covariance/{name}"
            node.create_subscription(PoseWithCovarianceStamped, uncertain, self._on_covariance(name), reliable)
        for stage in STAGES:
            node.create_subscription(Float64, f"{pose_node}/latency/{stage}", self._on_latency(stage), best_effort)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, best_effort)

    def _on_pose(self, name: str) -> Any:
        def store(message: PoseStamped) -> None:
            now = self._clock.now().nanoseconds
            p, q = message.pose.position, message.pose.orientation
            T = np.eye(4)
            T[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
            T[:3, 3] = (p.x, p.y, p.z)
            stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
            with self._condition:
                self.poses.append(PoseArrival(name, stamp, T, now))
                self._condition.notify_all()

        return store

    def _on_covariance(self, name: str) -> Any:
        def store(message: PoseWithCovarianceStamped) -> None:
            stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
            if message.pose.covariance[21] > 0:
                with self._condition:
                    self.confidences[name, stamp] = confidence_of(message.pose.covariance)

        return store

    def _on_latency(self, stage: str) -> Any:
        def store(message: Float64) -> None:
            with self._condition:
                self.latency[stage].append((self._clock.now().nanoseconds, float(message.data)))

        return store

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self._condition:
            for status in message.status:
                self.diagnostics[status.name] = {v.key: v.value for v in status.values}
            self.diagnostics_count += 1
            self._condition.notify_all()

    def report(self) -> dict[str, dict[str, str]]:
        """Values of the newest diagnostics, by status; none before the first message."""
        with self._condition:
            return dict(self.diagnostics)

    def arrived(
        self,
    ) -> tuple[list[PoseArrival], dict[tuple[str, int], float], dict[str, list[tuple[int, float]]]]:
        """Copies of poses, confidences and latency, as they are at one moment."""
        with self._condition:
            latency = {stage: list(values) for stage, values in self.latency.items()}
            return list(self.poses), dict(self.confidences), latency

    def objects_seen(self) -> set[str]:
        """Names of which at least one pose has arrived."""
        with self._condition:
            return {p.object for p in self.poses}

    def wait_for_pose(self, stamp_ns: int, timeout: float) -> bool:
        """Wait for any pose of the frame with that stamp, or a later one."""
        with self._condition:
            return self._condition.wait_for(lambda: any(p.stamp_ns >= stamp_ns for p in self.poses[-20:]), timeout)

    def wait_for_diagnostics(self, timeout: float) -> bool:
        """Wait for the next diagnostics message."""
        with self._condition:
            seen = self.diagnostics_count
            return self._condition.wait_for(lambda: self.diagnostics_count > seen, timeout)


class Spinner:
    """Spins a node in a thread of its own and ends it cleanly: a thread that still spins at exit aborts the process."""

    def __init__(self, node: Node, context: Any) -> None:
        self._node = node
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="replay_spin", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._stop.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.2)
            except ExternalShutdownException:
                return

    def close(self) -> None:
        """End the thread and destroy the node."""
        # The thread first: rclpy takes an executor apart that is shut down, whoever spins it.
        self._stop.set()
        self._thread.join(5.0)
        self._executor.shutdown()
        self._node.destroy_node()
