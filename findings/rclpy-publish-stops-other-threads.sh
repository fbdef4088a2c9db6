#!/usr/bin/env bash
# While rclpy publishes, no other Python thread runs: also of bytes that need no conversion, until the middleware has copied them.
#
# Versions: the wheels ros-kilted-rclpy 9.1.2, ros-kilted-rmw-fastrtps-cpp 9.3.3 and ros-kilted-std-msgs 5.5.1 (ROS 2 Kilted), Python 3.11,
#   Linux x86-64.
# Behaviour: a thread that counts gets nowhere while another one publishes 60 MB that were serialized before, which takes some 40 ms,
#   though rclpy releases the interpreter's lock where it waits. An image of 1280x720 holds all threads up for 3 ms. What helps: rcl's own
#   rcl_publish_serialized_message by ctypes, which releases it, and makes no copy of the bytes first.
# Output seen (the numbers vary):
#   the counting thread's share of its speed while bytes are published: 0.12 by rclpy in 41 ms, 0.61 by rcl in 10 ms
# Exits with 1 when the thread counts at more than half as fast beside rclpy as beside rcl.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ros-kilted-rclpy==9.1.2 ros-kilted-rmw-fastrtps-cpp==9.3.3 ros-kilted-std-msgs==5.5.1
cat > "$folder/publish.py" <<'PYTHON'
import ctypes
import sys
import threading
import time

import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.serialization import serialize_message
from std_msgs.msg import String


class Bytes(ctypes.Structure):
    """rcutils_uint8_array_t; its allocator, five pointers, is not used here."""

    _fields_ = (
        ("buffer", ctypes.c_char_p),
        ("length", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("allocator", ctypes.c_void_p * 5),
    )


sys.setswitchinterval(1e-4)
rclpy.init()
node = rclpy.create_node("publishing")
publisher = node.create_publisher(String, "words", 1)
message = bytes(serialize_message(String(data="x" * 60_000_000)))
rcl = ctypes.CDLL(rclpy_implementation.__file__).rcl_publish_serialized_message
rcl.argtypes = [ctypes.c_void_p, ctypes.POINTER(Bytes), ctypes.c_void_p]


def by_rcl():
    with publisher.handle:
        assert rcl(publisher.handle.pointer, ctypes.byref(Bytes(message, len(message), len(message))), None) == 0


count, stop = 0, False


def run():
    global count
    while not stop:
        count += 1


thread = threading.Thread(target=run)
thread.start()


def speed(action):
    """Counts a second, and seconds: of several runs that in which the other thread came farthest."""
    found = []
    for _ in range(15):
        time.sleep(0.05)
        known, begin = count, time.perf_counter()
        action()
        done, took = count - known, time.perf_counter() - begin
        found.append((done / took, took))
    return max(found)


alone, _ = speed(lambda: time.sleep(0.05))
(rclpys, first), (rcls, second) = speed(lambda: publisher.publish(message)), speed(by_rcl)
stop = True
thread.join()
print(
    f"the counting thread's share of its speed while bytes are published: {rclpys / alone:.2f} by rclpy in {first * 1e3:.0f} ms, "
    f"{rcls / alone:.2f} by rcl in {second * 1e3:.0f} ms"
)
node.destroy_node()
rclpy.shutdown()
raise SystemExit(0 if rclpys < 0.5 * rcls else 1)
PYTHON
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" "$folder/publish.py"
