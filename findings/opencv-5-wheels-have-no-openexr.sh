#!/usr/bin/env bash
# The wheels of OpenCV 5 read no OpenEXR, whatever OPENCV_IO_ENABLE_OPENEXR says; those of OpenCV 4 did.
#
# Versions: opencv-python-headless 4.12.0.88 and 5.0.0.93, numpy 2.2.6, Python 3.11, Linux x86-64.
# Behaviour: depth of Blender, BlenderProc and Record3D comes as EXR, and imread with OPENCV_IO_ENABLE_OPENEXR=1 is what their examples
#   read it with. With 5.0.0.93 imread returns None, without an exception and without a word on the console, as for a file that is not there;
#   haveImageReader says False, and getBuildInformation "OpenEXR: NO".
#   What helps: the package OpenEXR, or imageio with its plugin; .npy or TIFF of 32 bits from the start.
# Output seen:
#   4.12.0: reader True, pixel 1.5
#   5.0.0: reader False, imread None
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OPENCV_IO_ENABLE_OPENEXR=1
for version in 4.12.0.88 5.0.0.93; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "opencv-python-headless==$version" numpy==2.2.6
done
"$folder/4.12.0.88/bin/python" - "$folder/depth.exr" <<'PY'
import sys

import cv2
import numpy as np

assert cv2.imwrite(sys.argv[1], np.full((4, 4), 1.5, np.float32))
print(f"{cv2.__version__}: reader {cv2.haveImageReader(sys.argv[1])}, pixel {cv2.imread(sys.argv[1], cv2.IMREAD_UNCHANGED)[0, 0]}")
PY
"$folder/5.0.0.93/bin/python" - "$folder/depth.exr" <<'PY'
import sys

import cv2

reader, image = cv2.haveImageReader(sys.argv[1]), cv2.imread(sys.argv[1], cv2.IMREAD_UNCHANGED)
print(f"{cv2.__version__}: reader {reader}, imread {image}")
sys.exit(0 if not reader and image is None and any("OpenEXR" in x and "NO" in x for x in cv2.getBuildInformation().splitlines()) else 1)
PY
