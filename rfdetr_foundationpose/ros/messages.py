"""Poses as messages. Headers carry the RGB image's stamp and frame (REP 103: optical frame, metres)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseStamped, PoseWithCovarianceStamped, Quaternion, TransformStamped, Vector3
from numpy.typing import NDArray
from scipy.stats import norm
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from ..objects import ObjectSpec
from ..overlay import OverlayModel
from ..types import ObjectPose, TrackState
from . import compat

# A marker that is not refreshed for this time (s) vanishes from rviz: the node died or the camera stopped.
MARKER_LIFETIME = 2
# A marker of triangles has no more than this many: each costs 72 bytes and two microseconds in every message.
MOST_TRIANGLES = 500


@dataclass(frozen=True)
class Shape:
    """What messages need of a mesh. low, high: (3,) corners of its bounding box in its own frame, metres.

    scale: metres per unit of the mesh file. triangles: (3 T, 3) corners of its faces, metres, to be drawn where the file's
    ``uri`` means nothing; empty draws the file.
    """

    uri: str
    scale: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    triangles: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))

    @cached_property
    def points(self) -> list[Point]:
        """The triangles as messages have them; not to be changed."""
        return [Point(x=x, y=y, z=z) for x, y, z in self.triangles.tolist()]

    @property
    def size(self) -> NDArray[np.float64]:
        return self.high - self.low

    @property
    def center(self) -> NDArray[np.float64]:
        return (self.low + self.high) / 2


def mesh_uri(mesh: Path) -> str:
    """package:// for a file in the share folder of an ament package, which other machines have too; else file://."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        for path, share in ((mesh, Path(prefix) / "share"), (mesh.resolve(), Path(prefix).resolve() / "share")):
            if prefix and share in path.parents:
                package, *rest = path.relative_to(share).parts
                return f"package://{package}/{'/'.join(rest)}"
    return mesh.resolve().as_uri()


def marker_shape(spec: ObjectSpec, model: OverlayModel, how: str) -> Shape:
    """how: auto, file or triangles (``output.marker_mesh``). Viewers apply the unit that a COLLADA file names by themselves.

    glTF and other units are triangles by auto: glTF's y is up, and rviz turns such a file since pull request 1482 (June 2025), as
    Foxglove does, and did not before. Poses are of the mesh as it is.
    """
    uri = mesh_uri(spec.mesh)
    suffix = spec.mesh.suffix.lower()
    scale = spec.scale / (model.unit or 1.0) if suffix == ".dae" else spec.scale
    plain = suffix in (".stl", ".obj", ".ply") or (suffix == ".dae" and model.unit in (None, 1.0))
    if how == "file" or (how == "auto" and uri.startswith("package://") and plain):
        return Shape(uri, scale, model.low, model.high)
    return Shape(uri, scale, model.low, model.high, triangles(model))


def triangles(model: OverlayModel) -> NDArray[np.float64]:
    """(3 T, 3) corners of at most MOST_TRIANGLES faces; of larger meshes the vertices are merged in cells until they fit."""
    vertices, faces = model.vertices, model.faces
    cells = 64
    while len(faces) > MOST_TRIANGLES:
        size = float(np.max(model.high - model.low)) / cells
        keys = np.floor((model.vertices - model.low) / size).astype(np.int64)
        _, index, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        vertices = model.vertices[index]
        faces = inverse.reshape(-1)[model.faces]
        faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
        faces = np.unique(np.sort(faces, axis=1), axis=0)
        cells = cells * 3 // 4
    return np.asarray(vertices[faces.reshape(-1)], np.float64)


def covariance(confidence: float, size: float) -> list[float]:
    """36 values, row by row (x, y, z, rotation about x, y, z; m^2 and rad^2), diagonal and isotropic.

    The confidence is the probability of an ADD-S error below a tenth of the diameter: the spread is taken as that of a
    normal distribution with this probability within a tenth of ``size`` (m), and the rotation's as what moves a point at
    half of ``size`` as far. A rule of thumb for filters, not a measured error.
    """
    within = float(norm.ppf((1 + min(max(confidence, 0.01), 0.99)) / 2))
    moved = 0.1 * size / within
    turned = moved / (0.5 * size)
    values = np.diag([moved**2] * 3 + [turned**2] * 3)
    return [float(v) for v in values.ravel()]


def confidence_of(covariance: Sequence[float]) -> float:
    """The confidence that ``covariance`` was made of, which its rotation tells at any size; 0.01 to 0.99."""
    return float(2 * norm.cdf(0.2 / np.sqrt(covariance[21])) - 1)


def header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id=frame_id)


def unit_quaternion(m: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """x, y, z, w with w >= 0 of the rotation in the first three rows and columns (Shepperd 1978); of a half turn the first that is
    not 0 is positive.

    As scipy's ``as_quat(canonical=True)``, which takes a quarter of a millisecond when it is called once a frame.
    """
    trace = m[0][0] + m[1][1] + m[2][2]
    i = max(range(3), key=lambda axis: m[axis][axis])
    if trace >= m[i][i]:
        q = [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1], 1 + trace]
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q = [0.0, 0.0, 0.0, m[k][j] - m[j][k]]
        q[i], q[j], q[k] = 1 - trace + 2 * m[i][i], m[j][i] + m[i][j], m[k][i] + m[i][k]
    leading = next((value for value in (q[3], *q[:3]) if value != 0), 1.0)
    length = math.copysign(math.hypot(*q), leading)
    x, y, z, w = (value / length for value in q)
    return x, y, z, w


def quaternion(R: NDArray[np.float64]) -> Quaternion:
    """Unit quaternion with w >= 0 of a (3, 3) rotation."""
    x, y, z, w = unit_quaternion(R.tolist())
    return Quaternion(x=x, y=y, z=z, w=w)


def pose(T: NDArray[np.float64]) -> Pose:
    """geometry_msgs/Pose of a (4, 4) transform."""
    x, y, z = (float(v) for v in T[:3, 3])
    return Pose(position=Point(x=x, y=y, z=z), orientation=quaternion(T[:3, :3]))


def pose_stamped(found: ObjectPose) -> PoseStamped:
    return PoseStamped(header=header(found.stamp_ns, found.frame_id), pose=pose(found.T_cam_obj))


def pose_with_covariance(found: ObjectPose, shape: Shape) -> PoseWithCovarianceStamped:
    message = PoseWithCovarianceStamped(header=header(found.stamp_ns, found.frame_id))
    message.pose.pose = pose(found.T_cam_obj)
    message.pose.covariance = covariance(found.confidence, float(np.max(shape.size)))
    return message


def transform_stamped(found: ObjectPose, prefix: str) -> TransformStamped:
    message = TransformStamped(header=header(found.stamp_ns, found.frame_id), child_frame_id=prefix + found.name)
    x, y, z = (float(v) for v in found.T_cam_obj[:3, 3])
    message.transform.translation = Vector3(x=x, y=y, z=z)
    message.transform.rotation = quaternion(found.T_cam_obj[:3, :3])
    return message


def detection_array(
    poses: Sequence[ObjectPose], shapes: Mapping[str, Shape], head: Header, *, uncertain: bool = False
) -> Any:
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
        if uncertain:
            hypothesis.pose.covariance = covariance(found.confidence, float(np.max(shape.size)))
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
    drawn = len(shape.triangles) > 0
    marker = _marker(found, "mesh", Marker.TRIANGLE_LIST if drawn else Marker.MESH_RESOURCE)
    if drawn:
        marker.scale = Vector3(x=1.0, y=1.0, z=1.0)
        if marker.action == Marker.ADD:
            marker.points = shape.points
    else:
        marker.mesh_resource = shape.uri
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
