"""What the launch files share: arguments from the typed config, and the actions that start node and camera driver.

Needs ``launch`` and ``launch_ros``, which every ROS install has; only launch files import it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ament_index_python.packages import get_package_share_path
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription  # type: ignore[attr-defined, unused-ignore]  # mypy sees our folder

from ..config import ConfigError, Setting, iter_settings
from ..resources import config_dir

PACKAGE = "rfdetr_foundationpose"
# Launch argument -> the node's relative topic name, and what it carries.
TOPICS = {
    "rgb_topic": ("rgb/image", "colour images"),
    "depth_topic": ("depth/image", "depth images, registered to the colour images"),
    "camera_info_topic": ("rgb/camera_info", "calibration of the colour images"),
}
# Newer and older distributions name the same variable differently.
FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def node_arguments(defaults: Mapping[str, str] | None = None) -> list[DeclareLaunchArgument]:
    """Arguments of the node: its place in the graph, its topics, and every setting.

    defaults: argument name -> another default. A setting whose argument is empty keeps the value of ``params_file``.
    """
    own = {
        "namespace": ("", "namespace of the node and of its relative topics"),
        "node_name": ("pose_node", "name of the node"),
        "params_file": (str(config_dir() / "pose.yaml"), "parameter file; arguments that are given win over it"),
        "log_level": ("info", "debug, info, warn, error or fatal"),
        "use_sim_time": ("false", "take time from /clock"),
        "fastdds_profile": (
            str(config_dir() / "fastdds.xml"),
            "Fast DDS profile with buffers that hold whole images, unless the environment names one; empty: none",
        ),
        **{name: (topic, f"topic of {what}") for name, (topic, what) in TOPICS.items()},
    }
    defaults = dict(defaults or {})
    arguments = [
        DeclareLaunchArgument(name, default_value=defaults.pop(name, default), description=description)
        for name, (default, description) in own.items()
    ]
    for setting in iter_settings():
        options: dict[str, Any] = {"choices": ["", *setting.choices]} if setting.choices else {}
        if setting.type is bool:
            options["choices"] = ["", "true", "false"]
        arguments.append(
            DeclareLaunchArgument(
                setting.path,
                default_value=defaults.pop(setting.path, ""),
                description=f"{setting.description} (params_file's value, else {setting.default!r})",
                **options,
            )
        )
    if defaults:
        raise ConfigError(f"no such launch arguments: {', '.join(defaults)}")
    return arguments


def parse(setting: Setting, text: str) -> Any:
    """A launch argument's text as the setting's value. Raises ConfigError."""
    try:
        if setting.type is bool:
            return {"true": True, "false": False}[text.lower()]
        return setting.check(setting.type(text))
    except (KeyError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{setting.path}:={text} is no {setting.type.__name__}, e.g. {setting.default!r}") from None


def given_settings(context: Any) -> dict[str, Any]:
    """Settings whose launch argument is not empty."""
    texts = {s.path: (s, LaunchConfiguration(s.path).perform(context)) for s in iter_settings()}
    return {path: parse(setting, text) for path, (setting, text) in texts.items() if text != ""}


def start_node(context: Any, camera: str = "") -> list[Any]:
    """The node, from arguments as ``node_arguments`` declares them (for OpaqueFunction).

    camera: one of several; it becomes the namespace, and replaces {camera} in topics.
    """

    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    settings = given_settings(context)
    namespace = value("namespace")
    if camera:
        namespace = f"{namespace}/{camera}" if namespace else camera
        settings["output.tf_prefix"] = f"{settings.get('output.tf_prefix', '')}{camera}/"
    return [
        Node(
            package=PACKAGE,
            executable="pose_node",
            name=value("node_name"),
            namespace=namespace,
            parameters=[value("params_file"), {**settings, "use_sim_time": value("use_sim_time").lower() == "true"}],
            remappings=[(topic, value(name).replace("{camera}", camera)) for name, (topic, _) in TOPICS.items()],
            arguments=["--ros-args", "--log-level", value("log_level")],
            output="screen",
            emulate_tty=True,
        )
    ]


def set_transport(context: Any) -> list[Any]:
    """Point Fast DDS to the profile, for everything that is started after it (for OpaqueFunction)."""
    profile = LaunchConfiguration("fastdds_profile").perform(context)
    if not profile or any(os.environ.get(name) for name in FASTDDS_VARIABLES):
        return []
    return [SetEnvironmentVariable(name, profile) for name in FASTDDS_VARIABLES]


def include_or_say(package: str, launch_file: str, arguments: Mapping[str, Any], install: str) -> list[Any]:
    """A camera driver's launch file; where its package is missing, a sentence instead, and the node waits for images."""
    try:
        path = get_package_share_path(package) / "launch" / launch_file
    except (LookupError, OSError):  # not installed, or no ament environment at all
        return [LogInfo(msg=f"{package} is not installed ({install}): only the pose node starts, and waits for images")]
    return [
        IncludeLaunchDescription(PythonLaunchDescriptionSource(str(path)), launch_arguments=list(arguments.items()))
    ]


def camera_launch(
    driver: Sequence[Any], driver_arguments: Sequence[DeclareLaunchArgument], defaults: Mapping[str, str]
) -> LaunchDescription:
    """A camera driver and the node on its topics. driver: from ``include_or_say``."""
    return LaunchDescription(
        [
            *driver_arguments,
            *node_arguments(defaults),
            OpaqueFunction(function=set_transport),
            *driver,
            OpaqueFunction(function=start_node),
        ]
    )
