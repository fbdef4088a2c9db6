"""How far an object reaches, in space and in the image: what association and duplicate tracks compare."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..types import CameraIntrinsics, Detection
from .convex_hull import ConvexHull, closed_volume


@dataclass(frozen=True)
class ObjectExtent:
    """What the pipeline needs of a mesh. points: (N, 3) float64 extreme points in the object frame, metres. center: (3,)
    middle of the bounding box, metres. diameter: metres. hull: the room that the object takes up. symmetries:
    (K, 4, 4) in the object frame, after which it looks the same."""

    points: NDArray[np.float64]
    center: NDArray[np.float64]
    diameter: float
    hull: ConvexHull
    symmetries: NDArray[np.float64] = field(default_factory=lambda: np.eye(4)[None])

    @classmethod
    def from_vertices(
        cls,
        vertices: NDArray[np.floating],
        diameter: float | None = None,
        faces: NDArray[np.integer] | None = None,
    ) -> ObjectExtent:
        """From mesh vertices (N, 3) in metres: the extreme vertex in each of 98 directions stands for the hull.

        faces: (F, 3) of the mesh; without them it counts as hollow.
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


def symmetries_about(symmetries: NDArray[np.float64], center: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetries (K, 4, 4) of the mesh moved to its centre (3,), for the mesh as loaded."""
    moved: NDArray[np.float64] = np.array(symmetries, dtype=np.float64)
    moved[:, :3, 3] += center - moved[:, :3, :3] @ center
    return moved


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
