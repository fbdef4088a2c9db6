"""A RealSense camera and the pose node on its colour and aligned depth images (topic names of realsense-ros 4.55 and newer).

Other arguments of rs_launch.py may be given as well: decimation_filter.enable:=true
"""

from launch.actions import DeclareLaunchArgument

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import camera_launch

CAMERA = "/camera/camera"


def generate_launch_description() -> LaunchDescription:
    return camera_launch(
        "realsense2_camera",
        "rs_launch.py",
        {
            "camera_namespace": "camera",
            "camera_name": "camera",
            "serial_no": "{serial_no}",
            "rgb_camera.color_profile": "{color_profile}",
            "depth_module.depth_profile": "{depth_profile}",
            "align_depth.enable": "true",
            "enable_sync": "true",
        },
        "apt install ros-$ROS_DISTRO-realsense2-camera",
        {
            "rgb_topic": f"{CAMERA}/color/image_raw",
            "depth_topic": f"{CAMERA}/aligned_depth_to_color/image_raw",
            "camera_info_topic": f"{CAMERA}/color/camera_info",
            "input.sync": "approximate",
        },
        [
            DeclareLaunchArgument("serial_no", default_value="''", description="serial number; empty takes any camera"),
            DeclareLaunchArgument(
                "color_profile", default_value="1280x720x30", description="width x height x rate of colour"
            ),
            DeclareLaunchArgument(
                "depth_profile", default_value="848x480x30", description="width x height x rate of depth"
            ),
        ],
    )
