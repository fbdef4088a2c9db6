"""Launch files, executed: includes, scopes, processes and their environment. With the real launch and launch_ros where they
are installed, else with their double; the executables are scripts that write down how they were started."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("ament_index_python", reason="ROS 2 is not installed")

from rfdetr_foundationpose.replay.recording_writer import RecordingWriter
from rfdetr_foundationpose.ros.transport import NEW, OLD, profiles_variable
from rfdetr_foundationpose.types import CameraIntrinsics, Frame

ROOT = Path(__file__).resolve().parent.parent
# Tests wait this long (s) for what is sure to come; the machine may be busy.
PATIENCE = 120.0
EXECUTABLE = """#!{python} -S
import json, os, signal, sys, time
record = {{"argv": sys.argv, "environment": dict(os.environ)}}
name = os.environ["CAPTURE"] + "/" + os.path.basename(sys.argv[0]) + "." + str(os.getpid())
with open(name + ".new", "w") as file:
    json.dump(record, file)
os.rename(name + ".new", name + ".json")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: sys.exit(0))
while len([name for name in os.listdir(os.environ["CAPTURE"]) if name.endswith(".json")]) < {others} + 1:
    time.sleep(0.02)
if {seconds} < 0:
    sys.exit(3)
time.sleep({seconds})
"""
# As the drivers' own: what they declare decides what may leak into them.
DRIVERS = {
    "realsense2_camera": (
        "rs_launch.py",
        "realsense2_camera_node",
        "camera_namespace",
        "camera",
        "camera_name",
        "camera",
    ),
    "zed_wrapper": ("zed_camera.launch.py", "zed_wrapper", "camera_name", "zed", "node_name", "zed_node"),
    "orbbec_camera": ("gemini_330_series.launch.py", "orbbec_camera_node", "namespace", "", "camera_name", "camera"),
}
DRIVER = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

NAMES = {names!r}

def start(context):
    given = {{name: LaunchConfiguration(name).perform(context) for name in NAMES}}
    log = ["--ros-args", "--log-level", given["log_level"]]
    return [Node(package={package!r}, executable={executable!r}, namespace=given[{namespace!r}], name=given[{name!r}],
                 parameters=[given], arguments=log)]

def generate_launch_description():
    return LaunchDescription([*(DeclareLaunchArgument(n, default_value=v) for n, v in NAMES.items()),
                              OpaqueFunction(function=start)])
"""


@dataclass(frozen=True)
class Started:
    """A process: its executable, the arguments, the environment."""

    executable: str
    argv: list[str]
    environment: dict[str, str]

    def rules(self) -> dict[str, str]:
        """Remappings, with __node and __ns."""
        return dict(rule.split(":=", 1) for flag, rule in zip(self.argv, self.argv[1:], strict=False) if flag == "-r")

    @property
    def parameters(self) -> dict[str, object]:
        files = [path for flag, path in zip(self.argv, self.argv[1:], strict=False) if flag == "--params-file"]
        flat: dict[str, object] = {}
        for path in files[-1:]:
            tree = next(iter(yaml.safe_load(Path(path).read_text()).values()))["ros__parameters"]
            flat.update(_flatten(tree))
        return flat

    @property
    def log_level(self) -> str:
        return self.argv[self.argv.index("--log-level") + 1]


def _flatten(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


class Prefix:
    """An ament prefix with packages whose executables write down how they were started."""

    def __init__(self, folder: Path) -> None:
        self.path, self.capture = folder / "prefix", folder / "capture"
        self.capture.mkdir()
        self.package("rfdetr_foundationpose", "pose_node")
        (folder / "bin").mkdir()
        self._bin = folder / "bin"

    def package(self, name: str, *executables: str, seconds: float = 60.0) -> Path:
        index = self.path / "share" / "ament_index" / "resource_index" / "packages"
        index.mkdir(parents=True, exist_ok=True)
        (index / name).touch()
        for executable in executables:
            self._script(self.path / "lib" / name / executable, seconds)
        share = self.path / "share" / name
        share.mkdir(exist_ok=True)
        return share

    def driver(self, package: str) -> None:
        file, executable, namespace, namespace_value, name, name_value = DRIVERS[package]
        folder = self.package(package, executable) / "launch"
        folder.mkdir()
        names = {
            "log_level": "warn",
            "camera_model": "",
            "serial_no": "",
            "enable_gyro": "false",
            namespace: namespace_value,
        }
        names |= {
            name: name_value,
            "align_depth.enable": "false",
            "depth_registration": "false",
            "enable_sync": "false",
        }
        names |= {"rgb_camera.color_profile": "", "depth_module.depth_profile": "", "enable_frame_sync": ""}
        text = DRIVER.format(names=names, package=package, executable=executable, namespace=namespace, name=name)
        (folder / file).write_text(text)

    def command(self, name: str, seconds: float = 60.0, others: int = 0) -> None:
        """others: it goes on when so many others have started."""
        self._script(self._bin / name, seconds, others)

    @staticmethod
    def _script(path: Path, seconds: float, others: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(EXECUTABLE.format(python=sys.executable, seconds=seconds, others=others))
        path.chmod(0o755)

    def launch(self, name: str, *arguments: str, expect: int, **environment: str) -> tuple[list[Started], str, int]:
        """Execute a file until ``expect`` processes run, or to its end with 0; returns them, its output and exit status."""
        env = {k: v for k, v in os.environ.items() if k not in (NEW, OLD)} | environment
        # Sourced first, as its setup.bash does.
        env |= {"AMENT_PREFIX_PATH": str(self.path), "CAPTURE": str(self.capture), "PATH": f"{self._bin}:/usr/bin:/bin"}
        env["PYTHONPATH"] = os.pathsep.join([env.get("PYTHONPATH", ""), str(ROOT), str(ROOT / "test")])
        path = ROOT / "launch" / f"{name}.launch.py"
        command = [sys.executable, "-m", "support.launch_runner", str(path), *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd="/"
        )
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            if expect and len(list(self.capture.glob("*.json"))) >= expect:
                time.sleep(0.2)  # whatever else is started shows
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.02)
        output, _ = process.communicate(timeout=PATIENCE)
        started = []
        for file in sorted(self.capture.glob("*.json")):
            record = json.loads(file.read_text())
            executable = Path(record["argv"][0]).name
            assert not Path(f"/proc/{file.name.split('.')[-2]}").exists(), f"{executable} was left running\n{output}"
            started.append(Started(executable, record["argv"], record["environment"]))
        return started, output, process.returncode


@pytest.fixture
def prefix(tmp_path):
    return Prefix(tmp_path)


def of(started: list[Started], executable: str) -> Started:
    (found,) = [s for s in started if s.executable == executable]
    return found


@pytest.mark.parametrize(
    ("name", "package", "topic"),
    [
        ("realsense", "realsense2_camera", "/camera/camera/color/image_raw"),
        ("zed", "zed_wrapper", "/zed/zed_node/rgb/color/rect/image"),
        ("orbbec", "orbbec_camera", "/camera/color/image_raw"),
    ],
)
def test_nothing_of_the_node_leaks_into_its_driver(prefix, name, package, topic):
    _, executable, _, namespace_value, _, name_value = DRIVERS[package]
    prefix.driver(package)
    arguments = ["namespace:=robot", "node_name:=poses", "log_level:=debug", "enable_gyro:=true", "enable_gyros:=true"]
    started, output, _ = prefix.launch(name, *arguments, "detector.threshold:=0.7", expect=2)
    node, driver = of(started, "pose_node"), of(started, executable)
    assert (node.rules()["__node"], node.rules()["__ns"], node.log_level) == ("poses", "/robot", "debug")
    assert node.rules()["rgb/image"] == topic
    assert driver.rules().get("__ns", "").strip("/") == namespace_value
    assert driver.rules()["__node"] == name_value
    assert driver.log_level == "warn"
    # What only the driver knows is passed on, and what nobody knows is said.
    assert driver.parameters["enable_gyro"] == "true"
    assert "launch argument enable_gyros is unknown and has no effect; did you mean enable_gyro?" in output
    # The images' buffers are the driver's above all.
    for process in (driver, node):
        assert {NEW, OLD} & set(process.environment) == {profiles_variable()}
    assert driver.environment[profiles_variable()] == node.environment[profiles_variable()]
    assert "Fast DDS segments of" in output


def test_without_its_driver_a_camera_file_starts_the_node_and_says_so(prefix):
    started, output, _ = prefix.launch("zed", "fastdds_profile:=none", expect=1)
    assert [s.executable for s in started] == ["pose_node"]
    assert "zed_wrapper is not installed" in output
    assert profiles_variable() not in started[0].environment
    assert "no Fast DDS profile" in output


def test_settings_reach_the_node_with_their_types_whatever_their_text(prefix):
    arguments = ["output.tf_prefix:=on", "pose.register_schedule:=252", "autostart:=False", "use_sim_time:=True"]
    started, output, _ = prefix.launch("pose", *arguments, "detector.threshold:=1", "detector.treshold:=0.4", expect=1)
    parameters = started[0].parameters
    assert parameters["output.tf_prefix"] == "on"
    assert parameters["pose.register_schedule"] == "252"
    assert parameters["autostart"] is False
    assert parameters["use_sim_time"] is True
    assert parameters["detector.threshold"] == 1.0
    assert isinstance(parameters["detector.threshold"], float)
    assert "detector.treshold is unknown and has no effect; did you mean detector.threshold?" in output


@pytest.mark.parametrize("argument", ["detector.threshold:=high", "fastdds_profile:=/nowhere.xml", "image_size:=big"])
def test_what_does_not_fit_is_a_sentence_and_starts_nothing(prefix, argument):
    started, output, status = prefix.launch("pose", argument, expect=0)
    assert started == []
    assert status != 0
    assert argument.split(":=")[1] in output


def test_cameras_have_namespaces_and_the_profile_of_their_image_size(prefix):
    small, output, _ = prefix.launch("multi_camera", "cameras:=wrist,head", "image_size:=320x240", expect=2)
    assert {s.rules()["__ns"] for s in small} == {"/wrist", "/head"}
    assert {s.rules()["rgb/image"] for s in small} == {"/wrist/color/image_raw", "/head/color/image_raw"}
    assert "320x240 images" in output


def recording(folder: Path) -> Path:
    bag = folder / "bag"
    bag.mkdir()
    return bag


def test_replay_starts_bag_node_and_rviz_on_the_topics_of_the_arguments(prefix, tmp_path):
    prefix.package("ros2bag")
    prefix.package("rviz2", "rviz2")
    prefix.command("ros2")
    arguments = ["namespace:=robot", "node_name:=poses", "depth_topic:=/cam/depth/image_raw", "rate:=0.5", "loop:=True"]
    started, _, _ = prefix.launch("replay", f"bag:={recording(tmp_path)}", *arguments, expect=3)
    player, rviz = of(started, "ros2"), of(started, "rviz2")
    assert player.argv[1:4] == ["bag", "play", str(tmp_path / "bag")]
    assert "--loop" in player.argv
    assert player.argv[player.argv.index("--rate") + 1] == "0.5"
    rules = rviz.rules()
    assert rules["/pose_node/debug_image"] == "/robot/poses/debug_image"
    assert rules["/pose_node/markers"] == "/robot/poses/markers"
    assert rules["/rgb/image"] == "/robot/rgb/image"
    assert rules["/depth/image"] == "/cam/depth/image_raw"
    assert rules["/depth/camera_info"] == "/cam/depth/camera_info"
    assert rviz.argv[rviz.argv.index("-f") + 1] == "camera_color_optical_frame"
    assert of(started, "pose_node").parameters["use_sim_time"] is True


def test_replay_without_rviz_says_so_and_ends_with_the_recording(prefix, tmp_path):
    prefix.package("ros2bag")
    prefix.command("ros2", seconds=0.5, others=1)
    started, output, status = prefix.launch("replay", f"bag:={recording(tmp_path)}", expect=0)
    assert {s.executable for s in started} == {"ros2", "pose_node"}
    assert "rviz2 is not installed" in output
    assert status == 0


def test_replay_ends_as_a_whole_when_the_player_fails(prefix, tmp_path):
    prefix.package("ros2bag")
    prefix.package("rviz2", "rviz2")
    prefix.command("ros2", seconds=-1, others=2)
    started, _, _ = prefix.launch("replay", f"bag:={recording(tmp_path)}", expect=0)
    assert {s.executable for s in started} == {"ros2", "pose_node", "rviz2"}


@pytest.mark.parametrize(("exists", "said"), [(True, "ros2 bag is not installed"), (False, "does not exist")])
def test_replay_without_a_player_or_a_recording_starts_nothing_and_says_why(prefix, tmp_path, exists, said):
    bag = recording(tmp_path) if exists else tmp_path / "nowhere"
    started, output, _ = prefix.launch("replay", f"bag:={bag}", expect=0)
    assert started == []
    assert said in output


def test_the_fixed_frame_is_the_recorded_cameras(tmp_path):
    from support import launch_double

    spec = importlib.util.find_spec("launch")
    if spec is None or spec.origin is None:
        launch_double.install()
    file = importlib.util.spec_from_file_location("replay_launch", ROOT / "launch" / "replay.launch.py")
    module = importlib.util.module_from_spec(file)
    file.loader.exec_module(module)
    with RecordingWriter(tmp_path / "bag") as writer:
        camera = CameraIntrinsics(100.0, 100.0, 8.0, 6.0, 16, 12)
        rgb, depth = np.zeros((12, 16, 3), np.uint8), np.ones((12, 16), np.uint16)
        writer.write(Frame(1, "wrist_optical_frame", rgb, depth, 0.001, camera))
    assert module.recorded_frame(str(tmp_path / "bag")) == "wrist_optical_frame"
    assert module.recorded_frame(str(tmp_path / "nowhere")) == "camera_color_optical_frame"
