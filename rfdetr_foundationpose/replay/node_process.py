"""The pose node as a subprocess: started with parameters, watched, ended politely."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..resources import config_dir

_LOCALHOST = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


class NodeDied(UserError, RuntimeError):
    """The node ended before its work was done; the message holds the end of its log."""


class NodeProcess:
    """``python -m rfdetr_foundationpose.ros.main`` on its own ROS domain. Use as a context manager."""

    def __init__(
        self, parameters: Mapping[str, Any], log: Path, domain_id: int, command: Sequence[str] | None = None
    ) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = list(command or [sys.executable, "-m", "rfdetr_foundationpose.ros.main"])
        if parameters:
            command.append("--ros-args")
        for name, value in parameters.items():
            command += ["-p", f"{name}:={_yaml(value)}"]
        environment = {**os.environ, **local_domain(domain_id), "PYTHONUNBUFFERED": "1"}
        self._file = log.open("w")
        self._process = subprocess.Popen(command, stdout=self._file, stderr=subprocess.STDOUT, env=environment)

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raises NodeDied when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise NodeDied(f"the node ended with exit code {code}; the end of {self._log}:\n{self.tail()}")

    def tail(self, lines: int = 25) -> str:
        """The last lines of the node's log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, timeout: float = 15.0) -> int:
        """Interrupt, and kill when that takes longer than ``timeout`` seconds. Returns the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            deadline = time.monotonic() + timeout
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if self._process.poll() is None:
                self._process.kill()
        code = self._process.wait()
        self._file.close()
        return code


def local_domain(domain_id: int) -> dict[str, str]:
    """Environment that keeps a run to this machine and apart from other ROS systems on it."""
    local = {"ROS_LOCALHOST_ONLY": "1"} if os.environ.get("ROS_DISTRO") == "humble" else _LOCALHOST
    return {"ROS_DOMAIN_ID": str(domain_id), **local, **_large_images()}


def _large_images() -> dict[str, str]:
    """The shipped Fast DDS profile, unless the user has set one: its default buffers are smaller than an image."""
    older = os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
    name = "FASTRTPS_DEFAULT_PROFILES_FILE" if older else "FASTDDS_DEFAULT_PROFILES_FILE"
    profile = config_dir() / "fastdds.xml"
    return {name: str(profile)} if name not in os.environ and profile.is_file() else {}


def free_domain_id() -> int:
    """A domain that another run on this machine is unlikely to use: Linux allows 0..101 with default port ranges."""
    return 1 + os.getpid() % 100


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}'" if value == "" or not value.replace("-", "").replace("_", "").isalpha() else value
    return repr(value)
