"""The one seam to ROS packages that not every install has, and what is missing without them."""

from __future__ import annotations

import importlib
from types import ModuleType


def _optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


tf2_ros = _optional("tf2_ros")
vision_msgs = _optional("vision_msgs.msg")
message_filters = _optional("message_filters")
cv_bridge = _optional("cv_bridge")

# Each row has an import name, its apt package (Python's tf2_ros is in tf2_ros_py), a module, and the consequence of its absence.
_CONSEQUENCES = (
    ("tf2_ros", "tf2-ros-py", tf2_ros, "no /tf is broadcast; poses are on ~/pose/<object>"),
    ("vision_msgs", "vision-msgs", vision_msgs, "no ~/detections (Detection3DArray); poses are on ~/pose/<object>"),
)


def missing() -> list[str]:
    """One sentence for each optional package that is not installed, with the consequence and the apt name."""
    return [
        f"{name} is not installed: {consequence} (apt install ros-$ROS_DISTRO-{package})"
        for name, package, module, consequence in _CONSEQUENCES
        if module is None
    ]
