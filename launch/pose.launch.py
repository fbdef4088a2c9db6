"""The pose node. Every parameter is an argument: ros2 launch rfdetr_foundationpose pose.launch.py --show-args"""

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import node_launch


def generate_launch_description() -> LaunchDescription:
    return node_launch()
