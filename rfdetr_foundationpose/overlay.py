"""Poses drawn on the image: contour of the model's silhouette, axes, box, score and state. Needs no GPU.

models = {spec.name: OverlayModel.load(spec) for spec in load_objects("objects.yaml")}
picture = draw_overlay(frame.rgb, frame.camera, result.poses, models, result.detections or [], ["12.5 fps"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .meshes import reading
from .meshes.raw import MeshError
from .objects import ObjectSpec
from .types import CameraIntrinsics, Detection, ObjectPose, TrackState

# A point nearer than this (m) has no usable projection.
NEAR = 0.01
# Triangles of a mesh with more faces are pixel-sized: their corners and centres, closed, give the same silhouette faster.
MAX_FILLED_FACES = 20_000
AXIS_COLORS = ((255, 60, 60), (60, 220, 60), (80, 120, 255))
STATE_COLORS = {
    TrackState.TRACKING: (60, 255, 120),
    TrackState.UNCERTAIN: (255, 200, 0),
    TrackState.LOST: (255, 70, 70),
    TrackState.SEARCHING: (255, 200, 0),
}
DETECTION_COLOR = (255, 200, 0)


@dataclass(frozen=True)
class OverlayModel:
    """vertices: (V, 3) float64 in the mesh's own frame, metres. faces: (F, 3) int. low, high: (3,) bounding box. unit: metres per
    unit of the file as it says itself, None where its format does not."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    unit: float | None = None

    @property
    def low(self) -> NDArray[np.float64]:
        return np.asarray(self.vertices.min(0))

    @property
    def high(self) -> NDArray[np.float64]:
        return np.asarray(self.vertices.max(0))

    @classmethod
    def load(cls, spec: ObjectSpec) -> OverlayModel:
        """Geometry of an objects.yaml entry, as poses are of it. Raises UserError that names the file when it cannot be read."""
        try:
            raw = reading.read(Path(spec.mesh))
        except (MeshError, OSError) as error:
            raise UserError(f"object {spec.name}: mesh {spec.mesh} cannot be read: {error}") from error
        # Vertices that no face uses would stretch the box.
        used, inverse = np.unique(raw.faces, return_inverse=True)
        vertices = np.asarray(raw.vertices[used], np.float64) * spec.scale
        return cls(vertices, np.asarray(inverse, np.int64).reshape(-1, 3), raw.unit)


def project(
    points: NDArray[np.float64], T_cam_obj: NDArray[np.float64], camera: CameraIntrinsics
) -> NDArray[np.float64]:
    """(N, 3) points of the object frame -> (N, 3) pixel u, pixel v, depth in metres; u and v are NaN behind the camera."""
    p = points @ T_cam_obj[:3, :3].T + T_cam_obj[:3, 3]
    z = np.where(p[:, 2] > NEAR, p[:, 2], np.nan)
    return np.stack([p[:, 0] / z * camera.fx + camera.cx, p[:, 1] / z * camera.fy + camera.cy, p[:, 2]], 1)


def silhouette(model: OverlayModel, T_cam_obj: NDArray[np.float64], camera: CameraIntrinsics) -> NDArray[np.uint8]:
    """(H, W) uint8, 255 where the model projects to."""
    mask = np.zeros((camera.height, camera.width), np.uint8)
    uv = project(model.vertices, T_cam_obj, camera)[:, :2]
    faces = model.faces[np.isfinite(uv[model.faces]).all((1, 2))]
    # Far outside the image coordinates would overflow OpenCV's fixed point.
    uv = np.clip(uv, -8 * camera.width, 8 * camera.width)
    if len(faces) > MAX_FILLED_FACES:
        return _splat(mask, uv, faces)
    triangles = uv[faces]
    inside = ((triangles.max(1) >= 0) & (triangles.min(1) <= (camera.width, camera.height))).all(1)
    for triangle in np.round(triangles[inside]).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 255)
    return mask


def _splat(mask: NDArray[np.uint8], uv: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.uint8]:
    points = np.round(np.concatenate([uv[faces].mean(1), uv[np.unique(faces)]])).astype(np.int64)
    height, width = mask.shape
    inside = ((points >= 0) & (points < (width, height))).all(1)
    mask[points[inside, 1], points[inside, 0]] = 255
    edge = np.median(np.linalg.norm(uv[faces[:, 0]] - uv[faces[:, 1]], axis=1))
    size = 2 * int(np.ceil(edge)) + 3
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((size, size), np.uint8)), np.uint8)


def draw_overlay(
    rgb: NDArray[np.uint8],
    camera: CameraIntrinsics,
    poses: Sequence[ObjectPose],
    models: Mapping[str, OverlayModel],
    detections: Sequence[Detection] = (),
    text: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """A copy of rgb (H, W, 3) uint8 with contour, axes, 3-D box and label of every pose, detections and lines of text."""
    image = np.ascontiguousarray(rgb).copy()
    line = max(1, round(image.shape[1] / 640))
    for detection in detections:
        x0, y0, x1, y1 = (round(float(v)) for v in detection.box)
        cv2.rectangle(image, (x0, y0), (x1, y1), DETECTION_COLOR, line)
        _label(image, f"{detection.label} {detection.score:.2f}", (x0, y1 + 14 * line), DETECTION_COLOR, line)
    for found in poses:
        _draw_pose(image, camera, found, models[found.object], line)
    for row, sentence in enumerate(text):
        _label(image, sentence, (6 * line, (16 + 18 * row) * line), (255, 255, 255), line)
    return image


def _draw_pose(
    image: NDArray[np.uint8], camera: CameraIntrinsics, found: ObjectPose, model: OverlayModel, line: int
) -> None:
    T = found.T_cam_obj
    if not np.isfinite(T).all():
        return
    color = STATE_COLORS[found.state]
    mask = silhouette(model, T, camera)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(image, contours, -1, color, line, cv2.LINE_AA)
    _draw_box(image, camera, T, model, color)
    length = float(np.max(model.high - model.low)) * 0.6
    ends = project(np.concatenate([np.zeros((1, 3)), np.eye(3) * length]), T, camera)[:, :2]
    for end, axis_color in zip(ends[1:], AXIS_COLORS, strict=True):
        _line(image, ends[0], end, axis_color, 2 * line)
    if contours:
        x, y, _, _ = cv2.boundingRect(np.concatenate(contours))
        # A PoseStamped carries no confidence: poses that came over a topic have NaN.
        score = "" if np.isnan(found.confidence) else f" {found.confidence:.2f}"
        label = f"{found.name}{score} {found.state.value}"
        _label(image, label, (x, max(y - 6 * line, 12 * line)), color, line)


def _draw_box(
    image: NDArray[np.uint8],
    camera: CameraIntrinsics,
    T: NDArray[np.float64],
    model: OverlayModel,
    color: tuple[int, int, int],
) -> None:
    low, high = model.low, model.high
    corners = np.array([[(low, high)[i >> axis & 1][axis] for axis in range(3)] for i in range(8)])
    uv = project(corners, T, camera)[:, :2]
    for i in range(8):
        for axis in range(3):
            if not i >> axis & 1:
                _line(image, uv[i], uv[i | 1 << axis], tuple(c // 2 + 64 for c in color), 1)


def _line(
    image: NDArray[np.uint8], a: NDArray[np.float64], b: NDArray[np.float64], color: Sequence[int], width: int
) -> None:
    ends = np.concatenate([a, b])
    if np.isfinite(ends).all() and np.abs(ends).max() < 1e4:
        x0, y0, x1, y1 = (round(float(v)) for v in ends)
        cv2.line(image, (x0, y0), (x1, y1), color, width, cv2.LINE_AA)


def _label(image: NDArray[np.uint8], text: str, at: tuple[int, int], color: Sequence[int], line: int) -> None:
    """Text with a dark rim, readable on any ground."""
    x, y = at
    # A rim of thicker strokes would not lie under the text: OpenCV 5 spaces letters by their thickness.
    rim = [(x + dx, y + dy, (0, 0, 0)) for dx in (-line, 0, line) for dy in (-line, 0, line)]
    for left, base, ink in [*rim, (x, y, color)]:
        cv2.putText(image, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.45 * line, ink, line, cv2.LINE_AA)
