"""Data sets in the BOP layout (https://github.com/thodan/bop_toolkit, docs/bop_datasets_format.md), read frame by frame.

A data set has models in millimetres and scenes ``<split>/XXXXXX/`` with ``scene_gt.json``, ``scene_camera.json``, ``rgb/`` or
``gray/``, ``depth/``, ``mask_visib/``; of several sensors each has files and folders of its own: ``scene_gt_cam1.json``,
``rgb_cam1/``. What is missing or broken is left out and counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..frame_files import read_color, read_depth
from ..types import CameraIntrinsics, Frame
from . import coco_masks
from .bop_models import BopError, find_models, object_name, object_spec, read_json

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
_NO_SENSOR = ("info", "coco")


@dataclass(frozen=True)
class BopInstance:
    """T_cam_obj: (4, 4) float64, metres, of the mesh scaled to metres. mask: (H, W) bool, its visible part.

    index: in the image's ground truth.
    """

    object: str
    T_cam_obj: NDArray[np.float64]
    mask: NDArray[np.bool_]
    visibility: float | None
    index: int = 0


@dataclass
class LeftOut:
    """What an iteration could not use: how many of each kind, and where the first of them was."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, where)

    def sentences(self) -> list[str]:
        return [f"left out: {n} x {kind} (first: {self.first[kind]})" for kind, n in self.counts.items()]


class _Unusable(Exception):
    """A frame or instance is left out. kind: as counted."""

    def __init__(self, kind: str, where: str) -> None:
        super().__init__(where)
        self.kind = kind


class BopDataset:
    """A BOP data set or split of it. Objects are named by their id: ``obj_000001``.

    split: None is "test", or the only split whose name begins so. sensor: of data sets with several; None: all that have
    depth. notes: sentences for the user. left_out: of the last iteration. Raises BopError that names what is missing,
    ConfigError for a symmetry that is none.
    """

    def __init__(self, folder: Path, split: str | None = None, sensor: str | None = None) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self.left_out = LeftOut()
        if not folder.is_dir():
            raise BopError(f"{folder} does not exist; name the folder of a data set, which holds models/ and the split")
        self.split = self._choose_split(split)
        sensors = [
            s for path in sorted((folder / self.split).iterdir()) if path.is_dir() for s in _sensors(path, self.notes)
        ]
        names = sorted({s.sensor for s in sensors})
        if sensor is not None and sensor not in names:
            raise BopError(
                f"{folder}/{self.split} has no sensor {sensor!r}; it has {', '.join(names) or 'none with depth'}"
            )
        self.scenes = [s for s in sensors if sensor is None or s.sensor == sensor]
        if not self.scenes:
            raise BopError(
                f"{folder}/{self.split} holds no scene with scene_gt.json, scene_camera.json, rgb/ or gray/, and depth/"
            )
        self.notes += [
            f"{s.folder} has no mask_visib{s.of_sensor}: mask/ is read, which shows hidden parts of objects too"
            for s in self.scenes
            if s.mask_folder == "mask"
        ]
        self.models = find_models(folder, self.notes)
        self.specs = [object_spec(model, self.notes) for model in self.models]

    def __len__(self) -> int:
        """Images that the ground truth lists; some may be left out."""
        count = 0
        for scene in self.scenes:
            with suppress(BopError):
                count += len(scene.truths)
        return count

    def _choose_split(self, split: str | None) -> str:
        held = sorted({p.parent.parent.name for p in self.folder.glob("*/*/scene_gt*.json")})
        if not held and any(self.folder.glob("*/scene_gt*.json")):
            raise BopError(
                f"{self.folder} is a split: name the folder above it, which holds models/ too, and --split {self.folder.name}"
            )
        if split is not None or "test" in held:
            chosen = split or "test"
        else:
            tests = [name for name in held if name.startswith("test")] or held
            if len(tests) != 1:
                raise BopError(
                    f"{self.folder}/test holds no <scene>/scene_gt.json, and --split does not say which to take; "
                    f"there are scenes in {', '.join(held) or 'no folder: is it in the BOP layout?'}"
                )
            chosen = tests[0]
            self.notes.append(f"{self.folder} has no split test: {chosen} is read")
        if chosen not in held:
            raise BopError(
                f"{self.folder}/{chosen} holds no <scene>/scene_gt.json; there are scenes in "
                f"{', '.join(held) or 'no folder: is it in the BOP layout?'}"
            )
        return chosen

    def __iter__(self) -> Iterator[tuple[str, int, Frame, list[BopInstance]]]:
        """Scene name, image id, frame and its instances, in order. A scene of several sensors is named ``000001/cam1``."""
        self.left_out = left = LeftOut()
        known = {model.id for model in self.models}
        for scene in self.scenes:
            try:
                truths, cameras, infos = scene.truths, scene.cameras, scene.infos
            except BopError as error:
                left.add("scene whose JSON is broken", str(error))
                continue
            for key in sorted(truths, key=int):
                where = f"{scene.folder}, image {key}{scene.of_sensor}"
                try:
                    frame = scene.frame(int(key), cameras)
                    instances = _instances(scene, int(key), truths[key], infos.get(int(key)), frame, known, left)
                except _Unusable as unusable:
                    left.add(unusable.kind, str(unusable) or where)
                    continue
                if instances or not truths[key]:
                    yield scene.name, int(key), frame, instances


def is_bop(folder: Path) -> bool:
    """Whether a folder holds scenes in the BOP layout."""
    return folder.is_dir() and any(folder.glob("*/*/scene_gt*.json"))


@dataclass(frozen=True)
class _Scene:
    """One sensor's part of a scene."""

    folder: Path
    sensor: str

    @property
    def _suffix(self) -> str:
        return f"_{self.sensor}" if self.sensor else ""

    @property
    def of_sensor(self) -> str:
        return f" of {self.sensor}" if self.sensor else ""

    @property
    def name(self) -> str:
        return f"{self.folder.name}/{self.sensor}" if self.sensor else self.folder.name

    @cached_property
    def truths(self) -> dict[str, Any]:
        """Raises BopError."""
        found = read_json(self.folder / f"scene_gt{self._suffix}.json")
        wrong = [key for key, value in found.items() if not key.isdigit() or not isinstance(value, list)]
        if wrong:
            raise BopError(
                f"{self.folder}/scene_gt{self._suffix}.json: {wrong[0]!r} is no image id with a list of poses"
            )
        return found

    @cached_property
    def cameras(self) -> dict[int, Any]:
        """By image; of a scene without, the camera of the data set for every image. Raises BopError."""
        file = self.folder / f"scene_camera{self._suffix}.json"
        whole = self.folder.parent.parent / "camera.json"
        if not file.exists() and whole.exists():
            c = read_json(whole)
            try:
                entry = {"cam_K": [c["fx"], 0, c["cx"], 0, c["fy"], c["cy"], 0, 0, 1], **c}
            except KeyError as error:
                raise BopError(f"{file} is missing, and {whole} has no {error}") from None
            return {int(key): entry for key in self.truths}
        return _by_number(read_json(file))

    @cached_property
    def infos(self) -> dict[int, Any]:
        """What is known of visibility, by image; nothing where the file is missing or broken."""
        try:
            return _by_number(read_json(self.folder / f"scene_gt_info{self._suffix}.json"))
        except BopError:
            return {}

    @cached_property
    def _files(self) -> dict[str, dict[tuple[int, ...], Path]]:
        return {
            kind: _numbered(self.folder / f"{kind}{self._suffix}")
            for kind in ("rgb", "gray", "depth", "mask_visib", "mask")
        }

    def path(self, kind: str, number: tuple[int, ...], what: str) -> Path:
        """An image by its numbers. Raises _Unusable."""
        path = self._files[kind].get(number)
        if path is None:
            name = "_".join(f"{n:06d}" for n in number)
            raise _Unusable(f"{what} that is missing", f"{self.folder}/{kind}{self._suffix}/{name}.png")
        return path

    @cached_property
    def mask_folder(self) -> str:
        """``mask_visib``, or ``mask``, whose masks show hidden parts too, where there is nothing else."""
        return (
            "mask" if self._files["mask"] and not self._files["mask_visib"] and not self._annotations else "mask_visib"
        )

    @cached_property
    def _annotations(self) -> dict[tuple[int, ...], Any]:
        """Masks of scene_gt_coco.json, where there are no images of them."""
        file = self.folder / f"scene_gt_coco{self._suffix}.json"
        if self._files["mask_visib"] or not file.exists():
            return {}
        try:
            return coco_masks.by_instance(read_json(file))
        except (BopError, KeyError, TypeError, ValueError):
            return {}

    def mask(self, number: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
        """(H, W) bool by image and instance. size: of the image. Raises _Unusable."""
        if number in self._annotations:
            try:
                return coco_masks.decode(self._annotations[number], size)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                where = f"{self.folder}/scene_gt_coco{self._suffix}.json, image {number[0]}, instance {number[1]}"
                raise _Unusable("mask that cannot be decoded", f"{where}: {error}") from None
        path = self.path(self.mask_folder, number, "mask")
        try:
            mask = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
        except (cv2.error, OSError):
            mask = None
        if mask is None:
            raise _Unusable("mask that is no image", str(path))
        return np.asarray(mask) > 0

    def frame(self, image: int, cameras: Mapping[int, Any]) -> Frame:
        """Raises _Unusable."""
        camera = cameras.get(image)
        where = f"{self.folder}/scene_camera{self._suffix}.json, image {image}"
        if not isinstance(camera, Mapping) or "cam_K" not in camera:
            raise _Unusable("image without a camera", where)
        kind = "rgb" if (image,) in self._files["rgb"] or not self._files["gray"] else "gray"
        try:
            rgb = read_color(self.path(kind, (image,), kind))
            depth = read_depth(self.path("depth", (image,), "depth"))
            scale = float(camera.get("depth_scale", 1.0)) * 0.001
            K = np.asarray(camera["cam_K"], np.float64).reshape(3, 3)
            if not math.isfinite(scale) or scale <= 0:
                raise ValueError(f"depth_scale {camera.get('depth_scale')}")
            intrinsics = CameraIntrinsics.from_matrix(K, rgb.shape[1], rgb.shape[0])
            return Frame(image, "camera", rgb, depth, scale, intrinsics)
        except InputError as error:
            raise _Unusable(f"image of {error.kind}", f"{where}: {error}") from None
        except (TypeError, ValueError) as error:
            raise _Unusable("image whose camera cannot be used", f"{where}: {error}") from None


def _sensors(folder: Path, notes: list[str]) -> Iterator[_Scene]:
    """Sensors of a scene that have images and depth."""
    for file in sorted(folder.glob("scene_gt*.json")):
        sensor = file.stem.removeprefix("scene_gt").removeprefix("_")
        if sensor.split("_")[0] in _NO_SENSOR:
            continue
        suffix = f"_{sensor}" if sensor else ""
        if not any((folder / f"{kind}{suffix}").is_dir() for kind in ("rgb", "gray")):
            notes.append(
                f"{folder} is not read{f' ({sensor})' if sensor else ''}: it has no rgb{suffix}/ or gray{suffix}/"
            )
        elif not (folder / f"depth{suffix}").is_dir():
            notes.append(f"{folder} is not read{f' ({sensor})' if sensor else ''}: it has no depth{suffix}/")
        else:
            yield _Scene(folder, sensor)


def _by_number(tree: Mapping[str, Any]) -> dict[int, Any]:
    return {int(key): value for key, value in tree.items() if key.isdigit()}


def _numbered(folder: Path) -> dict[tuple[int, ...], Path]:
    """Images by the numbers in their names: 000001.png is (1,), a mask 000001_000000.png is (1, 0)."""
    if not folder.is_dir():
        return {}
    found: dict[tuple[int, ...], Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _IMAGES and re.fullmatch(r"\d+(_\d+)*", path.stem):
            found.setdefault(tuple(int(part) for part in path.stem.split("_")), path)
    return found


def _instances(
    scene: _Scene, image: int, truths: Any, infos: Any, frame: Frame, known: set[int], left: LeftOut
) -> list[BopInstance]:
    """Instances of an image that can be used; the others are in ``left``."""
    found = []
    for i, truth in enumerate(truths):
        where = f"{scene.folder}, image {image}{scene.of_sensor}, instance {i}"
        try:
            id, T = int(truth["obj_id"]), np.eye(4)
            T[:3, :3] = np.asarray(truth["cam_R_m2c"], np.float64).reshape(3, 3)
            T[:3, 3] = np.asarray(truth["cam_t_m2c"], np.float64).reshape(3) * 0.001
        except (KeyError, TypeError, ValueError) as error:
            left.add("instance whose pose cannot be read", f"{where}: {type(error).__name__} {error}")
            continue
        if not np.isfinite(T).all() or np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max() > 0.01:
            left.add("instance whose pose is none", where)
            continue
        if id not in known:
            left.add("instance of an object without a model", f"{where}: object {id}")
            continue
        try:
            mask = scene.mask((image, i), (frame.depth.shape[0], frame.depth.shape[1]))
        except _Unusable as unusable:
            left.add(unusable.kind, str(unusable))
            continue
        if mask.shape != frame.depth.shape:
            left.add("mask of another size than its image", f"{where}: {mask.shape}, {frame.depth.shape}")
            continue
        found.append(BopInstance(object_name(id), T, mask, _visible(infos, i), i))
    return found


def _visible(infos: Any, index: int) -> float | None:
    try:
        value = float(infos[index]["visib_fract"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
