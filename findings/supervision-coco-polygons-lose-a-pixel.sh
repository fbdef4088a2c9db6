#!/usr/bin/env bash
# Masks that supervision writes as COCO polygons are a pixel smaller to the right and below when COCO's own tools read them.
#
# Versions: supervision 0.31.2, pycocotools 2.0.11, opencv-python-headless 5.0.0.93, numpy 2.4, Python 3.11.
# Behaviour: COCO's polygons are outlines in the plane, where the first pixel reaches from 0 to 1. supervision's mask_to_polygons, by
#   which DetectionDataset.as_coco writes, gives OpenCV's contours, which run through the middles of the outermost pixels, and its
#   own reader fills them with the border, so that supervision alone loses nothing. Its mask_to_xyxy gives the last pixel, and not the
#   edge behind it, so that "bbox" is a pixel too narrow and too low, too. Of a mask of 12 x 5 pixels pycocotools, and so whatever
#   trains on it, reads 11 x 4. It matters for small objects: a box of 10 pixels loses a tenth of each side.
#   What helps: write runs (RLE) instead of polygons, or double the mask before its contour is taken; bbox + 1.
# Output seen:
#   mask: 60 pixels, 12 x 5; area 60.0, bbox [8.0, 5.0, 11.0, 4.0]
#   pycocotools reads 44 pixels, 11 x 4; supervision reads 60
# Exits with 1 when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet supervision==0.31.2 pycocotools==2.0.11 opencv-python-headless==5.0.0.93 "numpy==2.4.*"

cat > "$folder/run.py" <<'PY'
import contextlib
import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import supervision as sv
from pycocotools.coco import COCO

folder = Path(sys.argv[1])
mask = np.zeros((1, 20, 30), bool)
mask[0, 5:10, 8:20] = True
image = str(folder / "a.png")
cv2.imwrite(image, np.zeros((20, 30, 3), np.uint8))
found = sv.Detections(xyxy=sv.mask_to_xyxy(mask).astype(float), mask=mask, class_id=np.array([0]))
written = sv.DetectionDataset(classes=["mug"], images=[image], annotations={image: found})
written.as_coco(images_directory_path=str(folder / "images"), annotations_path=str(folder / "coco.json"))
entry = json.loads((folder / "coco.json").read_text())["annotations"][0]
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(str(folder / "coco.json"))
read = coco.annToMask(entry).astype(bool)
again = sv.DetectionDataset.from_coco(str(folder / "images"), str(folder / "coco.json"), force_masks=True)
own = int(next(iter(again))[2].mask.sum())


def size(shown):
    return f"{shown.any(0).sum()} x {shown.any(1).sum()}"


print(f"mask: {mask.sum()} pixels, {size(mask[0])}; area {entry['area']}, bbox {entry['bbox']}")
print(f"pycocotools reads {read.sum()} pixels, {size(read)}; supervision reads {own}")
sys.exit(0 if (int(read.sum()), own, entry["bbox"]) == (44, 60, [8.0, 5.0, 11.0, 4.0]) else 1)
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder"
