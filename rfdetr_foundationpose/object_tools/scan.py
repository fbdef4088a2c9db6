"""A mesh of an object from recordings of it on the printed board: poses from the board, the surface from the depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from ..objects import ObjectSpec
from ..pose.mesh import ObjectModel, make_object
from ..pose.renderer import Views, WarpRenderer
from ..types import Frame
from .board import Board
from .fusion import MOST_VOXELS, Surface, View, fuse, paint
from .pass_registration import PassFit, fit_passes
from .scan_pass import FLOOR, Pass, ScanError, read_pass
from .shading import Light, fit_light
from .texture import atlas_library, textured

LEAST_OVERLAP = 0.35
"""The first pass must have seen this share of another one's surface."""
MOST_DISTANCE, MOST_COLOUR = 0.002, 0.15
"""The surfaces of two passes may differ by so many metres, and by this share of the range of colours (medians)."""

Array = NDArray[np.float64]


@dataclass
class Scan:
    """mesh: object frame, metres, vertex colours; z is up from the board, the origin below the middle of the box. textured: the
    same with fewer triangles and a texture, for use.

    coverage: share of the surface that several views saw well. residual: median and 90th percentile of what the depth
    differs from the mesh, m. holes: share of the surface that nobody saw, filled by guess (the underside is not counted).
    frames, used: of the recordings, and those whose board was found and that were taken. T_board_obj: (4, 4), in the board's
    frame of the first pass. passes: how many. seam: how the worst further pass fits the first. remarks: what is not as it
    should be, and what to do.
    """

    mesh: trimesh.Trimesh
    textured: trimesh.Trimesh
    coverage: float
    residual: tuple[float, float]
    holes: float
    frames: int
    used: int
    T_board_obj: Array
    passes: int = 1
    seam: PassFit | None = None
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
            "triangles": len(self.textured.faces),
            "triangles_fused": len(self.mesh.faces),
            "size_mm": [1e3 * float(v) for v in self.mesh.extents],
            "passes": self.passes,
            **({} if self.seam is None else {"seam_mm": 1e3 * self.seam.distance, "seam_overlap": self.seam.overlap}),
            "remarks": self.remarks,
        }


def scan(
    passes: Sequence[Iterable[Frame]],
    board: Board,
    *,
    voxel: float = 0.0,
    device: str = "cpu",
    timed: bool = True,
    progress: Callable[[str, int], None] = lambda phase, done: None,
) -> Scan:
    """passes: the frames of each recording, between which the object was turned over; one is enough where nobody asks for
    its underside. voxel: resolution in m, 0: by the object's size. timed: see ``read_pass``. progress: gets "read" and frames done, then "fuse" and
    surfaces done. Raises ScanError; UserError where xatlas is not installed.
    """
    atlas_library()  # before minutes of work
    recorded: list[Pass] = []
    for frames in passes:
        before = sum(p.frames for p in recorded)
        recorded.append(read_pass(frames, board, lambda done, b=before: progress("read", b + done), timed=timed))  # type: ignore[misc]
    remarks = [r if len(recorded) == 1 else f"pass {i + 1}: {r}" for i, p in enumerate(recorded) for r in p.remarks]
    low, high = recorded[0].low, recorded[0].high
    voxel = voxel or float(np.clip(max(np.linalg.norm(p.high - p.low) for p in recorded) / 130, 0.0008, 0.003))
    surfaces, lights = [], []
    for one in recorded:
        surface = _fuse(one.views, one.low, one.high, voxel, FLOOR, device)
        lights.append(_light(surface))
        lit = [replace(view, light=lights[-1]) for view in one.views]
        surfaces.append(paint(surface.mesh, lit, voxel, device, FLOOR + voxel))
        progress("fuse", len(surfaces))
    surface, views, above = surfaces[0], lit, FLOOR + voxel
    seam: PassFit | None = None
    if len(recorded) > 1:
        fits = [_fit(surfaces[0], s, i + 2) for i, s in enumerate(surfaces[1:])]
        seam = max(fits, key=lambda f: f.distance)
        moved = [np.eye(4), *(f.T_first_second for f in fits)]
        views = [v for p, T, light in zip(recorded, moved, lights, strict=True) for v in p.of_the_object(T, light)]
        corners = [s.mesh.vertices @ T[:3, :3].T + T[:3, 3] for s, T in zip(surfaces, moved, strict=True)]
        low = np.min([c.min(0) for c in corners], 0) - 0.004
        high = np.max([c.max(0) for c in corners], 0) + 0.004
        surface, above = _fuse(views, low, high, voxel, None, device, moved), -np.inf
        progress("fuse", len(surfaces) + 1)
    mesh, T_board_obj = _own_frame(surface.mesh)
    few = textured(surface, views, voxel, device, above)
    few.apply_translation(-T_board_obj[:3, 3])
    # Of a single pass the underside stands on the board.
    asked = (mesh.vertex_normals[:, 2] > -0.7) if len(recorded) == 1 else np.ones(len(mesh.vertices), bool)
    area = np.zeros(len(mesh.vertices))
    np.add.at(area, mesh.faces.ravel(), np.repeat(mesh.area_faces / 3, 3))
    area = area * asked
    coverage = float(area[surface.views >= 3].sum() / area.sum())
    holes = float(area[surface.views == 0].sum() / area.sum())
    residual, missing = _compare(mesh, T_board_obj, views, device)
    remarks += _remarks(coverage, holes, residual, missing)
    total, used = sum(p.frames for p in recorded), sum(len(p.views) for p in recorded)
    return Scan(mesh, few, coverage, residual, holes, total, used, T_board_obj, len(recorded), seam, remarks)


def _fuse(
    views: Sequence[View],
    low: Array,
    high: Array,
    voxel: float,
    floor: float | None,
    device: str,
    boards: Sequence[Array] = (),
) -> Surface:
    while np.prod((high - low) / voxel) > MOST_VOXELS:
        voxel *= 1.2
    margin = 4 * voxel
    try:
        return fuse(
            views, low - (margin, margin, 0.004 if floor else margin), high + margin, voxel, floor, device, boards
        )
    except ValueError as error:
        raise ScanError(f"{error}; put the object on the middle of the board") from error


def _light(surface: Surface) -> Light:
    """What shaded a surface on the board, by those parts of it that were seen well."""
    mesh = surface.mesh
    assert isinstance(mesh.visual, trimesh.visual.ColorVisuals)
    points = np.asarray(mesh.vertices, np.float64)
    colours = np.asarray(mesh.visual.vertex_colors, np.float64)[:, :3]
    seen = (surface.views >= 3) & (points[:, 2] > 2 * FLOOR)
    return fit_light(points, np.asarray(mesh.vertex_normals, np.float64), colours, seen)


def _fit(first: Surface, second: Surface, number: int) -> PassFit:
    fit = fit_passes(first, second, FLOOR)
    if fit.overlap < LEAST_OVERLAP or fit.distance > MOST_DISTANCE or fit.colour > MOST_COLOUR:
        raise ScanError(
            f"pass {number} does not fit pass 1 ({fit.overlap:.0%} of the surface in common, {1e3 * fit.distance:.1f} mm apart, "
            f"colours {fit.colour:.0%} apart): is it the same object, stiff, and lit alike? Lay it on a side, so that most of "
            "what pass 1 saw is seen again"
        )
    return fit


def _own_frame(mesh: trimesh.Trimesh) -> tuple[trimesh.Trimesh, Array]:
    """The mesh with its origin on the board below the middle of its box."""
    T = np.eye(4)
    T[:2, 3] = mesh.bounds.mean(0)[:2]
    moved = mesh.copy()
    moved.apply_translation(-T[:3, 3])
    return moved, T


def _compare(
    mesh: trimesh.Trimesh, T_board_obj: Array, views: Sequence[View], device: str
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
            "record from lower and from higher too, and all of it: from farther away where the pictures cut it off"
        )
    if residual[1] > 0.006:
        found.append(
            f"depth and mesh differ by {1e3 * residual[1]:.1f} mm (90th percentile): did the object move on the board?"
        )
    return found
