#!/usr/bin/env bash
# cv2.mean and cv2.sumElems of int32 are wrong from 2**29 on: some pixels are added four at a time in 32 bits.
#
# Versions: opencv-python-headless 5.0.0.93 and 4.12.0.88, Python 3.11, x86-64.
# Behaviour: both functions return double, and cv2.norm and cv2.meanStdDev of the same image are right. Of an image whose pixels all are
#   2**29, the mean of 2x2 pixels is -2**29. OpenCV 5 gets 4x4, 16x16 and 64x64 wrong too, by what one or a few groups of four are
#   too small, OpenCV 4.12 only sizes that leave such a rest. It depends on the size alone, so that a test with another size is right. Ids,
#   times and fixed-point values reach such numbers. Expected: the mean of equal numbers is that number.
# Output seen (mean - 2**29):
#   opencv 5.0.0: 2x2 -1073741824, 4x4 -1073741824, 5x5 0, 16x16 -67108864, 64x64 -4194304; meanStdDev 0
#   opencv 4.12.0: 2x2 -1073741824, 4x4 0, 5x5 -343597384, 16x16 0, 64x64 0; meanStdDev 0
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'EOF'
import cv2
import numpy as np

VALUE = 2**29
images = {size: np.full((size, size), VALUE, np.int32) for size in (2, 4, 5, 16, 64)}
found = ", ".join(f"{size}x{size} {cv2.mean(image)[0] - VALUE:.0f}" for size, image in images.items())
other = max(abs(cv2.meanStdDev(image)[0][0, 0] - VALUE) for image in images.values())
print(f"opencv {cv2.__version__}: {found}; meanStdDev {other:.0f}")
EOF
seen=""
for version in 5.0.0.93 4.12.0.88; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/python" -m pip install --quiet "opencv-python-headless==$version"
    seen+=$("$work/$version/bin/python" "$work/look.py")$'\n'
done
echo -n "$seen"
[ "$seen" = "opencv 5.0.0: 2x2 -1073741824, 4x4 -1073741824, 5x5 0, 16x16 -67108864, 64x64 -4194304; meanStdDev 0
opencv 4.12.0: 2x2 -1073741824, 4x4 0, 5x5 -343597384, 16x16 0, 64x64 0; meanStdDev 0
" ]
