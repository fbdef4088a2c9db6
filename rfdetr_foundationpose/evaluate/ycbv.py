"""Real RGB-D frames of the YCB-Video data set with true poses, as ``<frame>-color.png``, ``-depth.png``, ``-gt.json``."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..objects import ObjectSpec
from ..overlay import project
from ..replay.metrics import ObjectGeometry
from ..types import CameraIntrinsics, Frame

logger = logging.getLogger(__name__)
MIN_VISIBILITY = 0.3
"""Instances of which less is visible are left out."""
MASK_MARGIN = 6
"""A detector's masks are this many pixels too wide (640 x 480)."""
_BEFORE = 0.02
"""What is this much nearer than the model (metres) hides it."""
_SURFACE_POINTS = 200_000


@dataclass(frozen=True)
class RealFrame:
    """truths: object name of the data set ("003_cracker_box") -> T_cam_obj (4, 4) float64, of the original YCB-Video mesh
    frame, metres."""

    name: str
    frame: Frame
    truths: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Instance:
    """One object in one frame. visible: (H, W) bool, what is seen of it. visibility: the share of its silhouette."""

    scene: str
    object: str
    T_cam_obj: NDArray[np.float64]
    visible: NDArray[np.bool_]
    visibility: float


def load_frames(folder: Path) -> list[RealFrame]:
    """All frames of the folder by name. Raises FileNotFoundError when it holds none, UserError for a broken one."""
    ground_truths = sorted(folder.glob("*-gt.json"))
    if not ground_truths:
        raise FileNotFoundError(f"{folder} holds no <frame>-gt.json")
    return [_load(path) for path in ground_truths]


def _load(path: Path) -> RealFrame:
    name = path.name.removesuffix("-gt.json")
    data = json.loads(path.read_text())
    bgr = cv2.imread(str(path.with_name(f"{name}-color.png")), cv2.IMREAD_COLOR)
    depth = cv2.imread(str(path.with_name(f"{name}-depth.png")), cv2.IMREAD_UNCHANGED)
    if bgr is None or depth is None:
        raise UserError(f"{path.parent}: {name}-color.png or {name}-depth.png is missing or no image")
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    camera = CameraIntrinsics.from_matrix(np.asarray(data["cam_K"]), rgb.shape[1], rgb.shape[0])
    frame = Frame(0, "camera", rgb, np.asarray(depth, np.uint16), float(data["depth_to_m"]), camera)
    return RealFrame(name, frame, {k: np.asarray(v, np.float64) for k, v in data["T_cam_obj_m"].items()})


def short_name(name: str) -> str:
    """ "003_cracker_box" -> "cracker_box"."""
    return name.lstrip("0123456789_")


def load_specs(folder: Path, frames: Sequence[RealFrame]) -> list[ObjectSpec]:
    """The objects of the frames that ``folder/meshes/<name>.glb`` or ``folder/<name>_vertexcolor.obj`` has a mesh of.

    Their shapes are nearly, their textures are not symmetric: no symmetry is declared. Raises UserError where no object
    has a mesh.
    """
    names = sorted({name for real in frames for name in real.truths})
    specs = []
    for name in names:
        candidates = (folder / "meshes" / f"{name}.glb", folder / f"{name}_vertexcolor.obj")
        mesh = next((path for path in candidates if path.is_file()), None)
        if mesh is not None:
            specs.append(ObjectSpec(short_name(name), mesh))
    if not specs:
        raise UserError(f"{folder}: no mesh of any of {', '.join(names)}; put them there as meshes/<name>.glb")
    return specs


def find_instances(frames: Sequence[RealFrame], specs: Sequence[ObjectSpec]) -> list[Instance]:
    """All instances of the objects, by frame, that are visible by ``MIN_VISIBILITY``. Raises MeshError."""
    points = {spec.name: ObjectGeometry.from_spec(spec, _SURFACE_POINTS).points for spec in specs}
    found = []
    for real in frames:
        truths = {short_name(name): T for name, T in real.truths.items()}
        for spec in specs:
            if spec.name not in truths:
                continue
            T = truths[spec.name]
            visible, visibility = visible_part(points[spec.name], T, real.frame)
            if visibility >= MIN_VISIBILITY:
                found.append(Instance(real.name, spec.name, T, visible, visibility))
            else:
                logger.info("%s in %s: %.0f %% visible, left out", spec.name, real.name, 100 * visibility)
    return found


def visible_part(
    points: NDArray[np.float64], T_cam_obj: NDArray[np.float64], frame: Frame
) -> tuple[NDArray[np.bool_], float]:
    """Pixels of the silhouette (H, W) that nothing hides by the measured depth, and their share.

    points: (P, 3) on the object's surface, dense enough to touch nearly every pixel. Where no depth was measured the
    object counts as seen.
    """
    height, width = frame.depth.shape
    u, v, z = project(points, T_cam_obj, frame.camera).T
    inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
    column, row = np.round(u[inside]).astype(np.int64), np.round(v[inside]).astype(np.int64)
    expected = np.full((height, width), np.inf)
    np.minimum.at(expected, (row, column), z[inside])
    # A pixel that no point fell into belongs to its neighbours.
    kernel = np.ones((3, 3), np.uint8)
    silhouette = cv2.morphologyEx(np.isfinite(expected).astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
    expected = cv2.erode(expected, kernel)
    measured = frame.depth * frame.depth_scale
    hidden = (measured > 0) & (measured < expected - _BEFORE)
    visible = silhouette & ~hidden
    return visible, float(visible.sum() / max(silhouette.sum(), 1))
