#!/usr/bin/env bash
# A LifecycleNode of rclpy that was destroyed, in a context that was shut down, stays in the graph and in /dev/shm.
#
# Versions: the wheels ros-kilted-rclpy 9.1.2 and ros-kilted-rmw-fastrtps-cpp 9.3.3 (ROS 2 Kilted), Python 3.11, Linux.
# Behaviour: destroy_node() does not destroy the life cycle's state machine, and shutdown() does not destroy the context, so that
#   the participant lives until both are collected; with gc.freeze() (or gc off and a reference cycle) that is never, and the
#   process leaves its shared-memory segments behind when it exits normally ("plain" below).
#   What helps: node._state_machine.destroy_when_not_in_use() after destroy_node(), and context.destroy() after shutdown()
#   ("helped"). A plain Node needs only the context's destroy().
# Output seen:
#   plain: 1 of 1 segments are left after the process
#   helped: 0 of 1 segments are left after the process
# Exits with 1 when none is left of the first, or one of the second.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ros-kilted-rclpy==9.1.2 ros-kilted-rmw-fastrtps-cpp==9.3.3
cat > "$folder/node.py" <<'PYTHON'
import gc, sys
from pathlib import Path
import rclpy
from rclpy.lifecycle import LifecycleNode

rclpy.init()
node = LifecycleNode("left_behind")
mine = [l.readlink() for l in Path("/proc/self/fd").iterdir() if "/dev/shm/fastdds_" in str(l.resolve())]
mine = [Path(str(p).removesuffix("_el")) for p in mine if "_port" not in p.name]
node.destroy_node()
if sys.argv[1] == "helped":
    node._state_machine.destroy_when_not_in_use()
rclpy.shutdown()
if sys.argv[1] == "helped":
    rclpy.get_default_context().destroy()
gc.freeze()
Path(sys.argv[2]).write_text("\n".join(map(str, mine)))
PYTHON
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=177
for how in plain helped; do
  "$folder/venv/bin/python" "$folder/node.py" $how "$folder/segments"
  left=0
  while read -r path || [ -n "$path" ]; do [ ! -e "$path" ] || { left=$((left + 1)); rm -f "$path" "${path}_el"; }; done < "$folder/segments"
  echo "$how: $left of $(grep -c . "$folder/segments") segments are left after the process"
  case $how in plain) [ "$left" -gt 0 ];; helped) [ "$left" = 0 ];; esac
done
