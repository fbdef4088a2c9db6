#!/usr/bin/env bash
# A QoS parameter of one subscription also changes the next one, where both were given the same QoSProfile object.
#
# Versions: the wheels ros-kilted-rclpy 9.1.2, ros-kilted-rmw-fastrtps-cpp 9.3.3 and ros-kilted-std-msgs 5.5.1 (ROS 2 Kilted), Python 3.11,
#   Linux x86-64.
# Behaviour: create_subscription (and create_publisher) with qos_overriding_options writes the values of the qos_overrides parameters into
#   the profile that it is given. Who makes one profile for two topics gives the second the first one's overrides, also as the default
#   value of the parameter that is declared for it. What helps: a profile for each.
# Output seen:
#   shared profile: depth of /a 77, of /b 77, parameter of /b 77, the caller's profile 77
#   one for each: depth of /a 77, of /b 3, parameter of /b 3
# Exits with 1 when /b keeps its depth of 3 with the shared profile, or has another one with its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ros-kilted-rclpy==9.1.2 ros-kilted-rmw-fastrtps-cpp==9.3.3 ros-kilted-std-msgs==5.5.1
cat > "$folder/overrides.py" <<'PYTHON'
import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import String

rclpy.init()


def depths(profile_of):
    node = rclpy.create_node("two", parameter_overrides=[Parameter("qos_overrides./a.subscription.depth", value=77)])
    made = {
        topic: node.create_subscription(
            String, topic, lambda _: None, profile_of(topic), qos_overriding_options=QoSOverridingOptions.with_default_policies()
        )
        for topic in ("/a", "/b")
    }
    found = [made["/a"].qos_profile.depth, made["/b"].qos_profile.depth, node.get_parameter("qos_overrides./b.subscription.depth").value]
    node.destroy_node()
    return found


shared = QoSProfile(depth=3)
together = [*depths(lambda _: shared), shared.depth]
apart = depths(lambda _: QoSProfile(depth=3))
print("shared profile: depth of /a {}, of /b {}, parameter of /b {}, the caller's profile {}".format(*together))
print("one for each: depth of /a {}, of /b {}, parameter of /b {}".format(*apart))
rclpy.shutdown()
raise SystemExit(0 if together == [77] * 4 and apart == [77, 3, 3] else 1)
PYTHON
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" "$folder/overrides.py"
