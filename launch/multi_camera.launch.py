"""One pose node for each camera, in the camera's namespace, with its tf frames prefixed by the camera's name.

ros2 launch rfdetr_foundationpose multi_camera.launch.py cameras:=left,right rgb_topic:=/{camera}/color/image_raw ...
"""

from launch.actions import DeclareLaunchArgument

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import launch_value, node_launch, start_node


def start_nodes(context):  # type: ignore[no-untyped-def]
    names = [n.strip() for n in launch_value(context, "cameras").split(",") if n.strip()]
    if len(names) != len(set(names)) or not names:
        raise ValueError(f"cameras:={','.join(names)} must be different names, separated by commas")
    return [action for name in names for action in start_node(context, name)]


def generate_launch_description() -> LaunchDescription:
    return node_launch(
        {
            "rgb_topic": "/{camera}/color/image_raw",
            "depth_topic": "/{camera}/aligned_depth_to_color/image_raw",
            "camera_info_topic": "/{camera}/color/camera_info",
            "input.sync": "approximate",
        },
        [DeclareLaunchArgument("cameras", default_value="left,right", description="names, separated by commas")],
        [start_nodes],
    )
