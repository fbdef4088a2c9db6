"""A ZED camera and the pose node on its rectified colour and registered depth images (topic names of wrapper 5)."""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import camera_launch, include_or_say

CAMERA = "/zed/zed_node"


def generate_launch_description() -> LaunchDescription:
    arguments = [DeclareLaunchArgument("camera_model", default_value="zed2i", description="zed2i, zedx, zedm, ...")]
    driver = include_or_say(
        "zed_wrapper",
        "zed_camera.launch.py",
        {"camera_model": LaunchConfiguration("camera_model"), "camera_name": "zed"},
        "see the ZED ROS 2 wrapper's installation page",
    )
    defaults = {
        "rgb_topic": f"{CAMERA}/rgb/color/rect/image",
        "depth_topic": f"{CAMERA}/depth/depth_registered",
        "camera_info_topic": f"{CAMERA}/rgb/color/rect/camera_info",
    }
    return camera_launch(driver, arguments, defaults)
