"""RGB-D recordings as rosbag2 (MCAP or sqlite3), written without ROS.

Topics, all stamped and framed alike: ``/rgb/image`` (rgb8), ``/depth/image`` (16UC1 millimetres or 32FC1 metres),
``/rgb/camera_info``, ``/depth/camera_info`` (the same: rviz's DepthCloud reads it there), ``/mask/<instance>`` (mono8, 255 inside), ``/ground_truth/<instance>`` (PoseStamped),
``/visibility/<instance>`` (Float32) and ``/tf``. Instances are named like published poses: ``mug``, ``mug_1``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from ..types import Frame
from . import recording_messages as messages
from .recording_storage import RecordingError
from .recording_truth import GROUND_TRUTH_FRAME, WORLD, GroundTruth


class RecordingWriter:
    """Writes frames to a new rosbag2 directory; a context manager. Raises RecordingError when the path exists.

    storage: "mcap" or "sqlite3". compressed: JPEG colour and PNG depth on the image_transport topics
    ``/rgb/image/compressed`` and ``/depth/image/compressedDepth`` instead of raw images; "png" keeps colours exact.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        objects: Mapping[str, str] | None = None,
        storage: str = "mcap",
        compressed: str | None = None,
    ) -> None:
        if storage not in ("mcap", "sqlite3"):
            raise RecordingError(f"storage={storage!r} must be 'mcap' or 'sqlite3'")
        if compressed not in (None, "jpeg", "png"):
            raise RecordingError(f"compressed={compressed!r} must be None, 'jpeg' or 'png'")
        self.path = Path(path)
        if self.path.exists():
            raise RecordingError(f"{self.path} exists already; choose another path or delete it")
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._writer = Writer(self.path, version=8, storage_plugin=plugin)
        if storage == "mcap":
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._objects = dict(objects or {})
        self._compressed = compressed
        self._connections: dict[str, Connection] = {}
        self._opened = False
        self.frames = 0

    def __enter__(self) -> RecordingWriter:
        self._writer.open()
        self._opened = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The instance's object cannot always be told from its name ("part_1" may be an object), so it is stored.
        self._writer.set_custom_data("objects", json.dumps(self._objects))
        self._writer.__exit__(kind, error, trace)

    def write(self, frame: Frame, truth: GroundTruth | None = None) -> None:
        """Append one frame; its masks go to the mask topics under their own names."""
        if not self._opened:
            raise RecordingError("the recording is not open: use RecordingWriter in a with statement")
        stamp = frame.stamp_ns
        header = messages.header_message(stamp, frame.frame_id)
        for name, mask in frame.masks.items():
            self._send(
                f"/mask/{name}", messages.image_message(header, np.asarray(mask, np.uint8) * 255, "mono8"), stamp
            )
        if truth is not None:
            self._write_truth(header, truth, stamp)
        for topic in ("/rgb/camera_info", "/depth/camera_info"):
            self._send(topic, messages.camera_info_message(header, frame.camera), stamp)
        depth, encoding = messages.depth_pixels(frame)
        if self._compressed is None:
            self._send("/depth/image", messages.image_message(header, depth, encoding), stamp)
            self._send("/rgb/image", messages.image_message(header, frame.rgb, "rgb8"), stamp)
        else:
            self._send(
                "/depth/image/compressedDepth",
                messages.compressed_message(header, messages.encode_depth(depth, encoding)),
                stamp,
            )
            self._send(
                "/rgb/image/compressed",
                messages.compressed_message(header, messages.encode_rgb(frame.rgb, self._compressed)),
                stamp,
            )
        self.frames += 1

    def _write_truth(self, header: Any, truth: GroundTruth, stamp: int) -> None:
        transforms = []
        for instance in truth.instances:
            self._objects[instance.name] = instance.object
            pose = messages.TYPES["geometry_msgs/msg/PoseStamped"](header, messages.pose_message(instance.T_cam_obj))
            self._send(f"/ground_truth/{instance.name}", pose, stamp)
            if instance.visibility is not None:
                self._send(
                    f"/visibility/{instance.name}",
                    messages.TYPES["std_msgs/msg/Float32"](float(instance.visibility)),
                    stamp,
                )
            transforms.append(
                messages.transform_message(header, GROUND_TRUTH_FRAME + instance.name, instance.T_cam_obj)
            )
        if truth.T_world_cam is not None:
            transforms.append(
                messages.transform_message(messages.header_message(stamp, WORLD), header.frame_id, truth.T_world_cam)
            )
        if transforms:
            self._send("/tf", messages.TYPES["tf2_msgs/msg/TFMessage"](transforms), stamp)

    def _send(self, topic: str, message: Any, stamp: int) -> None:
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=messages.STORE)
        self._writer.write(self._connections[topic], stamp, messages.STORE.serialize_cdr(message, kind))
