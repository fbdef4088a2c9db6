#!/usr/bin/env bash
# OpenCV 5 has 64-bit integers, and its Python module cuts those of numpy down to 32 bits without a word.
#
# Versions: opencv-python-headless 5.0.0.93, numpy 2.4, Python 3.11.
# Behaviour: numpy makes int64 of Python's integers, so that stamps in ns, packed ids of instances and sums of pixels are that. Whatever is
#   given to cv2 as int64 or uint64 becomes int32 by its low 32 bits before a function sees it: resize, flip and minMaxLoc of an
#   image of 3000000000 have -1294967296, of 2**40 + 5 they have 5, and two images of 2**31 - 1 add up to -2. Since version 5 the library
#   itself knows CV_64S and CV_64U. Expected: these types, or an error as for complex numbers.
# Output seen:
#   int64 1200: resize int32 1200, flip 1200, largest 1200
#   int64 3000000000: resize int32 -1294967296, flip -1294967296, largest -1294967296
#   int64 1099511627781: resize int32 5, flip 5, largest 5
#   uint64 3000000000: resize int32 -1294967296, flip -1294967296, largest -1294967296
#   complex128: error
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet opencv-python-headless==5.0.0.93 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import cv2
import numpy as np

assert hasattr(cv2, "CV_64S") and hasattr(cv2, "CV_64U")
for kind, value in (("int64", 1200), ("int64", 3_000_000_000), ("int64", 2**40 + 5), ("uint64", 3_000_000_000)):
    image = np.full((2, 2), value, kind)
    small = cv2.resize(image, (1, 1), interpolation=cv2.INTER_NEAREST)
    print(
        f"{kind} {value}: resize {small.dtype} {small[0, 0]}, flip {cv2.flip(image, 0)[0, 0]}, "
        f"largest {cv2.minMaxLoc(image)[1]:.0f}"
    )
try:
    cv2.flip(np.zeros((2, 2), np.complex128), 0)
    print("complex128: taken")
except cv2.error:
    print("complex128: error")
EOF
seen=$("$work/venv/bin/python" "$work/look.py" 2> /dev/null)
echo "$seen"
[ "$seen" = "int64 1200: resize int32 1200, flip 1200, largest 1200
int64 3000000000: resize int32 -1294967296, flip -1294967296, largest -1294967296
int64 1099511627781: resize int32 5, flip 5, largest 5
uint64 3000000000: resize int32 -1294967296, flip -1294967296, largest -1294967296
complex128: error" ]
