#!/usr/bin/env bash
# pycocotools counts a perfect detection of the annotation whose id is 0 as a false one.
#
# Versions: pycocotools 2.0.11 and faster-coco-eval 1.8.0, numpy 2.4, Python 3.11.
# Behaviour: COCO's format asks for ids that differ. COCOeval writes the id of the annotation that a detection matches where 0 means
#   that it matches none, so that the annotation with the id 0 is found by nobody: with four objects, all detected perfectly, AP falls
#   from 1 to 0.564 and recall to 0.75. Roboflow's exports, and whatever writes "id": len(annotations), count from 0. pycocotools says
#   nothing; faster-coco-eval gives the same numbers with a warning. Expected: the same figures whatever the ids are.
# Output seen:
#   ids from 1: pycocotools AP 1.000, recall 1.000; faster-coco-eval AP 1.000, recall 1.000, warnings 0
#   ids from 0: pycocotools AP 0.564, recall 0.750; faster-coco-eval AP 0.564, recall 0.750, warnings 1
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import contextlib
import io
import warnings

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

BOX = [10, 10, 50, 50]


def measured(data, evaluation, first):
    truth = data()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "width": 100, "height": 100, "file_name": f"{i}.png"} for i in range(4)],
        "annotations": [
            {"id": first + i, "image_id": i, "category_id": 1, "bbox": BOX, "area": 2500, "iscrowd": 0} for i in range(4)
        ],
        "categories": [{"id": 1, "name": "mug"}],
    }
    truth.createIndex()
    found = truth.loadRes([{"image_id": i, "category_id": 1, "bbox": BOX, "score": 0.9} for i in range(4)])
    result = evaluation(truth, found, "bbox")
    result.evaluate()
    result.accumulate()
    result.summarize()
    return f"AP {result.stats[0]:.3f}, recall {result.stats[8]:.3f}"


for first in (1, 0):
    with contextlib.redirect_stdout(io.StringIO()):
        slow = measured(pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval, first)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            fast = measured(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, first)
    count = sum("id 0" in str(w.message) for w in said)
    print(f"ids from {first}: pycocotools {slow}; faster-coco-eval {fast}, warnings {min(count, 1)}")
EOF
seen=$("$work/venv/bin/python" "$work/look.py")
echo "$seen"
[ "$seen" = "ids from 1: pycocotools AP 1.000, recall 1.000; faster-coco-eval AP 1.000, recall 1.000, warnings 0
ids from 0: pycocotools AP 0.564, recall 0.750; faster-coco-eval AP 0.564, recall 0.750, warnings 1" ]
