"""An Orbbec camera and the pose node on its colour and registered depth images."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import camera_launch, include_or_say

CAMERA = "/camera"


def include_driver(context):  # type: ignore[no-untyped-def]
    return include_or_say(
        "orbbec_camera",
        LaunchConfiguration("driver_launch").perform(context),
        {"camera_name": "camera", "depth_registration": "true", "enable_frame_sync": "true"},
        "see OrbbecSDK_ROS2's installation page",
    )


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(
            "driver_launch", default_value="gemini_330_series.launch.py", description="the camera model's launch file"
        )
    ]
    defaults = {
        "rgb_topic": f"{CAMERA}/color/image_raw",
        "depth_topic": f"{CAMERA}/depth/image_raw",
        "camera_info_topic": f"{CAMERA}/color/camera_info",
        "input.sync": "approximate",
    }
    return camera_launch([OpaqueFunction(function=include_driver)], arguments, defaults)
