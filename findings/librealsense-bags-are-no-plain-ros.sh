#!/usr/bin/env bash
# ROS 1 bags that librealsense records (realsense-viewer, rs2::recorder) are no plain ROS 1: images end with four bytes more, all frames
# have the same name although depth is not registered to colour, and transforms map the other way than TF's.
#
# Versions: pyrealsense2 2.55.1.6486, rosbags 0.11.9, numpy 2.4, Python 3.11. (pyrealsense2 2.59 records .db3 of rosbag2 alone, with
#   frames of their own and /tf_static.)
# Behaviour: recorded is a software device with a depth and a colour stream, 15 mm apart, of different focal lengths.
#   1. sensor_msgs/Image has the md5sum of the ROS type, but behind its pixels follows the unit of depth as a float, 0 for colour.
#      rosbags holds the length of messages against their type and refuses every image; roscpp and rospy ignore what follows.
#   2. header.frame_id is the number of the reference of the extrinsics, the same for both streams. Whoever takes equal frames for
#      registered images puts depth on wrong pixels.
#   3. /device_0/sensor_1/Color_0/tf/1, a geometry_msgs/Transform, maps points of the reference (depth) to colour: +15 mm. TF has
#      the place of the child in the parent, which would be -15 mm.
# Output seen:
#   Color_0: 6916 bytes, 6912 of pixels: ROS1 message size mismatch; rest 0.0; frame 1; transform 0.015
#   Depth_0: 4612 bytes, 4608 of pixels: ROS1 message size mismatch; rest 0.001; frame 1; transform 0.000
# Exits with 1 when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyrealsense2==2.55.1.6486 rosbags==0.11.9 "numpy==2.4.*"

cat > "$folder/record.py" <<'PY'
import sys
import time

import numpy as np
import pyrealsense2 as rs

W, H = 48, 48
path = sys.argv[1] + "/a.bag"


def stream(kind, uid, size, format, focal):
    s = rs.video_stream()
    s.type, s.index, s.uid, s.width, s.height, s.fps, s.bpp, s.fmt = kind, 0, uid, W, H, 30, size, format
    i = rs.intrinsics()
    i.width, i.height, i.fx, i.fy, i.ppx, i.ppy, i.model, i.coeffs = W, H, focal, focal, 24, 24, rs.distortion.none, [0] * 5
    s.intrinsics = i
    return s


device = rs.software_device()
sensors = device.add_sensor("Depth"), device.add_sensor("Color")
profiles = (
    sensors[0].add_video_stream(stream(rs.stream.depth, 1, 2, rs.format.z16, 40)),
    sensors[1].add_video_stream(stream(rs.stream.color, 2, 3, rs.format.rgb8, 60)),
)
sensors[0].add_read_only_option(rs.option.depth_units, 0.001)
apart = rs.extrinsics()
apart.rotation, apart.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [0.015, 0, 0]
profiles[0].register_extrinsics_to(profiles[1], apart)
recorder = rs.recorder(path, device)
queue = rs.frame_queue(10)
opened = recorder.query_sensors()
for s in opened:
    s.open(s.get_stream_profiles()[0])
    s.start(queue)
pixels = np.full((H, W), 800, np.uint16), np.full((H, W, 3), 60, np.uint8)
for sensor, profile, array, size in zip(sensors, profiles, pixels, (2, 3), strict=True):
    f = rs.software_video_frame()
    f.pixels, f.stride, f.bpp, f.timestamp, f.frame_number = array, W * size, size, 1000.0, 1
    f.domain, f.profile = rs.timestamp_domain.hardware_clock, profile.as_video_stream_profile()
    sensor.on_video_frame(f)
    time.sleep(0.2)
for s in opened:
    s.stop()
    s.close()
PY

cat > "$folder/read.py" <<'PY'
import struct
import sys

from rosbags.rosbag1 import Reader
from rosbags.typesys import Stores, get_typestore

path = sys.argv[1] + "/a.bag"
store, found, moved = get_typestore(Stores.ROS1_NOETIC), {}, {}
with Reader(path) as reader:
    for connection, _, raw in reader.messages():
        name = connection.topic.split("/")[3] if connection.topic.count("/") > 3 else ""
        if connection.topic.endswith("/tf/1"):
            moved[name] = store.deserialize_ros1(raw, connection.msgtype).translation.x
        if connection.topic.endswith("/image/data"):
            at = raw.index(b"mono16" if name == "Depth_0" else b"rgb8")
            at += (6 if name == "Depth_0" else 4) + 5
            (length,) = struct.unpack_from("<I", raw, at)
            (unit,) = struct.unpack("<f", raw[at + 4 + length :])
            try:
                store.deserialize_ros1(raw, connection.msgtype)
                said = "read"
            except Exception as error:
                said = str(error).split(" for ")[0]
            frame = raw[20 - 4 : 20 - 4 + struct.unpack_from("<I", raw, 12)[0]].decode()
            found[name] = (len(raw) - at - 4, length, said, round(unit, 6), frame)
for name, (size, length, said, unit, frame) in sorted(found.items()):
    print(f"{name}: {size} bytes, {length} of pixels: {said}; rest {unit}; frame {frame}; transform {moved[name]:.3f}")
same = all(f[0] == f[1] + 4 and "mismatch" in f[2] and f[3] in (0.0, 0.001) and f[4] == "1" for f in found.values())
sys.exit(0 if same and len(found) == 2 and abs(moved["Color_0"] - 0.015) < 1e-6 and moved["Depth_0"] == 0 else 1)
PY
"$folder/venv/bin/python" "$folder/record.py" "$folder"
"$folder/venv/bin/python" "$folder/read.py" "$folder"
