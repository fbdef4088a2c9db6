"""A recording into the pose node, with rviz: ros2 launch rfdetr_foundationpose replay.launch.py bag:=recording"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription
from rfdetr_foundationpose.ros.launch_support import config_dir, node_arguments, set_transport, start_node


def play(context):  # type: ignore[no-untyped-def]
    command = ["ros2", "bag", "play", LaunchConfiguration("bag").perform(context), "--clock", "200"]
    command += ["--rate", LaunchConfiguration("rate").perform(context)]
    command += ["--delay", LaunchConfiguration("delay").perform(context)]
    if LaunchConfiguration("loop").perform(context).lower() == "true":
        command.append("--loop")
    return [ExecuteProcess(cmd=command, output="screen")]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="folder or file of the recording"),
            DeclareLaunchArgument("rate", default_value="1.0", description="speed of the playback"),
            DeclareLaunchArgument(
                "delay", default_value="20.0", description="seconds before the playback starts: the node has to load"
            ),
            DeclareLaunchArgument("loop", default_value="false", description="start again at the end"),
            DeclareLaunchArgument("rviz", default_value="true", description="start rviz2 with config/pose.rviz"),
            *node_arguments({"use_sim_time": "true"}),
            OpaqueFunction(function=set_transport),
            OpaqueFunction(function=start_node),
            OpaqueFunction(function=play),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", str(config_dir() / "pose.rviz")],
                parameters=[{"use_sim_time": True}],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
