"""Training images from a data set in COCO layout, in the form in which rendered scenes come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UserError
from ..replay.coco_masks import decode, within

ANNOTATIONS = "_annotations.coco.json"
# Instance numbers are kept as int8.
_MOST_INSTANCES = 120


class DatasetError(UserError, ValueError):
    """A data set that cannot be trained on; the message names the file and what is expected."""


@dataclass(frozen=True)
class CocoBatch:
    """As SceneBatch, of what photographs have: no depth (zeros), no known camera (a plausible one)."""

    names: tuple[str, ...]
    rgb: Tensor
    depth: Tensor
    instance: Tensor
    label: Tensor
    box: Tensor
    visibility: Tensor
    camera: NDArray[np.float64]


class CocoSource:
    """Images of one split, again and again in random order, squeezed to ``size`` (height, width).

    folder: holds images and ``_annotations.coco.json``, as RF-DETR's own training reads it. Categories without any
    annotation whose supercategory is "none" (the root that exports add) are left out. An instance is its polygons,
    or its box where it has none. Raises DatasetError.
    """

    def __init__(self, folder: Path, device: torch.device | str, size: tuple[int, int], seed: int) -> None:
        self.size = size
        self.device = torch.device(device)
        self._folder = folder
        self._rng = np.random.default_rng(seed)
        content = _read(folder / ANNOTATIONS)
        used = {a["category_id"] for a in content["annotations"]}
        categories = [c for c in content["categories"] if c["id"] in used or c.get("supercategory") != "none"]
        self.names = tuple(str(c["name"]) for c in sorted(categories, key=lambda c: c["id"]))
        index = {c["id"]: i for i, c in enumerate(sorted(categories, key=lambda c: c["id"]))}
        self._images = content["images"]
        if not self._images or not self.names:
            raise DatasetError(
                f"{folder / ANNOTATIONS} has {len(self._images)} images and {len(self.names)} categories"
            )
        self._of: dict[int, list[tuple[int, dict[str, Any]]]] = {image["id"]: [] for image in self._images}
        for annotation in content["annotations"]:
            if annotation.get("iscrowd", 0) or annotation["image_id"] not in self._of:
                continue
            self._of[annotation["image_id"]].append((index[annotation["category_id"]], annotation))
        self.max_targets = max(1, min(_MOST_INSTANCES, max(len(v) for v in self._of.values())))
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._images)

    def sample(self, count: int) -> CocoBatch:
        """The next ``count`` images."""
        height, width = self.size
        rgb = np.zeros((count, height, width, 3), np.uint8)
        instance = np.full((count, height, width), -1, np.int32)
        label = np.full((count, self.max_targets), -1, np.int64)
        box = np.zeros((count, self.max_targets, 4), np.float32)
        visibility = np.zeros((count, self.max_targets), np.float32)
        for i in range(count):
            image = self._images[self._next()]
            rgb[i] = self._load(image)
            # Small things lie on large ones more often than under them.
            found = sorted(self._of[image["id"]], key=lambda item: -_area(item[1]))[: self.max_targets]
            for m, (kind, annotation) in enumerate(found):
                mask = _mask(annotation, image, self.size)
                instance[i][mask] = m
                label[i, m], visibility[i, m] = kind, float(annotation.get("visibility", 1.0))
            for m in range(len(found)):
                box[i, m] = _tight(instance[i] == m)
        focal = 0.9 * width
        return CocoBatch(
            names=self.names,
            rgb=torch.from_numpy(rgb).to(self.device),
            depth=torch.zeros((count, height, width), device=self.device),
            instance=torch.from_numpy(instance).to(self.device),
            label=torch.from_numpy(label).to(self.device),
            box=torch.from_numpy(box).to(self.device),
            visibility=torch.from_numpy(visibility).to(self.device),
            camera=np.tile(np.array([focal, focal, width / 2, height / 2]), (count, 1)),
        )

    def _next(self) -> int:
        if not self._order:
            self._order = self._rng.permutation(len(self._images)).tolist()
        return self._order.pop()

    def _load(self, image: dict[str, Any]) -> NDArray[np.uint8]:
        path = self._folder / image["file_name"]
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise DatasetError(f"image {path} of {ANNOTATIONS} is missing or cannot be read")
        small = cv2.resize(pixels, self.size[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; a COCO split holds its images beside {ANNOTATIONS}")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON: {error}") from error
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if missing:
        raise DatasetError(f"{path} has no list {', '.join(missing)}")
    known = {c["id"] for c in content["categories"]}
    strange = sorted({a["category_id"] for a in content["annotations"]} - known)
    if strange:
        raise DatasetError(f"{path} has annotations of categories {strange}, which it does not list")
    return content


def _area(annotation: dict[str, Any]) -> float:
    width, height = annotation["bbox"][2:]
    return float(width) * float(height)


def _mask(annotation: dict[str, Any], image: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool of an annotation, scaled from its image's size: of polygons or runs, its box where there are none or nothing is
    left of them. Raises DatasetError."""
    scale = (size[1] / image["width"], size[0] / image["height"])
    shape = annotation.get("segmentation")
    mask = np.zeros(size, bool)
    try:
        if isinstance(shape, list):
            mask = within(shape, size, scale)
        elif isinstance(shape, dict):
            whole = decode(annotation, size).astype(np.float32)
            mask = np.asarray(cv2.resize(whole, size[::-1], interpolation=cv2.INTER_AREA) > 0.5)
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{ANNOTATIONS}: the segmentation of annotation {annotation.get('id')} (image {image.get('file_name')}) cannot be "
            f"read: {error}; export it anew, or without segmentations"
        ) from error
    if mask.any():
        return mask
    x, y, w, h = annotation["bbox"]
    x0, y0 = np.floor(np.array([x, y]) * scale).astype(int)
    x1, y1 = np.ceil(np.array([x + w, y + h]) * scale).astype(int)
    mask[max(y0, 0) : y1, max(x0, 0) : x1] = True
    return mask


def _tight(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
