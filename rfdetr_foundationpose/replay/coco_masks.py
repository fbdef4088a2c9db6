"""Masks as COCO annotations have them, and BOP scenes in ``scene_gt_coco.json`` instead of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def by_instance(tree: Mapping[str, Any]) -> dict[tuple[int, ...], Any]:
    """Annotations by image and instance: those of an image follow the order of its ground truth."""
    found: dict[tuple[int, ...], Any] = {}
    counts: defaultdict[int, int] = defaultdict(int)
    for entry in tree.get("annotations") or []:
        image = int(entry["image_id"])
        found[(image, counts[image])] = entry
        counts[image] += 1
    return found


def decode(annotation: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool of runs, plain or packed as pycocotools packs them, or of polygons. size: (H, W) for the latter.

    Raises ValueError.
    """
    shape = annotation.get("segmentation")
    if isinstance(shape, Mapping):
        height, width = (int(n) for n in shape["size"])
        counts = shape["counts"]
        runs = np.array(_unpacked(counts) if isinstance(counts, str) else counts, np.int64)
        if (runs < 0).any() or int(runs.sum()) != height * width:
            raise ValueError(f"its runs cover {int(runs.sum())} of {height}x{width} pixels")
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    if not isinstance(shape, list) or not shape:
        raise ValueError("it has no segmentation")
    return within(shape, size)


def within(
    polygons: Sequence[Sequence[float]], size: tuple[int, int], scale: tuple[float, float] = (1, 1)
) -> NDArray[np.bool_]:
    """(H, W) bool of the pixels that lie within COCO polygons x0, y0, x1, y1, ..., times ``scale``, by more than half.

    COCO's are outlines in the plane, in which the first pixel reaches from 0 to 1; OpenCV's run through the middles of pixels.
    Raises ValueError.
    """
    mask = np.zeros(size, bool)
    for polygon in polygons:
        points = np.array(polygon, np.float64).reshape(-1, 2) * scale
        if not np.isfinite(points).all():
            raise ValueError("a point of its polygons is not finite")
        if len(points) < 3:  # of things one pixel wide
            continue
        x0, y0 = (int(v) for v in np.clip(np.floor(points.min(0)), 0, size[::-1]))
        x1, y1 = (int(v) for v in np.clip(np.ceil(points.max(0)), 0, size[::-1]))
        if x0 == x1 or y0 == y1:
            continue
        fine = np.zeros(((y1 - y0) * _FINER, (x1 - x0) * _FINER), np.float32)
        cv2.fillPoly(fine, [np.round((points - (x0, y0)) * _FINER - 0.5).astype(np.int32)], 1)
        mask[y0:y1, x0:x1] |= cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA) > 0.5
    return mask


def outlines(mask: NDArray[np.uint8]) -> list[list[float]]:
    """COCO polygons of the outer contours of a (H, W) mask: ``within`` of them is the mask with its holes filled."""
    doubled = np.repeat(np.repeat(mask, 2, 0), 2, 1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [[float(v) for v in ((contour.reshape(-1, 2) + 0.5) / 2).ravel()] for contour in contours]


_FINER = 4


def _unpacked(text: str) -> list[int]:
    """Runs of COCO's packed form: six bits a letter, of which one says that more follow, as differences to the run before
    the last."""
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
