"""A run as one MCAP file, for Foxglove, rviz2 and PlotJuggler: input, poses, TF, meshes, latencies, debug images.

Topics and types are the node's; images are compressed. The meshes are triangles fixed to their object's TF frame, so that
the file needs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer

from ..objects import ObjectSpec
from ..pose.mesh import ObjectModel, load_object
from ..types import Frame
from .judge import instance_names
from .recording_messages import (
    STORE,
    TYPES,
    camera_info_message,
    compressed_message,
    depth_pixels,
    encode_rgb,
    header_message,
    image_message,
    pose_message,
    transform_message,
)
from .result import PoseSample
from .sinks import DrawnFrame, Series

NODE = "/pose_node"
MOST_TRIANGLES = 4000
"""A mesh in the file has at most so many triangles; larger ones are shown as every n-th of theirs."""
_MESH_AGAIN_NS = 2_000_000_000


class McapSink:
    """Writes ``path``. specs: the objects that may occur."""

    def __init__(self, path: Path, specs: Sequence[ObjectSpec]) -> None:
        self._path = path
        self._file = path.open("wb")
        self._writer = Writer(self._file, chunk_size=1 << 20, compression=CompressionType.ZSTD)
        self._writer.start(profile="ros2", library="rfdetr_foundationpose")
        self._specs = {s.name: s for s in specs}
        self._names = instance_names(specs)
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._meshes: dict[str, tuple[list[Any], list[Any]]] = {}
        self._shown: dict[str, int] = {}

    def add(self, drawn: DrawnFrame) -> None:
        frame, stamp = drawn.frame, drawn.frame.stamp_ns
        header = header_message(stamp, frame.frame_id)
        self._write("/rgb/camera_info", camera_info_message(header, frame.camera), stamp)
        self._write("/rgb/image/compressed", compressed_message(header, encode_rgb(frame.rgb, "jpeg")), stamp)
        self._write("/depth/image", image_message(header, *depth_pixels(frame)), stamp)
        picture = compressed_message(header, encode_rgb(drawn.picture, "jpeg"))
        self._write(f"{NODE}/debug_image/compressed", picture, stamp)
        transforms = []
        for sample in drawn.samples:
            pose = TYPES["geometry_msgs/msg/PoseStamped"](header, pose_message(sample.T_cam_obj))
            self._write(f"{NODE}/pose/{sample.object}", pose, stamp)
            transforms.append(transform_message(header, sample.object, sample.T_cam_obj))
            self._number(f"{NODE}/confidence/{sample.object}", sample.confidence, stamp)
            if sample.error is not None:
                self._number(f"{NODE}/error/{sample.object}/translation_mm", sample.error.translation_mm, stamp)
                self._number(f"{NODE}/error/{sample.object}/rotation_deg", sample.error.rotation_deg, stamp)
        if transforms:
            self._write("/tf", TYPES["tf2_msgs/msg/TFMessage"](transforms), stamp)
        self._write(f"{NODE}/markers", self._markers(frame, drawn.samples), stamp)

    def finish(self, latency: Series, stamp_of: Callable[[float], int]) -> None:
        for stage, points in latency.items():
            topic = f"{NODE}/latency/{''.join(c if c.isalnum() else '_' for c in stage)}"
            for seconds, ms in points:
                self._number(topic, ms, stamp_of(seconds))
        self._writer.finish()
        self._file.close()

    def _write(self, topic: str, message: Any, stamp: int) -> None:
        if topic not in self._channels:
            kind = message.__msgtype__
            if kind not in self._schemas:
                text, _ = STORE.generate_msgdef(kind, ros_version=2)
                name = kind if "/msg/" in kind else kind.replace("/", "/msg/", 1)
                self._schemas[kind] = self._writer.register_schema(name, "ros2msg", text.encode())
            self._channels[topic] = self._writer.register_channel(topic, "cdr", self._schemas[kind])
        data = bytes(STORE.serialize_cdr(message, message.__msgtype__))
        self._writer.add_message(self._channels[topic], log_time=stamp, data=data, publish_time=stamp)

    def _number(self, topic: str, value: float | None, stamp: int) -> None:
        if value is not None and np.isfinite(value):
            self._write(topic, TYPES["std_msgs/msg/Float64"](float(value)), stamp)

    def _markers(self, frame: Frame, samples: Sequence[PoseSample]) -> Any:
        """Meshes of what is tracked, and deletions of what no longer is."""
        present = {s.object for s in samples}
        markers = []
        for name in [n for n in self._shown if n not in present]:
            markers.append(self._marker(name, frame, action=2))
            del self._shown[name]
        for name in sorted(present):
            # Again now and then, so that a player that jumps into the middle soon has it.
            if frame.stamp_ns - self._shown.get(name, -_MESH_AGAIN_NS) >= _MESH_AGAIN_NS:
                markers.append(self._marker(name, frame, action=0))
                self._shown[name] = frame.stamp_ns
        return TYPES["visualization_msgs/msg/MarkerArray"](markers)

    def _marker(self, name: str, frame: Frame, action: int) -> Any:
        points, colors = self._mesh(self._names[name]) if action == 0 else ([], [])
        marker = _blank_marker(frame.stamp_ns, name)
        marker.action, marker.points, marker.colors = action, points, colors
        return marker

    def _mesh(self, name: str) -> tuple[list[Any], list[Any]]:
        if name not in self._meshes:
            self._meshes[name] = triangles(load_object(self._specs[name]))
        return self._meshes[name]


def triangles(model: ObjectModel) -> tuple[list[Any], list[Any]]:
    """Corners and their colours as messages, in the mesh's own frame."""
    arrays = model.arrays
    chosen = np.arange(0, len(arrays.faces), -(-len(arrays.faces) // MOST_TRIANGLES))
    corners = (arrays.vertices[arrays.faces[chosen]] + model.center).reshape(-1, 3)
    if arrays.texture is not None and arrays.uv is not None:
        height, width = arrays.texture.shape[:2]
        uv = arrays.uv[chosen].reshape(-1, 2) % 1.0
        columns = np.minimum((uv[:, 0] * width).astype(int), width - 1)
        rows = np.minimum(((1 - uv[:, 1]) * height).astype(int), height - 1)
        colors = arrays.texture[rows, columns] / 255
    else:
        colors = arrays.colors[arrays.faces[chosen]].reshape(-1, 3)
    point, color = TYPES["geometry_msgs/msg/Point"], TYPES["std_msgs/msg/ColorRGBA"]
    return (
        [point(*(float(v) for v in corner)) for corner in corners],
        [color(*(float(v) for v in rgb), 1.0) for rgb in colors],
    )


def _blank_marker(stamp_ns: int, frame_id: str) -> Any:
    t: Mapping[str, Any] = TYPES
    identity = pose_message(np.eye(4))
    fields: dict[str, Any] = {
        "header": header_message(stamp_ns, frame_id),
        "ns": f"{frame_id}/mesh",
        "id": 0,
        "type": 11,  # TRIANGLE_LIST
        "action": 0,
        "pose": identity,
        "scale": t["geometry_msgs/msg/Vector3"](1.0, 1.0, 1.0),
        "color": t["std_msgs/msg/ColorRGBA"](1.0, 1.0, 1.0, 1.0),
        "lifetime": t["builtin_interfaces/msg/Duration"](0, 0),
        "frame_locked": True,
        "points": [],
        "colors": [],
        "texture_resource": "",
        "texture": t["sensor_msgs/msg/CompressedImage"](header_message(0, ""), "", np.zeros(0, np.uint8)),
        "uv_coordinates": [],
        "text": "",
        "mesh_resource": "",
        "mesh_file": t["visualization_msgs/msg/MeshFile"]("", np.zeros(0, np.uint8)),
        "mesh_use_embedded_materials": False,
    }
    return t["visualization_msgs/msg/Marker"](**fields)
