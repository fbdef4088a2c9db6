#!/usr/bin/env bash
# ros-wheels-bootstrapper 0.1.2, which every ROS 2 wheel on PyPI brings: a Python of one environment with such wheels cannot start
# the Python of another one. At start-up it sets LD_LIBRARY_PATH to its environment's libraries and a variable that says so,
# and executes itself anew; a child process inherits both, so the other environment's Python believes that it is done and
# misses its own libraries. Seen with ros-kilted-rclpy 9.1.2 starting ros-jazzy-rclpy 7.1.6 on Python 3.11: "ImportError:
# libfastrtps.so.2.14: cannot open shared object file". Without _ROS_WHEELS_BOOTSTRAP_COMPLETE and LD_LIBRARY_PATH it works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for distribution in kilted jazzy; do
  python3.11 -m venv "$folder/$distribution"
  "$folder/$distribution/bin/pip" install --quiet "ros-$distribution-rclpy" "ros-$distribution-rmw-fastrtps-cpp"
done
cat > "$folder/start.py" <<'PYTHON'
import os, subprocess, sys

import rclpy

environment = dict(os.environ)
if sys.argv[2] == "cleaned":
    for name in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH"):
        environment.pop(name)
done = subprocess.run([sys.argv[1], "-c", "import rclpy; rclpy.init(); print('works')"], env=environment, capture_output=True, text=True)
print(done.stdout.strip() or next(line for line in done.stderr.splitlines() if line.startswith("ImportError")))
PYTHON
unset LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
inherited=$("$folder/kilted/bin/python" "$folder/start.py" "$folder/jazzy/bin/python" inherited); echo "inherited: $inherited"
cleaned=$("$folder/kilted/bin/python" "$folder/start.py" "$folder/jazzy/bin/python" cleaned); echo "cleaned: $cleaned"
case $inherited in *"cannot open shared object file"*) ;; *) exit 1;; esac
[ "$cleaned" = works ]
