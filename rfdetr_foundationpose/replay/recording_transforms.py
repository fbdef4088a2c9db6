"""Where depth is not registered to colour: the depth camera and its place beside the colour camera, as far as the recording says it.

ROS drivers publish it on /tf_static. realsense-viewer's ROS 1 bags have a topic for each stream, and call the frames of all streams alike
(findings/librealsense-bags-are-no-plain-ros.sh).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ..camera.calibration import is_rectified, read_calibration
from ..camera.registration import DepthCamera
from ..types import InputError
from .recording_decode import DamagedMessage, deserialize
from .recording_files import Files
from .recording_messages import pose_matrix

Pose = NDArray[np.floating]
# Older drivers repeat their static transforms on /tf.
_TRANSFORMS, _TF, _MOST = ("/tf_static", "/tf"), "tf2_msgs/msg/TFMessage", 1000
_TRANSFORM = "geometry_msgs/msg/Transform"
_STREAM = re.compile(r"(/device_\d+)(/sensor_\d+/(?:Depth|Color)_\d+)/image/data(?:/|$)")
_FLOAT, _TEXT = "std_msgs/msg/Float32", "std_msgs/msg/String"


def stream_of(topic: str) -> str:
    """``/device_0/sensor_1/Color_0`` of an image topic that realsense-viewer recorded, else ""."""
    match = _STREAM.match(topic)
    return "" if match is None else match[1] + match[2]


def depth_camera(files: Files, depth: str, info: str, frames: tuple[str, str]) -> DepthCamera | None:
    """The depth camera of a recording, None where its calibration or its place is not there. frames: of colour and of depth."""
    calibration = None
    for message in files.messages([info]):
        topic = files.topics[info]
        with suppress(DamagedMessage, InputError):
            calibration = read_calibration(deserialize(message.data, topic.type, topic.encoding))
            break
    T = _between(files, frames)
    return (
        None
        if calibration is None or T is None
        else DepthCamera(calibration, is_rectified(depth), np.asarray(T, np.float64))
    )


def recorded_unit(files: Files, depth: str) -> float | None:
    """Metres per unit of a depth topic of realsense-viewer, None where it does not say."""
    stream = stream_of(depth)
    name = re.sub(r"/[^/]+$", "/option/Depth_Units/value", stream) if stream else ""
    topic = files.topics.get(name)
    if topic is None or topic.type not in (_FLOAT, _TEXT):
        return None
    for message in files.messages([name]):
        with suppress(DamagedMessage, ValueError):
            unit = float(deserialize(message.data, topic.type, topic.encoding).data)
            # Stored in 32 bits.
            return float(f"{unit:.6g}") if 1e-6 < unit < 1 else None
    return None


def _between(files: Files, frames: tuple[str, str]) -> Pose | None:
    """T_color_depth (4, 4)."""
    color, depth = frames
    if color.startswith("/device_"):
        found = {name: T for name in frames if (T := _of_stream(files, name)) is not None}
        if len(found) == 2:  # from a common reference to each stream
            return np.asarray(found[color] @ np.linalg.inv(found[depth]))
        return None
    edges: dict[str, dict[str, Pose]] = {}
    for name in _TRANSFORMS:
        topic = files.topics.get(name)
        if topic is None or not topic.readable or topic.type != _TF:
            continue
        for message in islice(files.messages([name]), _MOST):
            with suppress(DamagedMessage, ValueError):
                for t in deserialize(message.data, topic.type, topic.encoding).transforms:
                    T = _finite(pose_matrix(t.transform.translation, t.transform.rotation))
                    parent, child = t.header.frame_id.lstrip("/"), t.child_frame_id.lstrip("/")
                    if T is not None and child not in edges.get(parent, {}):
                        edges.setdefault(parent, {})[child] = T
                        edges.setdefault(child, {})[parent] = np.linalg.inv(T)
        if (known := _path(edges, color, depth)) is not None:
            return known
    return None


def _path(edges: Mapping[str, Mapping[str, Pose]], start: str, end: str) -> Pose | None:
    """T_start_end along the tree of frames."""
    known = {start: np.eye(4)}
    waiting = [start]
    while waiting:
        frame = waiting.pop(0)
        for child, T in edges.get(frame, {}).items():
            if child not in known:
                known[child] = known[frame] @ T
                waiting.append(child)
    return known.get(end)


def _of_stream(files: Files, stream: str) -> Pose | None:
    """T_stream_reference: as librealsense stores it, not as TF has it, which maps from child to parent."""
    for name, topic in sorted(files.topics.items()):
        if name.startswith(f"{stream}/tf/") and topic.type == _TRANSFORM:
            for message in files.messages([name]):
                with suppress(DamagedMessage, ValueError):  # a quaternion of zeros
                    found = deserialize(message.data, topic.type, topic.encoding)
                    return _finite(pose_matrix(found.translation, found.rotation))
    return None


def _finite(T: Pose) -> Pose | None:
    return T if np.isfinite(T).all() else None
