#!/usr/bin/env bash
# Who waits for a QoS event of a subscription is woken at once, again and again, while a message waits to be taken there.
#
# Versions: the wheels ros-kilted-rclpy 9.1.2, ros-kilted-rmw-fastrtps-cpp 9.3.3 and ros-kilted-std-msgs 5.5.1 (ROS 2 Kilted), Python 3.11,
#   Linux x86-64.
# Behaviour: a wait set that holds nothing but the event "incompatible QoS" of a subscription, with a timeout of 0.1 s, returns after
#   microseconds, the event not ready, as long as the subscription has a message; once that is taken, each wait takes its 0.1 s. rclpy gives
#   subscriptions such events by default and executors wait for them, also where the subscription itself is not waited for
#   (its callback group is busy, or another thread takes its messages): the executor then spins until the message is taken.
# Output seen (the first number varies):
#   waits of 0.1 s that ended in a second, no event ready: 580719 while a message waits, 10 after it was taken
# Exits with 1 when waits last as long in both cases, or when an event was ready.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ros-kilted-rclpy==9.1.2 ros-kilted-rmw-fastrtps-cpp==9.3.3 ros-kilted-std-msgs==5.5.1
cat > "$folder/wait.py" <<'PYTHON'
import time

import rclpy
from rclpy.event_handler import QoSSubscriptionEventType
from rclpy.impl.implementation_singleton import rclpy_implementation
from std_msgs.msg import String

rclpy.init()
node = rclpy.create_node("waiting")
subscription = node.create_subscription(String, "words", lambda _: None, 10)
publisher = node.create_publisher(String, "words", 10)
kind = QoSSubscriptionEventType.RCL_SUBSCRIPTION_REQUESTED_INCOMPATIBLE_QOS
event = next(e for e in subscription.event_handlers if e.event_type == kind)
waits = rclpy_implementation.WaitSet(0, 0, 0, 0, 0, 1, rclpy.get_default_context().handle)
ready = False


def count():
    global ready
    ended, end = 0, time.monotonic() + 1
    while time.monotonic() < end:
        waits.clear_entities()
        event.add_to_wait_set(waits)
        waits.wait(100_000_000)
        ready = ready or event.is_ready(waits)
        ended += 1
    return ended


while publisher.get_subscription_count() == 0:
    time.sleep(0.05)
publisher.publish(String(data="hello"))
time.sleep(0.5)
before = count()
with subscription.handle:
    taken = subscription.handle.take_message(String, False)
assert taken is not None and taken[0].data == "hello"
after = count()
print(f"waits of 0.1 s that ended in a second, no event ready: {before} while a message waits, {after} after it was taken")
node.destroy_node()
rclpy.shutdown()
raise SystemExit(0 if before > 100 and after < 20 and not ready else 1)
PYTHON
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" "$folder/wait.py"
