"""Masks that a BOP scene holds as COCO annotations (``scene_gt_coco.json``) instead of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
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
    mask = np.zeros(size, np.uint8)
    outlines = [np.round(np.array(p, np.float64).reshape(-1, 2)).astype(np.int32) for p in shape]
    cv2.fillPoly(mask, outlines, 1)
    return mask > 0


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
