#!/usr/bin/env bash
# Installs the package on a robot, into the colcon workspace given: scripts/install-robot.sh [--dry-run] [WORKSPACE]
# Source ROS before: source /opt/ros/<distribution>/setup.bash. --dry-run prints what would be done.
set -euo pipefail
dry=
[ "${1:-}" != --dry-run ] || { dry=1; shift; }
workspace=${1:-$HOME/ws}
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

run() { echo "+ $*"; [ -n "$dry" ] || "$@"; }
fail() { echo "$*" >&2; exit 1; }

case "${ROS_DISTRO:-}" in
  humble | jazzy | kilted) ;;
  lyrical) echo "Lyrical: written from its documentation, not run" ;;
  "") fail "ROS is not sourced: source /opt/ros/<distribution>/setup.bash" ;;
  *) fail "ROS_DISTRO=$ROS_DISTRO is none of humble, jazzy, kilted, lyrical" ;;
esac
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "python3 is older than 3.10"

packages=(python3-venv python3-colcon-common-extensions)
# tf2_ros_py, not tf2_ros: that is the C++ library.
for name in rmw-fastrtps-cpp sensor-msgs visualization-msgs diagnostic-msgs tf2-ros-py vision-msgs message-filters cv-bridge \
  ros2launch ros2bag rosbag2-storage-mcap; do
  packages+=("ros-$ROS_DISTRO-$name")
done
run sudo apt-get install -y "${packages[@]}"

run mkdir -p "$workspace/src"
[ -e "$workspace/src/rfdetr_foundationpose" ] || run ln -s "$source_folder" "$workspace/src/rfdetr_foundationpose"
# Sees apt's ROS packages; colcon must not look for packages in it.
run python3 -m venv --system-site-packages "$workspace/venv"
run touch "$workspace/venv/COLCON_IGNORE"
# ROS's compiled Python (messages, cv_bridge) is built against the distribution's numpy: its major version stays.
numpy=$(python3 -c 'import numpy; print(numpy.__version__.split(".")[0])' 2>/dev/null || echo 1)
run "$workspace/venv/bin/pip" install "$source_folder" "numpy>=$numpy,<$((numpy + 1))"
# venv's python -m colcon, not colcon: the latter would write /usr/bin/python3 into the node's first line.
run env -C "$workspace" venv/bin/python -m colcon build --packages-select rfdetr_foundationpose
cat <<END
done. In every shell:
  source /opt/ros/$ROS_DISTRO/setup.bash && source $workspace/venv/bin/activate && source $workspace/install/setup.bash
  rfdetr-foundationpose doctor
  ros2 launch rfdetr_foundationpose realsense.launch.py objects_file:=/path/to/objects.yaml
END
