"""What launch files declare, and config/. test_launch_executed.py executes them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

pytest.importorskip("ament_index_python", reason="ROS 2 is not installed")

from rfdetr_foundationpose.config import Config, iter_settings, load_yaml, to_flat
from rfdetr_foundationpose.ros import parameter_docs
from support import launch_double

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
SETTINGS = {s.path for s in iter_settings()}


@pytest.fixture
def double(monkeypatch):
    for name in launch_double.MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("launch_support", "rviz"):
        monkeypatch.delitem(sys.modules, f"rfdetr_foundationpose.ros.{name}", raising=False)
    before = {name: sys.modules.get(name) for name in launch_double.MODULES}
    launch_double.install()
    yield
    for name, module in before.items():
        if module is None:
            sys.modules.pop(name, None)
    for name in ("launch_support", "rviz"):
        sys.modules.pop(f"rfdetr_foundationpose.ros.{name}", None)


def test_the_six_files_are_there():
    assert [p.name.split(".")[0] for p in FILES] == ["multi_camera", "orbbec", "pose", "realsense", "replay", "zed"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name.split(".")[0])
def test_every_file_takes_every_setting_as_a_described_argument(double, path):
    spec = importlib.util.spec_from_file_location("launch_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    declared = {a.name: a for a in module.generate_launch_description().get_launch_arguments()}
    own = {"namespace", "log_level", "use_sim_time", "params_file", "node_name", "image_size", "fastdds_profile"}
    assert set(declared) >= SETTINGS | own
    assert all(a.description for a in declared.values())
    assert all(isinstance(a.default_value, str) for a in declared.values() if a.name != "bag")
    assert Path(declared["params_file"].default_value) == ROOT / "config" / "pose.yaml"


def test_the_package_names_what_its_launch_files_start_and_what_python_needs():
    depends = {e.text for e in ElementTree.parse(ROOT / "package.xml").iter("exec_depend")}
    assert depends >= {"rviz2", "rviz_default_plugins", "ros2bag", "rosbag2_storage_mcap", "ros2launch", "tf2_ros_py"}
    assert depends >= {"message_filters", "cv_bridge", "vision_msgs", "launch", "launch_ros"}
    assert "tf2_ros" not in depends, "that is the C++ library"


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
