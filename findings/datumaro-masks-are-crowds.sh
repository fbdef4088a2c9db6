#!/usr/bin/env bash
# Datumaro writes every mask into COCO files as a crowd, which trainings leave out, as its own YOLO exporter then does.
#
# Versions: datumaro 1.13.12, pycocotools 2.0.11, Python 3.11. CVAT's "COCO 1.0" export is made by Datumaro.
# Behaviour: of an instance that is a mask (a brush or segment-anything tool draws such), not a polygon, the COCO exporter writes runs
#   with "iscrowd": 1, whatever its attribute is_crowd says: false turns it into polygons instead. In COCO iscrowd marks a region
#   of many things that are not told apart; evaluations and trainings skip it. Datumaro reads its own file back with is_crowd set,
#   and warns that it leaves the crowds out when it then writes YOLO: of two objects one is left.
#   What helps: export polygons (segmentation_mode="polygons"), or take iscrowd of such files for nothing.
# Output seen:
#   mug polygon iscrowd 0, drill runs iscrowd 1
#   read again and written as YOLO: 1 line of 2
# Exits with 1 when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datumaro==1.13.12 pycocotools==2.0.11

cat > "$folder/run.py" <<'PY'
import json
import logging
import sys
from pathlib import Path

import datumaro as dm
import numpy as np
from datumaro.components.annotation import Mask, Polygon
from datumaro.components.media import Image

logging.disable()
folder = Path(sys.argv[1])
mask = np.zeros((40, 60), bool)
mask[20:30, 30:50] = True
objects = [Polygon([5, 5, 20, 5, 20, 15, 5, 15], label=0, id=1, group=1), Mask(mask, label=1, id=2, group=2)]
image = Image.from_numpy(np.zeros((40, 60, 3), np.uint8))
data = dm.Dataset.from_iterable(
    [dm.DatasetItem("a", subset="train", media=image, annotations=objects)], categories=["mug", "drill"]
)
data.export(str(folder / "coco"), "coco_instances", save_media=True)
written = json.loads((folder / "coco/annotations/instances_train.json").read_text())["annotations"]
kinds = {"mug": written[0], "drill": written[1]}
print(
    ", ".join(
        f"{name} {'runs' if isinstance(a['segmentation'], dict) else 'polygon'} iscrowd {a['iscrowd']}"
        for name, a in kinds.items()
    )
)
dm.Dataset.import_from(str(folder / "coco"), "coco_instances").export(str(folder / "yolo"), "yolo", save_media=True)
lines = (folder / "yolo/obj_train_data/a.txt").read_text().split("\n")
count = sum(bool(line.strip()) for line in lines)
print(f"read again and written as YOLO: {count} line of 2")
sys.exit(0 if ([a["iscrowd"] for a in written], count) == ([0, 1], 1) else 1)
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder"
