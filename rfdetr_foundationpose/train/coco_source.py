"""Training images from a data set in COCO layout, in the form in which rendered scenes come."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..replay.coco_masks import decode, within
from .coco_files import CocoImage, CocoInstance, CocoSplit
from .coco_find import DatasetError

logger = logging.getLogger(__name__)

# Instance numbers are kept as int8.
_MOST_INSTANCES = 120
_ROUNDING = 1e-3


@dataclass(frozen=True)
class CocoBatch:
    """As SceneBatch, of what photographs have: no depth (zeros), no known camera (a plausible one). Of instances that are
    not ``outlined``, ``instance`` has the box where nothing smaller lies on it, and ``box`` is the whole one. covered: (N, M) bool,
    outlined ones of which ``instance`` lacks what lies under such a box; ``box`` has it."""

    names: tuple[str, ...]
    rgb: Tensor
    depth: Tensor
    instance: Tensor
    label: Tensor
    box: Tensor
    visibility: Tensor
    outlined: Tensor
    covered: Tensor
    camera: NDArray[np.float64]


class CocoSource:
    """Images of one split, again and again in random order, squeezed to ``size`` (height, width).

    An instance is its polygons or runs, or its box where it has none. An image that cannot be decoded, or has another shape than
    its annotations say, is said and left out. Raises DatasetError when none is left.
    """

    def __init__(self, split: CocoSplit, device: torch.device | str, size: tuple[int, int], seed: int) -> None:
        self.size = size
        self.device = torch.device(device)
        self.names = split.names
        self._split = split
        self._images = list(split.images)
        self._rng = np.random.default_rng(seed)
        self.max_targets = max(1, min(_MOST_INSTANCES, max(len(image.instances) for image in self._images)))
        self._order: list[CocoImage] = []
        self._said = False

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
        outlined = np.zeros((count, self.max_targets), bool)
        covered = np.zeros((count, self.max_targets), bool)
        for i in range(count):
            image, pixels = self._next()
            rgb[i] = cv2.resize(pixels, self.size[::-1], interpolation=cv2.INTER_AREA)
            stated = image.size or (pixels.shape[0], pixels.shape[1])
            masks = [(*self._mask(one, image, stated), one) for one in image.instances]
            # Small things lie on large ones more often than under them.
            masks = sorted(masks, key=lambda found: -int(found[0].sum()))[: self.max_targets]
            traces = np.full(self.size, -1, np.int32)  # as if there were no boxes
            for m, (mask, traced, one) in enumerate(masks):
                instance[i][mask] = m
                label[i, m], visibility[i, m], outlined[i, m] = one.label, one.visibility, traced
                if traced:
                    traces[mask] = m
            for m, (mask, traced, _) in enumerate(masks):
                whole = traces == m if traced else mask
                box[i, m] = _tight(whole)
                covered[i, m] = traced and bool((whole & (instance[i] != m)).any())
        focal = 0.9 * width
        return CocoBatch(
            names=self.names,
            rgb=torch.from_numpy(rgb).to(self.device),
            depth=torch.zeros((count, height, width), device=self.device),
            instance=torch.from_numpy(instance).to(self.device),
            label=torch.from_numpy(label).to(self.device),
            box=torch.from_numpy(box).to(self.device),
            visibility=torch.from_numpy(visibility).to(self.device),
            outlined=torch.from_numpy(outlined).to(self.device),
            covered=torch.from_numpy(covered).to(self.device),
            camera=np.tile(np.array([focal, focal, width / 2, height / 2]), (count, 1)),
        )

    def _next(self) -> tuple[CocoImage, NDArray[np.uint8]]:
        while self._images:
            if not self._order:
                self._order = [self._images[i] for i in self._rng.permutation(len(self._images))]
            image = self._order.pop()
            try:
                return image, _pixels(image)
            except DatasetError as error:
                logger.warning(f"{error}: left out")
                self._images.remove(image)
        raise DatasetError(f"{self._split.file}: none of its {len(self._split.images)} images can be read")

    def _mask(self, one: CocoInstance, image: CocoImage, stated: tuple[int, int]) -> tuple[NDArray[np.bool_], bool]:
        """(H, W) bool, scaled from the image's ``stated`` size (H, W), and whether it is the outline: its box where nothing is
        left of that."""
        scale = (self.size[1] / stated[1], self.size[0] / stated[0])
        mask = np.zeros(self.size, bool)
        try:
            if isinstance(one.shape, list):
                mask = within(one.shape, self.size, scale)
            elif one.shape is not None:
                whole = decode({"segmentation": one.shape}, stated).astype(np.float32)
                mask = np.asarray(cv2.resize(whole, self.size[::-1], interpolation=cv2.INTER_AREA) > 0.5)
        except (ValueError, KeyError, TypeError) as error:
            if one.box is None:
                return mask, False
            if not self._said:
                logger.warning(
                    f"{self._split.file}: an outline in {image.path.name} cannot be read ({error}): its box is taken"
                )
            self._said = True
        if mask.any() or one.box is None:
            return mask, one.outlined
        x, y, w, h = one.box
        corners = np.clip(np.array([[x, y], [x + w, y + h]]) * scale, 0, self.size[::-1])
        # Corners that came through percentages are off by rounding.
        x0, y0 = np.floor(corners[0] + _ROUNDING).astype(int)
        x1, y1 = np.ceil(corners[1] - _ROUNDING).astype(int)
        mask[y0:y1, x0:x1] = True
        return mask, False


def _pixels(image: CocoImage) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB as it was annotated: turned by its EXIF, as programs show it, unless the annotated size says that it was
    not. Raises DatasetError."""
    shape = None
    for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION):
        pixels = cv2.imread(str(image.path), flags)
        if pixels is None:
            raise DatasetError(f"image {image.path} cannot be decoded (a JPEG or PNG?)")
        shape = shape or pixels.shape[:2]
        # Of images that were reduced after they had been annotated, annotations are reduced as well.
        if image.size is None or abs(pixels.shape[1] * image.size[0] / (pixels.shape[0] * image.size[1]) - 1) < 0.02:
            return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    assert shape is not None and image.size is not None
    raise DatasetError(
        f"image {image.path} has {shape[1]}x{shape[0]} pixels, its annotations are of {image.size[1]}x{image.size[0]}"
    )


def _tight(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
