#!/usr/bin/env bash
# OpenCV 5's minAreaRect gives angles from -90 to 0 where OpenCV 4 gave 0 to 90, and for a tilted box the other side as width.
#
# Versions: opencv-python-headless 5.0.0.93 and 4.12.0.88, Python 3.11.
# Behaviour: the rectangle is the same (boxPoints has the same corners), its description is not: the box (0,0) to (4,2) is 2 x 4 at -90
#   degrees instead of 2 x 4 at 90, and a box that stands on a corner is 1.41 x 2.83 at -45 degrees instead of 2.83 x 1.41 at 45. Code that
#   takes the angle for that of the longer side (grasps, orientation of parts from a mask) turns by 90 degrees, without an error.
#   calcHist and findNonZero have other shapes too, (n,) and (n, 2) instead of (n, 1) and (n, 1, 2). Expected by who upgrades: the
#   same numbers.
# Output seen:
#   opencv 5.0.0: lying 2.00 x 4.00 at -90, on a corner 1.41 x 2.83 at -45; calcHist (4,), findNonZero (3, 2)
#   opencv 4.12.0: lying 2.00 x 4.00 at 90, on a corner 2.83 x 1.41 at 45; calcHist (4, 1), findNonZero (3, 1, 2)
#   the same corners: True
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'EOF'
import sys

import cv2
import numpy as np

boxes = {"lying": [[0, 0], [4, 0], [4, 2], [0, 2]], "on a corner": [[1, 0], [3, 2], [2, 3], [0, 1]]}
found, corners = [], []
for name, points in boxes.items():
    rectangle = cv2.minAreaRect(np.float32(points))
    (width, height), angle = rectangle[1:]
    found.append(f"{name} {width:.2f} x {height:.2f} at {angle:.0f}")
    corners.append(sorted(np.round(cv2.boxPoints(rectangle) + 0.0, 2).tolist()))
histogram = cv2.calcHist([np.zeros((4, 4), np.uint8)], [0], None, [4], [0, 256]).shape
points = cv2.findNonZero(np.eye(3, dtype=np.uint8)).shape
print(f"opencv {cv2.__version__}: {', '.join(found)}; calcHist {histogram}, findNonZero {points}")
np.save(sys.argv[1], np.abs(corners))
EOF
seen=""
for version in 5.0.0.93 4.12.0.88; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/python" -m pip install --quiet "opencv-python-headless==$version"
    seen+=$("$work/$version/bin/python" "$work/look.py" "$work/$version.npy")$'\n'
done
seen+=$("$work/5.0.0.93/bin/python" -c "
import numpy, sys
a, b = map(numpy.load, sys.argv[1:])
print('the same corners:', bool(numpy.allclose(a, b, atol=0.02)))" "$work/5.0.0.93.npy" "$work/4.12.0.88.npy")
echo "$seen"
[ "$seen" = "opencv 5.0.0: lying 2.00 x 4.00 at -90, on a corner 1.41 x 2.83 at -45; calcHist (4,), findNonZero (3, 2)
opencv 4.12.0: lying 2.00 x 4.00 at 90, on a corner 2.83 x 1.41 at 45; calcHist (4, 1), findNonZero (3, 1, 2)
the same corners: True" ]
