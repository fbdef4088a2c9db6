#!/usr/bin/env bash
# Equal messages that rclpy serializes with Fast DDS have different bytes: what fills a gap between aligned fields is left to chance.
#
# Versions: the wheels ros-kilted-rclpy 9.1.2, ros-kilted-rmw-fastrtps-cpp 9.3.3 and ros-kilted-geometry-msgs 5.5.1 (ROS 2 Kilted),
#   Python 3.11, Linux x86-64.
# Behaviour: serialize_message of one and the same PoseStamped, between other messages, gives several byte strings. They differ only in the
#   bytes between the end of frame_id and the next number, which is aligned to eight; all are read back as the same message. So a
#   checksum of serialized messages, or of a bag, says nothing about whether two runs published the same; compare what is read.
# Output seen (the number of different strings varies):
#   7 byte strings of 300 equal messages; they differ at bytes 23 to 27 of 84; all are read as the message: True
# Exits with 1 when all bytes are equal, when they differ elsewhere, or when one is read as another message.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ros-kilted-rclpy==9.1.2 ros-kilted-rmw-fastrtps-cpp==9.3.3 ros-kilted-geometry-msgs==5.5.1
cat > "$folder/serialize.py" <<'PYTHON'
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import String


def pose():
    message = PoseStamped()
    message.header.frame_id = "camera"
    message.pose.orientation.w = 1.0
    return message


found = []
for i in range(300):
    serialize_message(String(data=chr(97 + i % 26) * (40 + i % 60)))
    found.append(bytes(serialize_message(pose())))
kinds = sorted(set(found))
where = sorted({i for one in kinds for i in range(len(one)) if one[i] != kinds[0][i]})
same = all(deserialize_message(one, PoseStamped) == pose() for one in kinds)
end = 4 + 8 + 4 + len("camera") + 1
span = f"bytes {where[0]} to {where[-1]}" if where else "no byte"
print(f"{len(kinds)} byte strings of 300 equal messages; they differ at {span} of {len(kinds[0])}; all are read as the message: {same}")
raise SystemExit(0 if len(kinds) > 1 and same and set(where) <= set(range(end, end + 8)) else 1)
PYTHON
"$folder/venv/bin/python" "$folder/serialize.py"
