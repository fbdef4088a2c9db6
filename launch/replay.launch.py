"""A recording into the pose node, with rviz: ros2 launch rfdetr_foundationpose replay.launch.py bag:=recording

When the recording ends, everything ends, unless rviz shows its last frame. Without ros2 bag nothing starts; without rviz2
the rest does.
"""

import shutil
from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit
from launch_ros.actions import Node

from launch import LaunchDescription
from rfdetr_foundationpose.replay.recording import Recording, RecordingError
from rfdetr_foundationpose.ros.launch_support import (
    config_dir,
    installed,
    is_true,
    launch_value,
    node_launch,
    start_node,
)
from rfdetr_foundationpose.ros.rviz import remappings

FRAME = "camera_color_optical_frame"


def obstacle(bag):  # type: ignore[no-untyped-def]
    """Why nothing can be played; empty when it can."""
    if not Path(bag).expanduser().exists():
        return f"bag:={bag} does not exist: give the folder or file of a rosbag2 recording"
    if shutil.which("ros2") is None or not installed("ros2bag"):
        return "ros2 bag is not installed (apt install ros-$ROS_DISTRO-ros2bag ros-$ROS_DISTRO-rosbag2-storage-mcap)"
    return ""


def start(context):  # type: ignore[no-untyped-def]
    bag = launch_value(context, "bag")
    why = obstacle(bag)
    if why:
        return [LogInfo(msg=f"{why}; nothing starts"), Shutdown(reason=why)]
    show = is_true(context, "rviz")
    seen = show and installed("rviz2", "rviz2")
    command = ["ros2", "bag", "play", str(Path(bag).expanduser()), "--clock", "200"]
    command += ["--rate", launch_value(context, "rate"), "--delay", launch_value(context, "delay")]
    command += ["--loop"] if is_true(context, "loop") else []
    player = ExecuteProcess(cmd=command, output="screen")

    def played(event, _context):  # type: ignore[no-untyped-def]
        if event.returncode != 0:
            return [Shutdown(reason=f"ros2 bag play failed with status {event.returncode}")]
        return [] if seen else [Shutdown(reason="the recording has ended")]

    actions = [*start_node(context), RegisterEventHandler(OnProcessExit(target_action=player, on_exit=played)), player]
    if seen:
        actions.append(rviz(context, bag))
    elif show:
        actions.append(LogInfo(msg="rviz2 is not installed (apt install ros-$ROS_DISTRO-rviz2): it is left out"))
    return actions


def recorded_frame(bag):  # type: ignore[no-untyped-def]
    """The frame of the recording's colour images, in which tf and clouds are where the camera sees them."""
    try:
        frame, _ = next(iter(Recording(Path(bag).expanduser())))
    except (RecordingError, OSError, StopIteration):
        return FRAME
    return frame.frame_id or FRAME


def rviz(context, bag):  # type: ignore[no-untyped-def]
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=[
            "-d",
            str(config_dir() / "pose.rviz"),
            "-f",
            launch_value(context, "fixed_frame") or recorded_frame(bag),
        ],
        parameters=[{"use_sim_time": True}],
        remappings=remappings(context),
    )


def generate_launch_description() -> LaunchDescription:
    return node_launch(
        {"use_sim_time": "true"},
        [
            DeclareLaunchArgument("bag", description="folder or file of the recording"),
            DeclareLaunchArgument("rate", default_value="1.0", description="speed of the playback"),
            DeclareLaunchArgument(
                "delay", default_value="20.0", description="seconds before the playback starts: the node has to load"
            ),
            DeclareLaunchArgument("loop", default_value="false", description="start again at the end"),
            DeclareLaunchArgument("rviz", default_value="true", description="start rviz2 with config/pose.rviz"),
            DeclareLaunchArgument(
                "fixed_frame", default_value="", description="rviz's fixed frame; empty takes the recorded camera's"
            ),
        ],
        [start],
    )
