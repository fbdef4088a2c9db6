"""A node as life treats it: killed and started again beside a running camera, without rights, without weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rfdetr_foundationpose.ros import shared_memory
from rfdetr_foundationpose.ros.log_folder import log_environment
from support.ros_support import PATIENCE, ROOT, Camera, Node, running_node, segments_of, wait_for

pytestmark = pytest.mark.timeout(600)
NOBODY = 65534


def test_a_killed_node_is_replaced_beside_a_running_camera(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, "SETTLED", 0.0)
    with running_node(tmp_path, ends=(-signal.SIGKILL,)) as (node, graph):
        camera = Camera(graph)
        camera.stream_until_pose()
        held = segments_of(node.pid)
        os.kill(node.pid, signal.SIGKILL)
        assert node.wait(60) == -signal.SIGKILL
        camera.stream(0.5)  # it notices nothing
        shared_memory.remove_left_behind()  # as the next start does for what is older than some seconds
        assert not [p for p in held if p.exists()]
        graph.poses.clear()
        node = Node(
            tmp_path, graph.namespace, ["-p", f"objects_file:={tmp_path / 'objects.yaml'}", "-p", "device:=cpu"], {}
        )
        camera.stream_until_pose()
        assert node.stop() < 20
        assert node.returncode == 0


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")
def test_somebody_without_rights_starts_it_and_leaves_nothing():
    """No home, so no folder for ROS's logs, and shared memory of root's beside. The log says how far it is."""
    # Not pytest's own folder, which each run of pytest closes to others again.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        stranger_starts_it(folder, {"DOUBLE_USER": str(NOBODY), "HOME": "/nonexistent", "ROS_LOG_DIR": ""})


def stranger_starts_it(folder: Path, environment: dict[str, str]) -> None:
    with running_node(folder, environment=environment, active=False) as (node, _):
        wait_for(lambda: node.returncode is not None or "active: taking frames" in node.log, "the node")
        assert Path(f"/proc/{node.pid}").stat().st_uid == NOBODY
        assert "Traceback" not in node.log


def test_ros_logs_have_a_folder_where_there_is_no_home(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    for name in ("ROS_LOG_DIR", "ROS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(file / "home"))
    assert log_environment() == {"ROS_LOG_DIR": str(tmp_path / "cache" / "ros-log")}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert log_environment() == {}
    monkeypatch.setenv("HOME", str(file / "home"))
    monkeypatch.setenv("ROS_LOG_DIR", "what the user says")
    assert log_environment() == {}


def test_ros_that_does_not_start_is_a_sentence(tmp_path):
    file = tmp_path / "file"
    file.touch()
    log = tmp_path / "log"
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, str(ROOT / "test" / "support" / "ros_double_start.py")],
            stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, "ROS_LOG_DIR": str(file / "logs")},
        )  # fmt: skip
    assert done.returncode == 1
    assert "pose_node: " in log.read_text() and str(file / "logs") in log.read_text()
    assert "Traceback" not in log.read_text()


def test_weights_that_are_missing_leave_a_node_that_says_so_and_can_be_told_others(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-m", "rfdetr_foundationpose.ros.main", "--ros-args", "-r", "__ns:=/weightless"]
    command += ["-p", f"pose.weights:={tmp_path / 'nowhere'}", "-p", "device:=cpu", "-p", "detector.source:=mask-topic"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        wait_for(lambda: "cannot configure" in log.read_text() or process.poll() is not None, "the error")
        time.sleep(0.2)
        assert process.poll() is None, log.read_text()
        assert "nowhere" in log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log.read_text()
