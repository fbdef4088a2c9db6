"""Where ROS writes its logs. Needs no rclpy."""

from __future__ import annotations

import os
from pathlib import Path

from ..resources import cache_root


def log_environment() -> dict[str, str]:
    """ROS_LOG_DIR where ROS's own folder, ~/.ros/log, cannot be written: rclpy does not start then. Else nothing."""
    if os.environ.get("ROS_LOG_DIR") or os.environ.get("ROS_HOME"):
        return {}
    try:
        usual = Path("~/.ros/log").expanduser()
        usual.mkdir(parents=True, exist_ok=True)
        if os.access(usual, os.W_OK):
            return {}
    except (OSError, RuntimeError):
        pass
    folder = cache_root() / "ros-log"
    folder.mkdir(parents=True, exist_ok=True)
    return {"ROS_LOG_DIR": str(folder)}
