#!/usr/bin/env bash
# rosbags-image shears images whose rows are padded, and reads NV12 as drivers send it wrongly.
#
# Versions: rosbags-image 0.10.4, rosbags 0.11.9, opencv-python-headless 4.12.0.88, Python 3.11.
# Behaviour: it takes sensor_msgs/Image apart without looking at `step`, and NV12 as if `height` counted the rows of both planes.
#   Neither raises an error: rows with padding come out sheared, each shifted by the padding of all rows above, and an NV12 image
#   whose height is that of the picture loses the lower third and takes its colours from brightness.
# Output seen:
#   rows that begin with white: 24 of 48
#   NV12 of 48 rows: (32, 64, 3)
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosbags==0.11.9 rosbags-image==0.10.4 opencv-python-headless==4.12.0.88
cat > "$folder/read.py" <<'PYTHON'
import numpy as np
from rosbags.image import message_to_cvimage
from rosbags.typesys import Stores, get_typestore

T = get_typestore(Stores.ROS2_HUMBLE).types
header = T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](0, 0), "camera")

def image(height, width, encoding, step, data):
    return T["sensor_msgs/msg/Image"](header, height, width, encoding, 0, step, np.ascontiguousarray(data).reshape(-1))

# A white left half, rows of 60 pixels padded to 64: every row begins with white.
pixels = np.zeros((48, 64), np.uint8)
pixels[:, :30] = 255
seen = message_to_cvimage(image(48, 60, "mono8", 64, pixels))
print("rows that begin with white:", int((seen[:, 0] == 255).sum()), "of 48")
# A grey picture of 48 x 64 in NV12: 48 rows of brightness, then 24 of colour, which is 128 for grey.
nv12 = np.full((72, 64), 128, np.uint8)
print("NV12 of 48 rows:", message_to_cvimage(image(48, 64, "nv12", 64, nv12), "bgr8").shape)
PYTHON
said=$("$folder/venv/bin/python" "$folder/read.py")
echo "$said"
[ "$said" = "rows that begin with white: 24 of 48
NV12 of 48 rows: (32, 64, 3)" ]
