"""Detector data sets in COCO layout as RF-DETR's training reads it: <out>/<split>/_annotations.coco.json beside images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..interrupts import Watch
from ..replay.coco_masks import outlines
from .scene import SceneSampler

ROOT_CATEGORY = "objects"


def write_coco(
    out: str | Path,
    sampler: SceneSampler,
    counts: Mapping[str, int],
    *,
    batch: int = 8,
    min_visibility: float = 0.1,
    min_pixels: int = 40,
    watch: Watch = Watch(),  # noqa: B008 - frozen
) -> int:
    """Write ``counts`` images a split ("train", "valid", ...), or those until ``watch.stop``; returns how many.

    Categories are 1..K in the order of ``sampler.names`` under a root category 0, as Roboflow exports have it.
    Instances less visible than ``min_visibility`` or smaller than ``min_pixels`` get no annotation; their number is
    in the file's info. Segmentations are polygons of the visible pixels.
    """
    out = Path(out)
    total, done = sum(counts.values()), 0
    for split, count in counts.items():
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        skipped = 0
        while len(images) < count and not watch.stop():
            scenes = sampler.sample(min(batch, count - len(images)))
            rgb = scenes.rgb.cpu().numpy()
            ids = scenes.instance.cpu().numpy()
            labels = scenes.label.cpu().numpy()
            visibility = scenes.visibility.cpu().numpy()
            for s in range(len(rgb)):
                number = len(images)
                name = f"{number:06d}.jpg"
                path = folder / name
                if not cv2.imwrite(str(path), cv2.cvtColor(rgb[s], cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95]):
                    raise OSError(f"cannot write {path}")
                images.append({"id": number, "file_name": name, "height": rgb.shape[1], "width": rgb.shape[2]})
                for m in np.flatnonzero(labels[s] >= 0):
                    mask = (ids[s] == m).astype(np.uint8)
                    pixels = int(mask.sum())
                    if pixels < min_pixels or visibility[s, m] < min_visibility:
                        skipped += 1
                        continue
                    x, y, w, h = cv2.boundingRect(mask)
                    annotations.append(
                        {
                            "id": len(annotations) + 1,  # 0 is no match to pycocotools
                            "image_id": number,
                            "category_id": int(labels[s, m]) + 1,
                            "bbox": [x, y, w, h],
                            "area": pixels,
                            "iscrowd": 0,
                            "segmentation": outlines(mask),
                            "visibility": float(visibility[s, m]),
                        }
                    )
                done += 1
                watch.advance(done, total)
        categories = [{"id": 0, "name": ROOT_CATEGORY, "supercategory": "none"}]
        categories += [{"id": i, "name": n, "supercategory": ROOT_CATEGORY} for i, n in enumerate(sampler.names, 1)]
        content = {
            "info": {"description": "generated scenes", "instances_too_hidden": skipped},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
    return done
