"""Which detection is which instance: overlap of boxes and distance in space, assigned by the Hungarian method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..types import CameraIntrinsics, Detection
from .convex_hull import ConvexHull, closed_volume
from .tracks import Track

# Two boxes of one object that overlap more than this show one thing twice: DETR has no suppression of its own.
DUPLICATE_IOU = 0.7
# A track and a detection this near in space (in object diameters) are the same, however their boxes overlap.
NEAR_DIAMETERS = 0.5
_INFEASIBLE = 1e6


@dataclass(frozen=True)
class ObjectGeometry:
    """What association needs of a mesh. points: (N, 3) float64 extreme points in the object frame, metres.
    hull: the room it takes up."""

    points: NDArray[np.float64]
    center: NDArray[np.float64]
    diameter: float
    hull: ConvexHull

    @classmethod
    def from_vertices(
        cls,
        vertices: NDArray[np.floating],
        diameter: float | None = None,
        faces: NDArray[np.integer] | None = None,
    ) -> ObjectGeometry:
        """From mesh vertices (N, 3) in metres: the extreme vertex in each of 98 directions stands for the hull.

        faces: (F, 3) of the mesh; without them nothing is known of its inside.
        """
        vertices = np.asarray(vertices, dtype=np.float64)
        low, high = vertices.min(0), vertices.max(0)
        # Long and flat objects are stretched to a cube first, so that their ends get directions too.
        stretched = (vertices - low) / np.maximum(high - low, 1e-9)
        points = vertices[np.unique(np.argmax(stretched @ _directions().T, axis=0))]
        size = float(np.linalg.norm(high - low)) if diameter is None else float(diameter)
        volume = None if faces is None else closed_volume(vertices, faces)
        return cls(points, (low + high) / 2, size, ConvexHull.from_points(points, volume))

    def project(self, T_cam_obj: NDArray[np.float64], camera: CameraIntrinsics) -> NDArray[np.float64] | None:
        """Box (4,) x0, y0, x1, y1 in pixels of the object at a pose, clipped to the image; None when out of view."""
        p = self.points @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3]
        if not np.isfinite(p).all() or (p[:, 2] <= 1e-6).any():
            return None
        u = p[:, 0] / p[:, 2] * camera.fx + camera.cx
        v = p[:, 1] / p[:, 2] * camera.fy + camera.cy
        x0, x1 = np.clip([u.min(), u.max()], 0, camera.width)
        y0, y1 = np.clip([v.min(), v.max()], 0, camera.height)
        return np.array([x0, y0, x1, y1]) if x1 > x0 and y1 > y0 else None

    def center_in_camera(self, T_cam_obj: NDArray[np.float64]) -> NDArray[np.float64]:
        """(3,) middle of the bounding box in the camera frame, metres."""
        center: NDArray[np.float64] = T_cam_obj[:3, :3] @ self.center + T_cam_obj[:3, 3]
        return center


def _directions() -> NDArray[np.float64]:
    grid = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    shell = grid[np.abs(grid).max(1) == 2].astype(np.float64)
    directions: NDArray[np.float64] = shell / np.linalg.norm(shell, axis=1, keepdims=True)
    return directions


def box_iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Intersection over union of two boxes (4,) x0, y0, x1, y1."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    inter = float(w * h)
    return inter / (float((a[2] - a[0]) * (a[3] - a[1])) + float((b[2] - b[0]) * (b[3] - b[1])) - inter)


def detection_point(
    detection: Detection, camera: CameraIntrinsics, depth: float | None = None
) -> NDArray[np.float64] | None:
    """(3,) point in the camera frame at the middle of the box and the given or measured depth; None without depth."""
    z = detection.depth if depth is None else depth
    if z is None or not z > 0:
        return None
    x0, y0, x1, y1 = (float(c) for c in detection.box)
    return np.array([((x0 + x1) / 2 - camera.cx) / camera.fx, ((y0 + y1) / 2 - camera.cy) / camera.fy, 1.0]) * z


def without_duplicates(
    detections: Sequence[Detection], claimed: Sequence[Detection] = ()
) -> tuple[list[Detection], int]:
    """The detections, best first, without those that show a thing again; and how many were left out.

    A box that a better one covers almost exactly is left out, whatever their objects: one thing is not two objects. One
    of ``claimed`` counts against its own object whatever its score.
    """

    def again(d: Detection, k: Detection) -> bool:
        return (k.object == d.object or k.score >= d.score) and box_iou(d.box, k.box) > DUPLICATE_IOU

    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda d: -d.score):
        if not any(again(detection, k) for k in (*claimed, *kept)):
            kept.append(detection)
    return kept, len(detections) - len(kept)


def associate(
    detections: Sequence[Detection],
    tracks: Sequence[Track],
    geometry: ObjectGeometry,
    camera: CameraIntrinsics,
    iou_threshold: float,
    pending: Detection | None = None,
    reach: float = NEAR_DIAMETERS,
) -> dict[int, int]:
    """Detection index -> track index for the instances of ONE object; both sides may stay unassigned.

    The cost of a pair is ``1 - IoU`` of detected and projected box, plus half the distance in diameters between
    detected surface and object centre where depth was measured. A pair is possible with IoU >= ``iou_threshold``
    or a distance below NEAR_DIAMETERS.

    pending: how an instance that is being registered was seen last. It competes for the detections as track number
    ``len(tracks)``, so that it cannot go over to one that is a track's; it may have moved by ``reach`` diameters.
    """
    if not detections or not (tracks or pending):
        return {}
    cost = np.array([[_cost(d, t, geometry, camera, iou_threshold) for t in tracks] for d in detections])
    if pending is not None:
        moved = [_moved_cost(d, pending, geometry, camera, iou_threshold, reach) for d in detections]
        cost = np.column_stack([cost, moved])
    rows, columns = linear_sum_assignment(cost)
    return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if cost[r, c] < _INFEASIBLE}


def _cost(
    detection: Detection, track: Track, geometry: ObjectGeometry, camera: CameraIntrinsics, iou_threshold: float
) -> float:
    if track.T_cam_obj is None:
        return _INFEASIBLE
    box = geometry.project(track.T_cam_obj, camera)
    iou = 0.0 if box is None else box_iou(box, detection.box)
    point = detection_point(detection, camera)
    distance = None if point is None else np.linalg.norm(point - geometry.center_in_camera(track.T_cam_obj))
    return _pair_cost(iou, None if distance is None else float(distance) / geometry.diameter, iou_threshold)


def _moved_cost(
    detection: Detection,
    before: Detection,
    geometry: ObjectGeometry,
    camera: CameraIntrinsics,
    iou_threshold: float,
    reach: float,
) -> float:
    there, here = detection_point(before, camera), detection_point(detection, camera)
    distance = None if there is None or here is None else float(np.linalg.norm(here - there)) / geometry.diameter
    return _pair_cost(box_iou(before.box, detection.box), distance, iou_threshold, reach)


def _pair_cost(iou: float, distance: float | None, iou_threshold: float, reach: float = NEAR_DIAMETERS) -> float:
    """distance: in diameters, None where depth was not measured."""
    if iou < iou_threshold and (distance is None or distance > reach):
        return _INFEASIBLE
    # Up to two diameters for the slope that ranks pairs, beyond that only a trace of it: far is far.
    return 1.0 - iou + (0.0 if distance is None else 0.5 * min(distance, 2.0) + 1e-3 * distance)


def choose_slot(
    detection: Detection, free: Sequence[Track], geometry: ObjectGeometry, camera: CameraIntrinsics
) -> Track:
    """The free slot a new detection gets: the one last seen nearest to it (ids are stable), else the lowest id.

    Slots of a lost instance that was somewhere else are kept for it while unused ones are left.
    """
    matches = associate([detection], free, geometry, camera, 0.01)
    if matches:
        return free[matches[0]]
    return min(free, key=lambda t: (t.T_cam_obj is not None, t.instance_id))
