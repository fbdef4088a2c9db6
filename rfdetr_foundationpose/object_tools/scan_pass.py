"""One recording of an object on the board: the frames whose board is found, what is wrong with them, where the object is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..errors import UserError
from ..types import Frame
from .board import Board, BoardFinder
from .fusion import View
from .shading import Light

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


@dataclass(frozen=True)
class Pass:
    """views: of the frames that were taken. low, high: box of the object in the board's frame, m. frames: that were read."""

    views: list[View]
    low: Array
    high: Array
    frames: int
    remarks: list[str]

    def of_the_object(self, T_first_board: Array, light: Light) -> list[View]:
        """The views with poses in the first pass's frame, and negative depth for all but the object.

        T_first_board: (4, 4) how the object, seen in this pass's frame, stands in the first one's. light: in this pass's.
        """
        T = np.linalg.inv(T_first_board)
        light = light.seen_from(T_first_board[:3, :3])
        low, high = self.low.copy(), self.high
        low[2] = FLOOR
        made = []
        for view in self.views:
            points = _grid_points(view)
            inside = ((points > low) & (points < high)).all(-1)
            depth = np.where(inside, view.depth, -view.depth)
            made.append(replace(view, depth=depth, T_cam_board=view.T_cam_board @ T, light=light))
        return made


def read_pass(frames: Iterable[Frame], board: Board, progress: Callable[[int], None], *, timed: bool = True) -> Pass:
    """progress: gets the number of frames read. timed: stamps are times, by which the camera's speed is known. Raises ScanError where the frames give no surface."""
    views, total, remarks = _views(frames, board, progress, timed)
    bias = _depth_bias(views, board)
    if abs(bias - 1) > DEPTH_OFF[0]:
        sentence = (
            f"the depth of the board is {100 * abs(bias - 1):.1f} % too {'large' if bias > 1 else 'small'}; was it printed at "
            "100 %? Measure the line under its squares. If that is right, calibrate the camera's depth"
        )
        if abs(bias - 1) > DEPTH_OFF[1]:
            raise ScanError(sentence)
        remarks.append(sentence)
    return Pass(views, *_bounds(views, board), total, remarks)


def _views(
    frames: Iterable[Frame], board: Board, progress: Callable[[int], None], timed: bool
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
        progress(total)
        if found is None:
            few += 1
            continue
        depth = np.nan_to_num(frame.depth.astype(np.float32) * np.float32(frame.depth_scale), posinf=0, neginf=0)
        view = View(frame.rgb, depth, frame.camera, found.T_cam_board)
        views.append(replace(view, white=_white(view, board)))
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
    if timed and len(speeds) and (np.quantile(speeds, 0.75, axis=0) > FASTEST).any():
        fast = np.quantile(speeds, 0.75, axis=0)
        remarks.append(
            f"the camera moved too fast ({fast[0]:.2f} m/s, {fast[1]:.0f} deg/s; below {FASTEST[0]} m/s and {FASTEST[1]:.0f} "
            "deg/s is good): images smear, edges are doubled; walk round more slowly"
        )
    seen = {side_of(v.T_cam_board) for v in views}
    if len(seen) < SIDES - 1:
        remarks.append(
            f"the camera saw the object from {len(seen)} of {SIDES} sides: walk all the way round, or turn the board"
        )
    step = max(1, -(-len(views) // MOST_VIEWS))
    return views[::step], total, remarks


def _white(view: View, board: Board) -> Array | None:
    """(3,) colour of the board's paper in a view, out of shadows; None where too little of it is seen."""
    k, (width, height) = view.camera, board.size
    x, y = np.meshgrid(np.linspace(-0.49, 0.49, 70) * width, np.linspace(-0.49, 0.49, 100) * height)
    T = view.T_cam_board
    p = np.stack([x.ravel(), y.ravel()], 1) @ T[:3, :2].T + T[:3, 3]
    p = p[p[:, 2] > 0.05]
    u = np.round(p[:, 0] / p[:, 2] * k.fx + k.cx).astype(int)
    v = np.round(p[:, 1] / p[:, 2] * k.fy + k.cy).astype(int)
    inside = (u >= 0) & (v >= 0) & (u < k.width) & (v < k.height)
    u, v, z = u[inside], v[inside], p[inside, 2]
    bare = np.abs(view.depth[v, u] - z) < 0.015  # nothing stands before it
    if bare.sum() < 300:
        return None
    colours = view.rgb[v[bare], u[bare]].astype(np.float64)
    bright = colours.mean(1)
    low, high = np.quantile(bright, [0.82, 0.97])
    return np.asarray(colours[(bright >= low) & (bright <= high)].mean(0))


def side_of(T_cam_board: Array) -> int:
    """From which of the SIDES the camera looks."""
    eye = np.linalg.inv(T_cam_board)[:3, 3]
    return int(np.arctan2(eye[1], eye[0]) / (2 * np.pi) % 1 * SIDES)


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


def _grid_points(view: View) -> Array:
    """(H, W, 3) points of all pixels in the board's frame."""
    k = view.camera
    v, u = np.mgrid[0 : k.height, 0 : k.width]
    z = view.depth.astype(np.float64)
    points = np.stack([(u - k.cx) / k.fx * z, (v - k.cy) / k.fy * z, z], -1)
    T = np.linalg.inv(view.T_cam_board)
    return np.asarray(points @ T[:3, :3].T + T[:3, 3])


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
