"""The pose node. Every parameter is an argument: ros2 launch rfdetr_foundationpose pose.launch.py --show-args"""

from launch.actions import OpaqueFunction

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import node_arguments, set_transport, start_node


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [*node_arguments(), OpaqueFunction(function=set_transport), OpaqueFunction(function=start_node)]
    )
