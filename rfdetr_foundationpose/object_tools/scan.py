"""A mesh of an object from a recording of it on the printed board: poses from the board, the surface from the depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..errors import UserError
from ..objects import ObjectSpec
from ..pose.mesh import ObjectModel, make_object
from ..pose.renderer import Views, WarpRenderer
from ..types import Frame
from .board import Board, BoardFinder
from .fusion import MOST_VOXELS, View, fuse

FLOOR = 0.003
"""Points less than so many metres above the board may be the board, by the noise of its depth."""
LEAST_VIEWS, MOST_VIEWS = 12, 240
FASTEST = (0.35, 60.0)
"""Above these speeds of the camera, m/s and deg/s, a rolling shutter and the exposure smear what it sees."""
DEPTH_OFF = (0.01, 0.025)
"""The board's depth may differ by the first share from where its corners say it is before that is said, by the second before
it is too much."""
SIDES = 12
"""There are so many directions round the object, of 30 degrees each."""

Array = NDArray[np.float64]


class ScanError(UserError, ValueError):
    """A recording that gives no mesh; the message says what to do otherwise."""


@dataclass
class Scan:
    """mesh: object frame, metres, vertex colours; z is up from the board, the origin below the middle of the box.

    coverage: share of the surface that several views saw well. residual: median and 90th percentile of what the depth
    differs from the mesh, m. holes: share of the surface that nobody saw, filled by guess (the underside is not counted).
    frames, used: of the recording, and those whose board was found and that were taken. remarks: what is not as it should
    be, and what to do. T_board_obj: (4, 4).
    """

    mesh: trimesh.Trimesh
    coverage: float
    residual: tuple[float, float]
    holes: float
    frames: int
    used: int
    T_board_obj: Array
    remarks: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """Figures for metrics.json."""
        return {
            "coverage": self.coverage,
            "residual_p50_mm": 1e3 * self.residual[0],
            "residual_p90_mm": 1e3 * self.residual[1],
            "holes": self.holes,
            "frames": self.frames,
            "frames_used": self.used,
            "vertices": len(self.mesh.vertices),
            "triangles": len(self.mesh.faces),
            "size_mm": [1e3 * float(v) for v in self.mesh.extents],
            "remarks": self.remarks,
        }


def scan(
    frames: Iterable[Frame],
    board: Board,
    *,
    voxel: float = 0.0,
    device: str = "cpu",
    progress: Callable[[str, int], None] = lambda phase, done: None,
) -> Scan:
    """voxel: resolution in m, 0: by the object's size. progress: gets "read" and frames done. Raises ScanError."""
    views, total, remarks = _views(frames, board, progress)
    bias = _depth_bias(views, board)
    if abs(bias - 1) > DEPTH_OFF[0]:
        sentence = (
            f"the depth of the board is {100 * abs(bias - 1):.1f} % too {'large' if bias > 1 else 'small'}; was it printed at "
            "100 %? Measure the line under its squares. If that is right, calibrate the camera's depth"
        )
        if abs(bias - 1) > DEPTH_OFF[1]:
            raise ScanError(sentence)
        remarks.append(sentence)
    low, high = _bounds(views, board)
    size = float(np.linalg.norm(high - low))
    voxel = voxel or float(np.clip(size / 130, 0.0008, 0.003))
    while np.prod((high - low) / voxel) > MOST_VOXELS:
        voxel *= 1.2
    margin = 4 * voxel
    try:
        surface = fuse(views, low - (margin, margin, 0.004), high + margin, voxel, FLOOR, device)
    except ValueError as error:
        raise ScanError(f"{error}; put the object on the middle of the board") from error
    mesh, T_board_obj = _own_frame(surface.mesh)
    side = mesh.vertex_normals[:, 2] > -0.7  # the underside stands on the board
    area = np.zeros(len(mesh.vertices))
    np.add.at(area, mesh.faces.ravel(), np.repeat(mesh.area_faces / 3, 3))
    asked = area * side
    coverage = float(asked[surface.views >= 3].sum() / asked.sum())
    holes = float(asked[surface.views == 0].sum() / asked.sum())
    residual, missing = _compare(mesh, T_board_obj, views, device)
    remarks += _remarks(coverage, holes, residual, missing)
    return Scan(mesh, coverage, residual, holes, total, len(views), T_board_obj, remarks)


def _views(
    frames: Iterable[Frame], board: Board, progress: Callable[[str, int], None]
) -> tuple[list[View], int, list[str]]:
    """Those frames that the board gives a pose to, evenly thinned, and remarks on the recording."""
    views: list[View] = []
    stamps: list[int] = []
    finder: BoardFinder | None = None
    total = few = 0
    for frame in frames:
        finder = finder or BoardFinder(board, frame.camera)
        found = finder.find(frame.rgb)
        total += 1
        progress("read", total)
        if found is None:
            few += 1
            continue
        depth = np.nan_to_num(frame.depth.astype(np.float32) * np.float32(frame.depth_scale), posinf=0, neginf=0)
        views.append(View(frame.rgb, depth, frame.camera, found.T_cam_board))
        stamps.append(frame.stamp_ns)
    if total == 0:
        raise ScanError("the recording holds no frame")
    if len(views) < LEAST_VIEWS:
        raise ScanError(
            f"the board was found in {len(views)} of {total} frames, at least {LEAST_VIEWS} are needed: is it the board "
            f"{board.name!r} of 'object board', flat, lit evenly, and not covered by the object or a hand? A camera that "
            "moves fast blurs it"
        )
    remarks = []
    speeds = _speeds(views, stamps)
    if few > 0.4 * total:
        remarks.append(
            f"the board was found in {total - few} of {total} frames only: keep more of it in view, and the object in its middle"
        )
    if len(speeds) and (np.quantile(speeds, 0.75, axis=0) > FASTEST).any():
        fast = np.quantile(speeds, 0.75, axis=0)
        remarks.append(
            f"the camera moved too fast ({fast[0]:.2f} m/s, {fast[1]:.0f} deg/s; below {FASTEST[0]} m/s and {FASTEST[1]:.0f} "
            "deg/s is good): images smear, edges are doubled; walk round more slowly"
        )
    eyes = np.stack([np.linalg.inv(v.T_cam_board)[:3, 3] for v in views])
    seen = set(np.floor((np.arctan2(eyes[:, 1], eyes[:, 0]) / (2 * np.pi) % 1) * SIDES).astype(int))
    if len(seen) < SIDES - 1:
        remarks.append(
            f"the camera saw the object from {len(seen)} of {SIDES} sides: walk all the way round, or turn the board"
        )
    step = max(1, -(-len(views) // MOST_VIEWS))
    return views[::step], total, remarks


def _speeds(views: list[View], stamps: list[int]) -> Array:
    """(N - 1, 2) m/s and deg/s between neighbours."""
    poses = [np.linalg.inv(v.T_cam_board) for v in views]
    rows = []
    for a, b, t, u in zip(poses, poses[1:], stamps, stamps[1:], strict=False):
        seconds = max((u - t) * 1e-9, 1e-3)
        if seconds < 1.0:  # across a gap, where the board was not found, nothing is known
            turn = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude()
            rows.append((np.linalg.norm(b[:3, 3] - a[:3, 3]) / seconds, np.rad2deg(turn) / seconds))
    return np.array(rows).reshape(-1, 2)


def _points(view: View) -> tuple[Array, Array, Array]:
    """Every ninth valid pixel: its point in the board's frame (N, 3), its depth (N,), and the board plane's along its ray."""
    k = view.camera
    v, u = np.mgrid[0 : k.height : 3, 0 : k.width : 3]
    z = view.depth[::3, ::3].astype(np.float64)
    rays = np.stack([(u - k.cx) / k.fx, (v - k.cy) / k.fy, np.ones_like(z)], -1)[z > 0]
    z = z[z > 0]
    T = np.linalg.inv(view.T_cam_board)
    return (rays * z[:, None]) @ T[:3, :3].T + T[:3, 3], z, -T[2, 3] / (rays @ T[2, :3])


def _depth_bias(views: list[View], board: Board) -> float:
    """By what factor the board's depth is off, by its rim, on which nothing stands."""
    width, height = board.size
    ratios = []
    for view in views[:: max(1, len(views) // 30)]:
        points, z, plane = _points(view)
        eye = np.linalg.inv(view.T_cam_board)[:3, 3]
        hit = eye + (points - eye) * (plane / z)[:, None]
        across = np.maximum(np.abs(hit[:, 0]) / (width / 2), np.abs(hit[:, 1]) / (height / 2))
        rim = (across > 0.75) & (across < 0.98) & (plane > 0)
        if rim.any():
            ratios.append(np.median(z[rim] / plane[rim]))
    return float(np.median(ratios)) if ratios else 1.0


def _bounds(views: list[View], board: Board) -> tuple[Array, Array]:
    """Box of what stands on the board, in its frame."""
    width, height = board.size
    chosen = []
    for view in views[:: max(1, len(views) // 60)]:
        p, _, _ = _points(view)
        on = (np.abs(p[:, 0]) < width / 2) & (np.abs(p[:, 1]) < height / 2)
        chosen.append(p[on & (p[:, 2] > 2 * FLOOR) & (p[:, 2] < 0.6)])
    found = np.concatenate(chosen)
    if len(found) < 200:
        raise ScanError("nothing stands on the board: put the object on its middle")
    low, high = np.quantile(found, 0.002, axis=0), np.quantile(found, 0.998, axis=0)
    low[2] = 0.0
    edge = np.array([width, height]) / 2 - 0.004
    if (np.abs(low[:2]) > edge).any() or (np.abs(high[:2]) > edge).any():
        raise ScanError(
            f"what stands on the board reaches over its edge ({1e3 * (high[0] - low[0]):.0f} x {1e3 * (high[1] - low[1]):.0f} mm): "
            "put the object on the middle, take hands and other things away, or use a larger board"
        )
    return low - 0.004, high + 0.004


def _own_frame(mesh: trimesh.Trimesh) -> tuple[trimesh.Trimesh, Array]:
    """The mesh with its origin on the board below the middle of its box."""
    T = np.eye(4)
    T[:2, 3] = mesh.bounds.mean(0)[:2]
    moved = mesh.copy()
    moved.apply_translation(-T[:3, 3])
    return moved, T


def _compare(
    mesh: trimesh.Trimesh, T_board_obj: Array, views: list[View], device: str
) -> tuple[tuple[float, float], float]:
    """Median and 90th percentile of |measured - rendered| depth, and the share of the object's pixels without depth."""
    model: ObjectModel = make_object(ObjectSpec("scan", "scan"), mesh)  # type: ignore[arg-type]
    renderer = WarpRenderer([model], device)
    differences, missing, inside = [], 0, 0
    for view in views[:: max(1, len(views) // 24)]:
        k = view.camera
        T = model.to_centered(view.T_cam_board @ T_board_obj)
        where = Views(
            _tensor(T[None], device),
            torch.zeros(1, dtype=torch.int32, device=device),
            _tensor(np.array([[-0.5, -0.5, k.width - 0.5, k.height - 0.5]]), device),
            _tensor(np.array([[k.fx, k.fy, k.cx, k.cy]]), device),
        )
        rendering = renderer.render(where, (k.height, k.width))
        depth = rendering.xyz[0, ..., 2].cpu().numpy()
        # Off the silhouette, where depth is missing or mixed with any camera.
        facing = rendering.normal[0, ..., 2].abs().cpu().numpy() > 0.35
        on = (depth > 0) & facing
        inside += int(on.sum())
        valid = on & (view.depth > 0)
        missing += int(on.sum() - valid.sum())
        differences.append(np.abs(view.depth - depth)[valid])
    every = np.concatenate(differences) if differences else np.zeros(0)
    if not every.size:
        return (float("nan"), float("nan")), 1.0
    return (float(np.median(every)), float(np.quantile(every, 0.9))), missing / max(inside, 1)


def _tensor(values: Array, device: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)


def _remarks(coverage: float, holes: float, residual: tuple[float, float], missing: float) -> list[str]:
    found = []
    if missing > 0.15:
        found.append(
            f"{missing:.0%} of the object's pixels have no depth: it is glossy, dark or transparent; dull it with scanning "
            "spray or talcum, or use a mesh from CAD"
        )
    if coverage < 0.9:
        found.append(
            f"{1 - coverage:.0%} of the surface was seen by less than three views ({holes:.0%} by none, filled by guess): "
            "record from lower and from higher too"
        )
    if residual[1] > 0.006:
        found.append(
            f"depth and mesh differ by {1e3 * residual[1]:.1f} mm (90th percentile): did the object move on the board?"
        )
    return found
