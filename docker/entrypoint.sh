#!/usr/bin/env bash
# ROS, this package, then the command.
set -e
. "/opt/ros/$ROS_DISTRO/setup.bash"
. /ws/install/setup.bash
exec "$@"
