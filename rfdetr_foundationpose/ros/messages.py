"""Poses as messages. Headers carry the RGB image's stamp and frame (REP 103: optical frame, metres)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, TransformStamped, Vector3
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from ..types import ObjectPose, TrackState
from . import compat

# A marker that is not refreshed for this time (s) vanishes from rviz: the node died or the camera stopped.
MARKER_LIFETIME = 2


@dataclass(frozen=True)
class Shape:
    """What messages need of a mesh. low, high: (3,) corners of its bounding box in its own frame, metres.

    scale: metres per unit of the mesh file.
    """

    mesh: Path
    scale: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def size(self) -> NDArray[np.float64]:
        return self.high - self.low

    @property
    def center(self) -> NDArray[np.float64]:
        return (self.low + self.high) / 2


def header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id=frame_id)


def quaternion(R: NDArray[np.float64]) -> Quaternion:
    """Unit quaternion with w >= 0 of a (3, 3) rotation."""
    x, y, z, w = (float(v) for v in Rotation.from_matrix(R).as_quat(canonical=True))
    return Quaternion(x=x, y=y, z=z, w=w)


def pose(T: NDArray[np.float64]) -> Pose:
    """geometry_msgs/Pose of a (4, 4) transform."""
    x, y, z = (float(v) for v in T[:3, 3])
    return Pose(position=Point(x=x, y=y, z=z), orientation=quaternion(T[:3, :3]))


def pose_stamped(found: ObjectPose) -> PoseStamped:
    return PoseStamped(header=header(found.stamp_ns, found.frame_id), pose=pose(found.T_cam_obj))


def transform_stamped(found: ObjectPose, prefix: str) -> TransformStamped:
    message = TransformStamped(header=header(found.stamp_ns, found.frame_id), child_frame_id=prefix + found.name)
    x, y, z = (float(v) for v in found.T_cam_obj[:3, 3])
    message.transform.translation = Vector3(x=x, y=y, z=z)
    message.transform.rotation = quaternion(found.T_cam_obj[:3, :3])
    return message


def detection_array(poses: Sequence[ObjectPose], shapes: Mapping[str, Shape], head: Header) -> Any:
    """vision_msgs/Detection3DArray of tracked poses; the hypothesis' pose is the mesh frame's, bbox is the mesh's box."""
    msgs = compat.vision_msgs
    if msgs is None:
        raise RuntimeError("vision_msgs is not installed")
    array = msgs.Detection3DArray(header=head)
    for found in poses:
        shape = shapes[found.object]
        center = found.T_cam_obj.copy()
        center[:3, 3] += found.T_cam_obj[:3, :3] @ shape.center
        detection = msgs.Detection3D(header=head, id=found.name)
        detection.bbox.center = pose(center)
        detection.bbox.size = _vector(shape.size)
        hypothesis = msgs.ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = found.object
        hypothesis.hypothesis.score = float(found.confidence)
        hypothesis.pose.pose = pose(found.T_cam_obj)
        detection.results.append(hypothesis)
        array.detections.append(detection)
    return array


def marker_array(poses: Sequence[ObjectPose], shapes: Mapping[str, Shape]) -> MarkerArray:
    """Mesh and axes of every tracked pose; those lost are deleted."""
    array = MarkerArray()
    for found in poses:
        array.markers += [_mesh(found, shapes[found.object]), _axes(found, shapes[found.object])]
    return array


def _marker(found: ObjectPose, namespace: str, kind: int) -> Marker:
    marker = Marker(header=header(found.stamp_ns, found.frame_id), ns=f"{found.name}/{namespace}", id=0, type=kind)
    marker.action = Marker.ADD if found.state is TrackState.TRACKING else Marker.DELETE
    marker.pose = pose(found.T_cam_obj)
    marker.lifetime = Duration(sec=MARKER_LIFETIME)
    return marker


def _mesh(found: ObjectPose, shape: Shape) -> Marker:
    marker = _marker(found, "mesh", Marker.MESH_RESOURCE)
    marker.mesh_resource = shape.mesh.resolve().as_uri()
    marker.mesh_use_embedded_materials = True
    marker.scale = Vector3(x=shape.scale, y=shape.scale, z=shape.scale)
    # rviz tints embedded materials with this colour and takes it alone where the file has none.
    marker.color = ColorRGBA(r=0.8, g=0.8, b=0.8, a=0.8)
    return marker


def _axes(found: ObjectPose, shape: Shape) -> Marker:
    marker = _marker(found, "axes", Marker.LINE_LIST)
    length = float(np.max(shape.size)) * 0.6
    marker.scale.x = max(length * 0.03, 0.001)
    for axis in range(3):
        end = [0.0, 0.0, 0.0]
        end[axis] = length
        color = ColorRGBA(r=float(axis == 0), g=float(axis == 1), b=float(axis == 2), a=1.0)
        marker.points += [Point(), Point(x=end[0], y=end[1], z=end[2])]
        marker.colors += [color, color]
    return marker


def _vector(values: NDArray[np.float64]) -> Vector3:
    x, y, z = (float(v) for v in values)
    return Vector3(x=x, y=y, z=z)
