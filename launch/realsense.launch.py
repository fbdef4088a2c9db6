"""A RealSense camera and the pose node on its colour and aligned depth images."""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import camera_launch, include_or_say

CAMERA = "/camera/camera"


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("serial_no", default_value="''", description="serial number; empty takes any camera"),
        DeclareLaunchArgument(
            "color_profile", default_value="1280x720x30", description="width x height x rate of colour"
        ),
        DeclareLaunchArgument(
            "depth_profile", default_value="848x480x30", description="width x height x rate of depth"
        ),
    ]
    driver = include_or_say(
        "realsense2_camera",
        "rs_launch.py",
        {
            "serial_no": LaunchConfiguration("serial_no"),
            "rgb_camera.color_profile": LaunchConfiguration("color_profile"),
            "depth_module.depth_profile": LaunchConfiguration("depth_profile"),
            "align_depth.enable": "true",
            "enable_sync": "true",
        },
        "apt install ros-$ROS_DISTRO-realsense2-camera",
    )
    defaults = {
        "rgb_topic": f"{CAMERA}/color/image_raw",
        "depth_topic": f"{CAMERA}/aligned_depth_to_color/image_raw",
        "camera_info_topic": f"{CAMERA}/color/camera_info",
        "input.sync": "approximate",
    }
    return camera_launch(driver, arguments, defaults)
