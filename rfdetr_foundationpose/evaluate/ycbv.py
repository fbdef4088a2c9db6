"""Real RGB-D frames of the YCB-Video data set with true poses, as ``<frame>-color.png``, ``-depth.png``, ``-gt.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..objects import ObjectSpec
from ..types import CameraIntrinsics, Frame

MUSTARD = "006_mustard_bottle"
MESH = "006_mustard_bottle_vertexcolor.obj"


@dataclass(frozen=True)
class RealFrame:
    """truths: object name of the data set -> T_cam_obj (4, 4) float64, of the original YCB-Video mesh frame, metres."""

    name: str
    frame: Frame
    truths: dict[str, NDArray[np.float64]]


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


def mustard(folder: Path) -> ObjectSpec:
    """The bottle's objects.yaml entry. Its shape is nearly, its print is not symmetric: no symmetry is declared."""
    return ObjectSpec("mustard_bottle", folder / MESH)
