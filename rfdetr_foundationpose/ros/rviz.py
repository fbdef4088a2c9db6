"""What rviz is started with: config/pose.rviz has the default names, which remappings replace. Only launch files import it."""

from __future__ import annotations

from typing import Any

from .launch_support import TOPICS, launch_value, placed

OUTPUTS = ("debug_image", "markers", "detections")


def remappings(context: Any) -> list[tuple[str, str]]:
    """From the topics of config/pose.rviz to those of the arguments."""
    namespace, name = placed(context)
    node = absolute(name, namespace)
    found = [(f"/pose_node/{output}", f"{node}/{output}") for output in OUTPUTS]
    for argument, (topic, _) in TOPICS.items():
        found.append((f"/{topic}", absolute(launch_value(context, argument), namespace)))
    depth = absolute(launch_value(context, "depth_topic"), namespace)
    # DepthCloud takes the calibration beside the depth images.
    found.append(("/depth/camera_info", f"{depth.rsplit('/', 1)[0]}/camera_info"))
    return [(one, other) for one, other in found if one != other]


def absolute(topic: str, namespace: str) -> str:
    """A topic name as the node in that namespace resolves it."""
    return topic if topic.startswith("/") else "/" + "/".join(part for part in (namespace, topic) if part)
