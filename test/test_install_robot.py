"""The robot's installation script, as far as a machine without ROS can run it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "install-robot.sh"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the source checkout")


def dry_run(distribution: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ROS_DISTRO": distribution}
    return subprocess.run(
        ["bash", str(SCRIPT), "--dry-run", str(workspace)], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.parametrize("distribution", ["humble", "jazzy", "kilted", "lyrical"])
def test_every_distribution_gets_its_own_packages_and_keeps_its_numpy(distribution, tmp_path):
    done = dry_run(distribution, tmp_path / "ws")
    assert done.returncode == 0, done.stderr
    apt = next(line for line in done.stdout.splitlines() if "apt-get" in line)
    assert {"python3-venv", "python3-colcon-common-extensions"} <= set(apt.split())
    assert f"ros-{distribution}-tf2-ros-py" in apt
    assert f"ros-{distribution}-tf2-ros " not in f"{apt} "
    assert "numpy>=" in done.stdout
    assert "-m colcon build" in done.stdout
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize("distribution", ["", "melodic"])
def test_without_a_known_ros_it_says_what_to_do(distribution, tmp_path):
    done = dry_run(distribution, tmp_path)
    assert done.returncode == 1
    assert "ROS" in done.stderr
