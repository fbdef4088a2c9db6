"""Data sets in the BOP layout (https://github.com/thodan/bop_toolkit, docs/bop_datasets_format.md), read frame by frame.

A data set has ``models/obj_XXXXXX.ply`` and ``models/models_info.json`` in millimetres, and scenes
``<split>/XXXXXX/`` with ``scene_gt.json``, ``scene_camera.json``, ``rgb/``, ``depth/``, ``mask_visib/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..config import ConfigError
from ..objects import LARGEST_GROUP, ContinuousSymmetry, DiscreteSymmetry, ObjectSpec
from ..pose.symmetry import symmetry_transforms
from ..types import CameraIntrinsics, Frame

# Two angles that differ by less (rad) are the same: fractions of a turn with denominators up to LARGEST_GROUP differ by
# more than twice this.
SAME_ANGLE = 2e-4
# Two rotation matrices whose elements differ by less are the same: those of a group of that size differ by 0.03 or more.
SAME_ROTATION = 0.01


@dataclass(frozen=True)
class BopInstance:
    """T_cam_obj: (4, 4) float64, metres, of the mesh scaled to metres. mask: (H, W) bool, its visible part."""

    object: str
    T_cam_obj: NDArray[np.float64]
    mask: NDArray[np.bool_]
    visibility: float | None


class BopDataset:
    """A BOP data set or split of it. Objects are named by file: ``obj_000001``.

    Raises FileNotFoundError that names what is missing, ConfigError for symmetries that contradict each other.
    """

    def __init__(self, folder: Path, split: str = "test") -> None:
        self.folder = folder
        self.scenes = sorted(p.parent for p in (folder / split).glob("*/scene_gt.json"))
        if not self.scenes:
            raise FileNotFoundError(f"{folder}/{split} holds no <scene>/scene_gt.json; is it in the BOP layout?")
        models = next((folder / n for n in ("models", "models_eval") if (folder / n).is_dir()), None)
        if models is None:
            raise FileNotFoundError(f"{folder} holds no models/; BOP data sets ship it as a separate archive")
        info_file = models / "models_info.json"
        info = json.loads(info_file.read_text()) if info_file.is_file() else {}
        self.specs = [_spec(path, info) for path in sorted(models.glob("obj_*.ply"))]
        if not self.specs:
            raise FileNotFoundError(f"{models} holds no obj_XXXXXX.ply")

    def __iter__(self) -> Iterator[tuple[str, int, Frame, list[BopInstance]]]:
        """Scene name, image id, frame and its instances, in order."""
        for scene in self.scenes:
            truths = json.loads((scene / "scene_gt.json").read_text())
            cameras = json.loads((scene / "scene_camera.json").read_text())
            info_file = scene / "scene_gt_info.json"
            infos = json.loads(info_file.read_text()) if info_file.is_file() else {}
            for key in sorted(truths, key=int):
                frame = _frame(scene, int(key), cameras[key])
                instances = _instances(scene, int(key), truths[key], infos.get(key, []), frame)
                yield scene.name, int(key), frame, instances


def _spec(path: Path, info: Mapping[str, Any]) -> ObjectSpec:
    entry = info.get(str(int(path.stem.removeprefix("obj_"))), {})
    discrete = _generators(entry.get("symmetries_discrete", ()), path.stem)
    continuous = tuple(_axis(s["axis"], s.get("offset", (0, 0, 0))) for s in entry.get("symmetries_continuous", ()))
    return ObjectSpec(path.stem, path, scale=0.001, discrete=discrete, continuous=continuous)


def _axis(axis: Any, offset_mm: Any) -> ContinuousSymmetry:
    direction = np.asarray(axis, np.float64)
    return ContinuousSymmetry(
        _triple(direction / np.linalg.norm(direction)), _triple(np.asarray(offset_mm, np.float64) * 0.001)
    )


def _generators(listed: Iterable[Any], name: str) -> tuple[DiscreteSymmetry, ...]:
    """A few turns that make all those listed: BOP lists a whole group, a DiscreteSymmetry stands for all its powers."""
    turns = []
    for values in listed:
        T = np.asarray(values, np.float64).reshape(4, 4)
        vector = Rotation.from_matrix(T[:3, :3]).as_rotvec()
        angle = float(np.linalg.norm(vector))
        if angle > SAME_ANGLE:
            turn = DiscreteSymmetry(_triple(vector / angle), _fold(angle, name), _triple(axis_point(T) * 0.001))
            turns.append((turn, T[:3, :3]))
    kept: list[DiscreteSymmetry] = []
    group = np.eye(3)[None]
    for turn, R in sorted(turns, key=lambda item: -item[0].fold):
        # The rotation alone tells: no object has two symmetries that differ by a translation.
        if np.abs(group - R).max(axis=(1, 2)).min() > SAME_ROTATION:
            kept.append(turn)
            group = symmetry_transforms(kept, (), np.zeros(3))[:, :3, :3]
    return tuple(kept)


def _fold(angle: float, name: str) -> int:
    """How often a turn by ``angle`` (rad) is repeated until it closes: 5 for 1/5, and for 2/5 of a turn."""
    for fold in range(2, LARGEST_GROUP + 1):
        step = 2 * np.pi / fold
        if abs(angle - round(angle / step) * step) < SAME_ANGLE:
            return fold
    raise ConfigError(
        f"{name}: symmetries_discrete of models_info.json holds a turn by {np.rad2deg(angle):.4f} degrees, which does not "
        f"close within {LARGEST_GROUP} repetitions; an axis of any turn belongs in symmetries_continuous"
    )


def axis_point(T: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) point nearest to the origin on the axis about which T (4, 4), a turn, turns; in the units of T."""
    # I - R has no inverse; what rounding leaves of its smallest singular value must not count.
    point, *_ = np.linalg.lstsq(np.eye(3) - T[:3, :3], T[:3, 3], rcond=1e-3)
    return np.asarray(point, np.float64)


def _triple(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return (x, y, z)


def _frame(scene: Path, image: int, camera: Mapping[str, Any]) -> Frame:
    stem = f"{image:06d}"
    rgb_file = next((f for f in (scene / f"rgb/{stem}.{e}" for e in ("png", "jpg", "tif")) if f.is_file()), None)
    if rgb_file is None:
        raise FileNotFoundError(f"{scene}/rgb holds no {stem}.png or .jpg")
    bgr = cv2.imread(str(rgb_file), cv2.IMREAD_COLOR)
    depth = cv2.imread(str(scene / f"depth/{stem}.png"), cv2.IMREAD_UNCHANGED)
    if bgr is None or depth is None:
        raise FileNotFoundError(f"{scene}: rgb or depth of image {stem} is missing or no image")
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    intrinsics = CameraIntrinsics.from_matrix(np.asarray(camera["cam_K"]), rgb.shape[1], rgb.shape[0])
    scale = float(camera.get("depth_scale", 1.0)) * 0.001
    return Frame(image, "camera", rgb, np.asarray(depth, np.uint16), scale, intrinsics)


def _instances(
    scene: Path, image: int, truths: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, Any]], frame: Frame
) -> list[BopInstance]:
    found = []
    for i, truth in enumerate(truths):
        mask = cv2.imread(str(scene / f"mask_visib/{image:06d}_{i:06d}.png"), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise FileNotFoundError(f"{scene}/mask_visib/{image:06d}_{i:06d}.png is missing")
        T = np.eye(4)
        T[:3, :3] = np.asarray(truth["cam_R_m2c"], np.float64).reshape(3, 3)
        T[:3, 3] = np.asarray(truth["cam_t_m2c"], np.float64) * 0.001
        visibility = float(infos[i]["visib_fract"]) if i < len(infos) and "visib_fract" in infos[i] else None
        found.append(BopInstance(f"obj_{int(truth['obj_id']):06d}", T, np.asarray(mask) > 0, visibility))
    return found
