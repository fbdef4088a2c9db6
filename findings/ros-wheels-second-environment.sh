#!/usr/bin/env bash
# A Python with ROS 2 wheels of PyPI cannot start the Python of another environment with such wheels.
#
# Versions: ros-wheels-bootstrapper 0.1.2, which every such wheel brings; ros-kilted-rclpy 9.1.2 starts ros-jazzy-rclpy 7.1.6;
#   Python 3.11, Linux x86-64.
# Behaviour: at start-up the bootstrapper sets LD_LIBRARY_PATH to its environment's libraries and a variable that says so, and
#   executes the interpreter anew. A child process inherits both, so that the other environment's Python believes that it is done
#   and misses its own libraries. What helps: take _ROS_WHEELS_BOOTSTRAP_COMPLETE and LD_LIBRARY_PATH out of the child's environment.
# Output seen:
#   inherited: ImportError: libfastrtps.so.2.14: cannot open shared object file: No such file or directory
#   cleaned: works
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/kilted"
"$folder/kilted/bin/pip" install --quiet ros-wheels-bootstrapper==0.1.2 ros-kilted-rclpy==9.1.2 ros-kilted-rmw-fastrtps-cpp==9.3.3
python3.11 -m venv "$folder/jazzy"
"$folder/jazzy/bin/pip" install --quiet ros-wheels-bootstrapper==0.1.2 ros-jazzy-rclpy==7.1.6 ros-jazzy-rmw-fastrtps-cpp==8.4.3
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
