"""What the Dockerfile copies is there; no engine builds it here."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docker" / "Dockerfile"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="needs the source checkout")


def test_everything_that_is_copied_exists_and_everything_that_setup_reads_is_copied():
    copied = [
        source for line in re.findall(r"^COPY (.*) \S+$", FILE.read_text(), re.MULTILINE) for source in line.split()
    ]
    assert all((ROOT / source).exists() for source in copied), copied
    assert {"setup.py", "README.md", "package.xml", "resource", "launch", "config", "models"} <= set(copied)
    assert os.access(ROOT / "docker" / "entrypoint.sh", os.X_OK)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not set(copied) & set(ignored)


def test_apt_packages_are_those_of_a_robots_installation():
    script = (ROOT / "scripts" / "install-robot.sh").read_text()
    listed = re.search(r"for name in ([^;]*);", script)
    assert listed is not None
    wanted = listed[1].replace("\\\n", " ").split()
    text = FILE.read_text()
    assert len(wanted) > 8
    assert [name for name in wanted if f"ros-${{ROS_DISTRO}}-{name}" not in text] == []


def test_extras_are_those_that_setup_has():
    install = (ROOT / "docs" / "install.md").read_text()
    named = {n for line in re.findall(r"EXTRAS=([\w,-]+)", install) for n in line.split(",")}
    have = set(re.findall(r'^ {8}"([\w-]+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE))
    assert named and named <= have
    assert "${EXTRAS:+[$EXTRAS]}" in FILE.read_text()
