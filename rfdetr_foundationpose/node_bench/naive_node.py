"""A pose node as wrappers of FoundationPose are usually written: what ``bench node --style naive`` measures ours against.

Queues of ten, approximate pairing, converted copies, ``predict()`` in FP32 on every frame, the official schedule in plain PyTorch
(evaluate/reference.py), ``empty_cache`` after every frame, the debug image drawn and published in the callback, no warm-up, one
callback that does everything. Nothing is slowed down beyond that. An object that is lost stays lost, as in the official code.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import rclpy
import torch
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from ..camera import calibration, images
from ..config import Config, from_flat, to_flat
from ..detect.checkpoint import load_model
from ..device import resolve_device
from ..evaluate.bench_rows import Pose, ReferenceRow
from ..objects import load_objects
from ..overlay import OverlayModel, draw_overlay
from ..pose.build import weights_directory
from ..pose.checkpoints import find, load_refiner, load_scorer
from ..pose.mesh import load_object
from ..replay.player import to_image
from ..resources import default_objects_file
from ..ros import messages
from ..types import Frame, ObjectPose, TrackState
from .parent import when_parent_ends

QUEUE = 10
SLOP = 0.02


class ApproximatePairs:
    """Colour and depth whose stamps differ by at most ``SLOP`` seconds, each from a queue of ten, oldest first."""

    def __init__(self, handle: Callable[[Any, Any], None]) -> None:
        self._handle = handle
        self._waiting: tuple[list[Any], list[Any]] = ([], [])

    def add(self, side: int, message: Any) -> None:
        """side: 0 for colour, 1 for depth."""
        mine, others = self._waiting[side], self._waiting[1 - side]
        stamp = images.stamp_ns(message.header)
        close = [o for o in others if abs(images.stamp_ns(o.header) - stamp) <= SLOP * 1e9]
        if not close:
            mine.append(message)
            del mine[:-QUEUE]
            return
        partner = min(close, key=lambda o: abs(images.stamp_ns(o.header) - stamp))
        others.remove(partner)
        pair = (message, partner) if side == 0 else (partner, message)
        self._handle(*pair)


class NaiveNode(Node):
    """Takes rgb/image, depth/image, rgb/camera_info; gives ~/pose/<object> and ~/debug_image."""

    def __init__(self, config: Config) -> None:
        super().__init__("pose_node")
        self._device = resolve_device(config.device)
        self._config = config
        self._specs = load_objects(config.objects_file or default_objects_file())
        loaded = load_model(config.detector.weights, config.detector.variant, self._device)
        self._detector, self._names = loaded.model, loaded.class_names
        directory = weights_directory(config)
        networks: Mapping[str, Any] = {
            "refiner": load_refiner(find(directory, "refiner"))[0],
            "scorer": load_scorer(find(directory, "scorer"))[0],
        }
        self._estimator = ReferenceRow([load_object(s) for s in self._specs], networks, config, self._device)
        self._overlays = {s.name: OverlayModel.load(s) for s in self._specs}
        self._poses: dict[str, Pose] = {}
        self._info: Any = None
        pairs = ApproximatePairs(self._on_pair)
        self.create_subscription(CameraInfo, "rgb/camera_info", self._on_info, QUEUE)
        self.create_subscription(Image, "rgb/image", lambda m: pairs.add(0, m), QUEUE)
        self.create_subscription(Image, "depth/image", lambda m: pairs.add(1, m), QUEUE)
        self._topics = {s.name: self.create_publisher(PoseStamped, f"~/pose/{s.name}", QUEUE) for s in self._specs}
        self._debug = self.create_publisher(Image, "~/debug_image", QUEUE)

    def _on_info(self, message: Any) -> None:
        self._info = message

    def _on_pair(self, rgb_message: Any, depth_message: Any) -> None:
        if self._info is None:
            return
        rgb = images.image_to_rgb(rgb_message).copy()
        depth, scale = images.image_to_depth(depth_message, self._config.input.depth_unit)
        camera = calibration.read_calibration(self._info).rectified
        self._estimator.warm_up(camera)  # only stores the intrinsics
        stamp, frame_id = images.stamp_ns(rgb_message.header), rgb_message.header.frame_id
        masks = self._masks(rgb)
        frame = Frame(stamp, frame_id, rgb, depth.astype(np.float32) * np.float32(scale), 1.0, camera, masks)
        for spec in self._specs:
            if spec.name in self._poses:
                self._poses |= self._estimator.track(frame, {spec.name: self._poses[spec.name]})
            elif spec.name in masks:
                try:
                    self._poses[spec.name] = self._estimator.register(frame, spec.name)
                except ValueError:  # no depth in the mask
                    continue
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        found = [
            ObjectPose(name, 0, T, 1.0, 1.0, TrackState.TRACKING, stamp, frame_id) for name, T in self._poses.items()
        ]
        for pose in found:
            self._topics[pose.object].publish(messages.pose_stamped(pose))
        picture = draw_overlay(rgb, camera, found, self._overlays)
        self._debug.publish(to_image(rgb_message.header, picture, "rgb8"))

    def _masks(self, rgb: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
        """Boxes of the best detection of each object, as masks (H, W)."""
        detections: Any = self._detector.predict(rgb, threshold=self._config.detector.threshold)
        masks: dict[str, NDArray[np.bool_]] = {}
        labels = {s.label: s.name for s in self._specs}
        order = np.argsort(-np.asarray(detections.confidence))
        for i in order:
            name = labels.get(self._names.get(int(detections.class_id[i]), ""))
            if name is not None and name not in masks:
                x0, y0, x1, y1 = (int(v) for v in detections.xyxy[i])
                mask = np.zeros(rgb.shape[:2], np.uint8)
                cv2.rectangle(mask, (x0, y0), (x1, y1), 1, -1)
                masks[name] = mask > 0
        return masks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT. Settings come as ROS parameters of the same names."""
    when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    rclpy.init(args=None if arguments is None else list(arguments))
    overrides = _overrides()
    node = NaiveNode(from_flat(overrides))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _overrides() -> dict[str, Any]:
    """Settings given by ``-p name:=value``."""
    probe = Node("naive_settings", automatically_declare_parameters_from_overrides=True)
    values = {name: probe.get_parameter(name).value for name in to_flat(Config()) if probe.has_parameter(name)}
    probe.destroy_node()
    return values


if __name__ == "__main__":
    sys.exit(main())
