"""A ZED camera and the pose node on its rectified colour and registered depth images (topic names of wrapper 5).

Other arguments of zed_camera.launch.py may be given as well: svo_path:=/path/to/file.svo2
"""

from launch.actions import DeclareLaunchArgument

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import camera_launch

CAMERA = "/zed/zed_node"


def generate_launch_description() -> LaunchDescription:
    return camera_launch(
        "zed_wrapper",
        "zed_camera.launch.py",
        {"camera_model": "{camera_model}", "camera_name": "zed", "node_name": "zed_node"},
        "see the ZED ROS 2 wrapper's installation page",
        {
            "rgb_topic": f"{CAMERA}/rgb/color/rect/image",
            "depth_topic": f"{CAMERA}/depth/depth_registered",
            "camera_info_topic": f"{CAMERA}/rgb/color/rect/camera_info",
        },
        [DeclareLaunchArgument("camera_model", default_value="zed2i", description="zed2i, zedx, zedm, ...")],
    )
