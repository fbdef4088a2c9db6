"""What the launch files share: arguments from the typed config, and the actions that start node and camera driver.

Needs ``launch`` and ``launch_ros``, which every ROS install has; only launch files import it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix, get_package_share_path
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    ResetLaunchConfigurations,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription  # type: ignore[attr-defined, unused-ignore]  # mypy sees our folder

from ..config import ConfigError, Setting, iter_settings
from ..resources import config_dir
from . import transport

PACKAGE = "rfdetr_foundationpose"
# Each launch argument stands for a relative topic name of the node; beside it is what the topic carries.
TOPICS = {
    "rgb_topic": ("rgb/image", "colour images"),
    "depth_topic": ("depth/image", "depth images, registered to the colour images"),
    "camera_info_topic": ("rgb/camera_info", "calibration of the colour images"),
}
TRUTH = {"true": True, "false": False}
# These arguments are ros2 launch's own.
FOREIGN = {"launch-prefix", "launch-prefix-filter"}


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
        "image_size": ("1280x720", "width x height of the colour images, for the buffers of fastdds_profile"),
        "fastdds_profile": (
            "auto",
            "auto: Fast DDS buffers that hold whole images and fit into /dev/shm, unless the environment names a profile; "
            "none; or a profile's file",
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
            options["choices"] = ["", "true", "false", "True", "False"]
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
            return TRUTH[text.lower()]
        return setting.check(setting.type(text))
    except (KeyError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{setting.path}:={text} is no {setting.type.__name__}, e.g. {setting.default!r}") from None


def given_settings(context: Any) -> dict[str, Any]:
    """Settings whose launch argument is not empty."""
    texts = {s.path: (s, LaunchConfiguration(s.path).perform(context)) for s in iter_settings()}
    return {path: parse(setting, text) for path, (setting, text) in texts.items() if text != ""}


def launch_value(context: Any, name: str) -> str:
    """A launch argument's text."""
    return str(LaunchConfiguration(name).perform(context))


def is_true(context: Any, name: str) -> bool:
    """A launch argument that is true or false. Raises ConfigError."""
    text = launch_value(context, name)
    if text.lower() not in TRUTH:
        raise ConfigError(f"{name}:={text} is neither true nor false")
    return TRUTH[text.lower()]


def placed(context: Any, camera: str = "") -> tuple[str, str]:
    """Namespace and name of the node. camera: one of several, a namespace below that of the arguments."""
    namespace = launch_value(context, "namespace").strip("/")
    return "/".join(part for part in (namespace, camera) if part), launch_value(context, "node_name")


def start_node(context: Any, camera: str = "") -> list[Any]:
    """The node, from arguments as ``node_arguments`` declares them (for OpaqueFunction).

    camera: one of several; it becomes the namespace, and replaces {camera} in topics.
    """
    settings = given_settings(context)
    namespace, name = placed(context, camera)
    if camera:
        settings["output.tf_prefix"] = f"{settings.get('output.tf_prefix', '')}{camera}/"
    return [
        Node(
            package=PACKAGE,
            executable="pose_node",
            name=name,
            namespace=namespace,
            parameters=[
                launch_value(context, "params_file"),
                {**settings, "use_sim_time": is_true(context, "use_sim_time")},
            ],
            remappings=[
                (topic, launch_value(context, arg).replace("{camera}", camera)) for arg, (topic, _) in TOPICS.items()
            ],
            arguments=["--ros-args", "--log-level", launch_value(context, "log_level")],
            output="screen",
            emulate_tty=True,
        )
    ]


def set_transport(context: Any) -> list[Any]:
    """Point Fast DDS to a profile, for everything that is started after it, and say so (for OpaqueFunction)."""
    try:
        chosen = transport.choose(
            launch_value(context, "fastdds_profile"), transport.parse_size(launch_value(context, "image_size"))
        )
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    return [
        LogInfo(msg=f"{'' if chosen.fits else 'WARNING: '}{chosen.said}"),
        *(SetEnvironmentVariable(name, value) for name, value in chosen.environment.items()),
    ]


def say_unknown(context: Any, known: Collection[str]) -> list[Any]:
    """What was given on the command line and no argument takes: ros2 launch itself ignores it silently."""
    return [LogInfo(msg=_unknown(name, known)) for name in unknown_arguments(context, known)]


def unknown_arguments(context: Any, known: Collection[str]) -> dict[str, str]:
    """Arguments of the command line that are not ``known``, where it names a launch file of ours."""
    own = {path.name for path in (config_dir().parent / "launch").glob("*.launch.py")}
    if not any(Path(word).name in own for word in sys.argv):
        return {}
    pairs = [argument.split(":=", 1) for argument in context.argv if ":=" in argument]
    return {name: value for name, value in pairs if name not in known and name not in FOREIGN}


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1) or [k for k in known if k.rsplit(".", 1)[-1] == name]
    hint = f"; did you mean {close[0]}?" if close else " (--show-args lists them)"
    return f"WARNING: launch argument {name} is unknown and has no effect{hint}"


def installed(package: str, executable: str = "") -> bool:
    """Whether the package is, with the executable."""
    try:
        prefix = Path(get_package_prefix(package))
    except (LookupError, OSError):  # not installed, or no ament environment at all
        return False
    return not executable or (prefix / "lib" / package / executable).is_file()


def driver(
    context: Any, package: str, launch_file: str, arguments: Mapping[str, str], install: str, known: Collection[str]
) -> list[Any]:
    """A camera driver's launch file; where its package is missing, a sentence instead, and the node waits for images.

    In a scope of its own: node_name, namespace and log_level are also arguments of drivers, and would place the driver
    where our node is to be. What the command line gives and only the driver knows is the driver's. known: our arguments.
    """
    given = unknown_arguments(context, known)
    path = get_package_share_path(package) / "launch" / launch_file if installed(package) else None
    if path is None or not path.is_file():
        missing = (
            f"{package} is not installed ({install})" if path is None else f"{package} has no launch file {launch_file}"
        )
        said = [LogInfo(msg=_unknown(name, known)) for name in given]
        return [LogInfo(msg=f"{missing}: only the pose node starts, and waits for images"), *said]
    source = PythonLaunchDescriptionSource(str(path))
    theirs = [argument.name for argument in source.get_launch_description(context).get_launch_arguments()]
    passed = {**arguments, **{name: value for name, value in given.items() if name in theirs}}
    # Not forwarding=False: that would take the environment away as well, with the profile and what a file above has set.
    include = IncludeLaunchDescription(source, launch_arguments=list(passed.items()))
    group = GroupAction([ResetLaunchConfigurations(), include], scoped=True)
    return [*(LogInfo(msg=_unknown(name, [*known, *theirs])) for name in given if name not in theirs), group]


def node_launch(
    defaults: Mapping[str, str] | None = None,
    own: Sequence[DeclareLaunchArgument] = (),
    start: Sequence[Callable[[Any], list[Any]]] = (),
) -> LaunchDescription:
    """The node, or what ``start`` makes, with arguments ``own`` beside the node's."""
    declared = [*own, *node_arguments(defaults)]
    known = [argument.name for argument in declared]
    steps = [partial(say_unknown, known=known), set_transport, *(start or [start_node])]
    return LaunchDescription([*declared, *(OpaqueFunction(function=step) for step in steps)])


def camera_launch(
    package: str,
    launch_file: str,
    arguments: Mapping[str, str],
    install: str,
    defaults: Mapping[str, str],
    own: Sequence[DeclareLaunchArgument] = (),
) -> LaunchDescription:
    """A camera driver and the node on its topics.

    arguments: of the driver; {name} in them, and in launch_file, is a launch argument's value. own: arguments of the file.
    """
    declared = [*own, *node_arguments(defaults)]

    def start_driver(context: Any) -> list[Any]:
        values = {argument.name: launch_value(context, argument.name) for argument in declared}
        filled = {name: text.format_map(values) for name, text in arguments.items()}
        return driver(context, package, launch_file.format_map(values), filled, install, list(values))

    return LaunchDescription(
        [
            *declared,
            OpaqueFunction(function=set_transport),
            OpaqueFunction(function=start_driver),
            OpaqueFunction(function=start_node),
        ]
    )
