"""Launch files, executed against a recording stand-in of launch and launch_ros (neither is on PyPI), and config/."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

pytest.importorskip("ament_index_python", reason="ROS 2 is not installed")

from rfdetr_foundationpose.config import Config, ConfigError, from_flat, iter_settings, load_yaml, to_flat
from rfdetr_foundationpose.ros import parameter_docs

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
SETTINGS = {s.path for s in iter_settings()}


class Recorded:
    """An action or substitution: remembers how it was made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def perform(self, context: Any) -> str:
        """As a LaunchConfiguration: an argument that nobody declared is an error, as in launch."""
        return str(context.launch_configurations[self.args[0]])


class Context(SimpleNamespace):
    """Executes a description: declared arguments take what is given, or their default."""

    def run(self, actions: list[Any]) -> list[Recorded]:
        done: list[Recorded] = []
        for action in actions:
            kind = type(action).__name__
            if kind == "DeclareLaunchArgument":
                self.declare(action)
            elif kind == "OpaqueFunction":
                done += self.run(action.kwargs["function"](self) or [])
            elif kind == "Node" and "condition" in action.kwargs:
                condition = action.kwargs["condition"].args[0]
                done += [action] if condition.perform(self).lower() in ("true", "1") else []
            else:
                done.append(action)
        return done

    def declare(self, argument: Recorded) -> None:
        (name,) = argument.args
        assert argument.kwargs["description"], f"{name} has no description"
        assert name not in self.declared, f"{name} is declared twice"
        self.declared.append(name)
        if name not in self.launch_configurations:
            assert "default_value" in argument.kwargs, f"{name} must be given"
            self.launch_configurations[name] = argument.kwargs["default_value"]
        value = self.launch_configurations[name]
        assert isinstance(value, str), f"{name}'s default must be text"
        choices = argument.kwargs.get("choices")
        assert choices is None or value in choices, f"{name}:={value} is not one of {choices}"


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    names = {
        "launch": ("LaunchDescription",),
        "launch.actions": (
            "DeclareLaunchArgument",
            "ExecuteProcess",
            "IncludeLaunchDescription",
            "LogInfo",
            "OpaqueFunction",
            "SetEnvironmentVariable",
        ),
        "launch.conditions": ("IfCondition",),
        "launch.launch_description_sources": ("PythonLaunchDescriptionSource",),
        "launch.substitutions": ("LaunchConfiguration",),
        "launch_ros": (),
        "launch_ros.actions": ("Node",),
    }
    for name, classes in names.items():
        module = ModuleType(name)
        for class_name in classes:
            setattr(module, class_name, type(class_name, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "rfdetr_foundationpose.ros.launch_support", raising=False)
    for variable in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(variable, raising=False)
    yield
    sys.modules.pop("rfdetr_foundationpose.ros.launch_support", None)


def launch(name: str, **given: str) -> tuple[list[Recorded], Context]:
    """Execute a launch file with arguments (dots in names as __)."""
    path = ROOT / "launch" / f"{name}.launch.py"
    spec = importlib.util.spec_from_file_location(f"launch_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    configurations = {key.replace("__", "."): value for key, value in given.items()}
    context = Context(launch_configurations=configurations, declared=[])
    return context.run(description.args[0]), context


def of_kind(actions: list[Recorded], kind: str) -> list[Recorded]:
    return [a for a in actions if type(a).__name__ == kind]


def pose_nodes(actions: list[Recorded]) -> list[Recorded]:
    return [n for n in of_kind(actions, "Node") if n.kwargs["executable"] == "pose_node"]


REQUIRED = {"replay": {"bag": "recording"}}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name.split(".")[0])
def test_every_file_runs_and_takes_every_setting_as_an_argument(path):
    name = path.name.removesuffix(".launch.py")
    actions, context = launch(name, **REQUIRED.get(name, {}))
    assert set(context.declared) >= SETTINGS
    assert set(context.declared) >= {"namespace", "log_level", "use_sim_time", "params_file", "node_name"}
    nodes = pose_nodes(actions)
    assert len(nodes) == (2 if name == "multi_camera" else 1)
    for node in nodes:
        assert node.kwargs["package"] == "rfdetr_foundationpose"
        params_file, overrides = node.kwargs["parameters"]
        assert Path(params_file) == ROOT / "config" / "pose.yaml"
        settings = {k: v for k, v in overrides.items() if k != "use_sim_time"}
        from_flat(settings, load_yaml(params_file))
        assert [topic for topic, _ in node.kwargs["remappings"]] == ["rgb/image", "depth/image", "rgb/camera_info"]
    variables = [a.args[0] for a in of_kind(actions, "SetEnvironmentVariable")]
    assert "FASTDDS_DEFAULT_PROFILES_FILE" in variables


def test_the_six_files_are_there():
    assert [p.name.split(".")[0] for p in FILES] == ["multi_camera", "orbbec", "pose", "realsense", "replay", "zed"]


def test_given_arguments_reach_the_node_typed_and_the_rest_stays_with_the_file():
    actions, _ = launch(
        "pose",
        namespace="robot",
        log_level="debug",
        use_sim_time="true",
        detector__threshold="0.7",
        detector__period_frames="5",
        output__tf="false",
        pose__backend="eager",
        rgb_topic="/cam/color",
        fastdds_profile="",
    )
    (node,) = pose_nodes(actions)
    assert node.kwargs["namespace"] == "robot"
    assert node.kwargs["parameters"][1] == {
        "detector.threshold": 0.7,
        "detector.period_frames": 5,
        "output.tf": False,
        "pose.backend": "eager",
        "use_sim_time": True,
    }
    assert node.kwargs["remappings"][0] == ("rgb/image", "/cam/color")
    assert node.kwargs["arguments"] == ["--ros-args", "--log-level", "debug"]
    assert of_kind(actions, "SetEnvironmentVariable") == []


@pytest.mark.parametrize(
    ("argument", "text"),
    [("detector__threshold", "high"), ("detector__threshold", "1.5"), ("detector__period_frames", "2.5")],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_starts(argument, text):
    with pytest.raises(ConfigError, match=argument.replace("__", ".")):
        launch("pose", **{argument: text})


def test_an_environment_with_its_own_profile_is_left_alone(monkeypatch):
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "mine.xml")
    actions, _ = launch("pose")
    assert of_kind(actions, "SetEnvironmentVariable") == []


@pytest.mark.parametrize("name", ["realsense", "zed", "orbbec"])
def test_without_its_driver_package_a_camera_file_starts_the_node_and_says_so(name):
    actions, _ = launch(name)
    (said,) = of_kind(actions, "LogInfo")
    assert "is not installed" in said.kwargs["msg"]
    assert len(pose_nodes(actions)) == 1


@pytest.mark.parametrize(
    ("name", "package", "file"),
    [
        ("realsense", "realsense2_camera", "rs_launch.py"),
        ("zed", "zed_wrapper", "zed_camera.launch.py"),
        ("orbbec", "orbbec_camera", "gemini_330_series.launch.py"),
    ],
)
def test_with_its_driver_package_a_camera_file_includes_it(monkeypatch, tmp_path, name, package, file):
    """An ament index that knows the package, as a ROS install has."""
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / package).touch()
    (tmp_path / "share" / package).mkdir()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    actions, _ = launch(name)
    (included,) = of_kind(actions, "IncludeLaunchDescription")
    assert included.args[0].args[0] == str(tmp_path / "share" / package / "launch" / file)
    assert of_kind(actions, "LogInfo") == []
    assert len(pose_nodes(actions)) == 1


def test_replay_plays_the_bag_with_its_clock():
    actions, _ = launch("replay", bag="recording", loop="true", rviz="false", rate="0.5")
    (player,) = of_kind(actions, "ExecuteProcess")
    command = player.kwargs["cmd"]
    assert command[:4] == ["ros2", "bag", "play", "recording"]
    assert "--clock" in command
    assert "--loop" in command
    assert command[command.index("--rate") + 1] == "0.5"
    (node,) = of_kind(actions, "Node")
    assert node.kwargs["parameters"][1]["use_sim_time"] is True
    assert len(of_kind(launch("replay", bag="recording")[0], "Node")) == 2


def test_cameras_have_namespaces_topics_and_tf_frames_of_their_own():
    actions, _ = launch("multi_camera", cameras="wrist, head", namespace="robot", output__tf_prefix="seen/")
    wrist, head = pose_nodes(actions)
    assert (wrist.kwargs["namespace"], head.kwargs["namespace"]) == ("robot/wrist", "robot/head")
    assert wrist.kwargs["remappings"][0] == ("rgb/image", "/wrist/color/image_raw")
    assert head.kwargs["parameters"][1]["output.tf_prefix"] == "seen/head/"
    with pytest.raises(ValueError, match="different names"):
        launch("multi_camera", cameras="head,head")


def test_pose_yaml_is_complete_and_current():
    path = ROOT / "config" / "pose.yaml"
    assert path.read_text() == parameter_docs.parameters_yaml(), (
        "run python -m rfdetr_foundationpose.ros.parameter_docs"
    )
    assert to_flat(load_yaml(path)) == to_flat(Config())
    tree = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    flat = {
        f"{k}.{leaf}" if isinstance(v, dict) else k
        for k, v in tree.items()
        for leaf in (v if isinstance(v, dict) else [k])
    }
    assert flat == SETTINGS


def test_the_table_in_the_docs_is_current():
    page = (ROOT / "docs" / "ros.md").read_text()
    assert page == parameter_docs.with_table(page), "run python -m rfdetr_foundationpose.ros.parameter_docs"
    assert all(f"`{path}`" in page for path in SETTINGS)
    with pytest.raises(ValueError, match="needs the lines"):
        parameter_docs.with_table("no place")


def test_rviz_configuration_shows_what_the_node_publishes():
    tree = yaml.safe_load((ROOT / "config" / "pose.rviz").read_text())
    displays = tree["Visualization Manager"]["Displays"]
    classes = {d["Class"].split("/")[1] for d in displays}
    assert classes >= {"TF", "Image", "DepthCloud", "MarkerArray", "Detection3DArray"}
    topics = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    assert topics >= {"/pose_node/debug_image", "/pose_node/markers", "/pose_node/detections"}
