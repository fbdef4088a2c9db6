#!/usr/bin/env bash
# OpenCV 5: warpAffine with INTER_NEAREST takes other pixels of uint8, uint16 and float32 than of int16, int32 and float64.
#
# Versions: opencv-python-headless 5.0.0.93 and 4.12.0.88, Python 3.11, x86-64.
# Behaviour: a shift by half a pixel repeats every second pixel of a uint8, uint16 or float32 image and skips the others (it rounds
#   halves to even numbers), and gives the pixels of int16, int32 and float64 one after the other. A depth image (uint16) and its labels
#   (int32) that a crop halves about the centres of their pixels, where every place is a half, no longer belong together. In 4.12 all
#   types agree. Expected: a place that does not depend on the type.
# Output seen:
#   opencv 5.0.0: half a pixel: uint8 0 0 2 2 4 4 6 6, uint16 0 0 2 2 4 4 6 6, float32 0 0 2 2 4 4 6 6, int16 0 1 2 3 4 5 6 7, int32 0 1 2 3 4 5 6 7
#   opencv 5.0.0: halved: uint16 and int32 differ in 100 % of the pixels
#   opencv 4.12.0: half a pixel: uint8 0 1 2 3 4 5 6 7, uint16 0 1 2 3 4 5 6 7, float32 0 1 2 3 4 5 6 7, int16 0 1 2 3 4 5 6 7, int32 0 1 2 3 4 5 6 7
#   opencv 4.12.0: halved: uint16 and int32 differ in 0 % of the pixels
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'EOF'
import cv2
import numpy as np

half = np.array([[1, 0, 0.5], [0, 1, 0]])
row = np.arange(8).reshape(1, 8)
shown = []
for kind in ("uint8", "uint16", "float32", "int16", "int32"):
    moved = cv2.warpAffine(row.astype(kind), half, (8, 1), flags=cv2.INTER_NEAREST)
    shown.append(f"{kind} {' '.join(str(int(v)) for v in moved[0])}")
print(f"opencv {cv2.__version__}: half a pixel: {', '.join(shown)}")
image = np.arange(48 * 64).reshape(48, 64)
crop = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]])
depth, labels = (cv2.warpAffine(image.astype(kind), crop, (32, 24), flags=cv2.INTER_NEAREST) for kind in ("uint16", "int32"))
print(f"opencv {cv2.__version__}: halved: uint16 and int32 differ in {100 * (depth != labels).mean():.0f} % of the pixels")
EOF
seen=""
for version in 5.0.0.93 4.12.0.88; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/python" -m pip install --quiet "opencv-python-headless==$version"
    seen+=$("$work/$version/bin/python" "$work/look.py")$'\n'
done
echo -n "$seen"
[ "$seen" = "opencv 5.0.0: half a pixel: uint8 0 0 2 2 4 4 6 6, uint16 0 0 2 2 4 4 6 6, float32 0 0 2 2 4 4 6 6, int16 0 1 2 3 4 5 6 7, int32 0 1 2 3 4 5 6 7
opencv 5.0.0: halved: uint16 and int32 differ in 100 % of the pixels
opencv 4.12.0: half a pixel: uint8 0 1 2 3 4 5 6 7, uint16 0 1 2 3 4 5 6 7, float32 0 1 2 3 4 5 6 7, int16 0 1 2 3 4 5 6 7, int32 0 1 2 3 4 5 6 7
opencv 4.12.0: halved: uint16 and int32 differ in 0 % of the pixels
" ]
