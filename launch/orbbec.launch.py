"""An Orbbec camera and the pose node on its colour and registered depth images.

Other arguments of the camera model's launch file may be given as well: color_width:=1280 color_height:=720
"""

from launch.actions import DeclareLaunchArgument

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import camera_launch

CAMERA = "/camera"


def generate_launch_description() -> LaunchDescription:
    return camera_launch(
        "orbbec_camera",
        "{driver_launch}",
        {"camera_name": "camera", "depth_registration": "true", "enable_frame_sync": "true"},
        "see OrbbecSDK_ROS2's installation page",
        {
            "rgb_topic": f"{CAMERA}/color/image_raw",
            "depth_topic": f"{CAMERA}/depth/image_raw",
            "camera_info_topic": f"{CAMERA}/color/camera_info",
            "input.sync": "approximate",
        },
        [
            DeclareLaunchArgument(
                "driver_launch",
                default_value="gemini_330_series.launch.py",
                description="the camera model's launch file",
            )
        ],
    )
