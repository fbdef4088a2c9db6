"""The pose node as a subprocess: started with parameters, watched, ended politely."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..interrupts import unblocked
from ..ros import shared_memory
from ..ros.log_folder import log_environment
from ..ros.signals import PARENT
from ..ros.transport import choose

_LOCALHOST = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


POSE_NODE = "pose_node"


class NoPose(UserError, RuntimeError):
    """The node ran but published no pose in the time given, or nothing that tells what became of the frames."""


class NodeDied(UserError, RuntimeError):
    """The node ended before its work was done; the message holds the end of its log."""


class NodeProcess:
    """``python -m rfdetr_foundationpose.ros.main`` on its own ROS domain. Use as a context manager.

    It also ends when this process does, however that ends. A terminal's Ctrl-C is for this process alone.
    """

    def __init__(
        self, parameters: Mapping[str, Any], log: Path, domain_id: int, command: Sequence[str] | None = None
    ) -> None:
        self._log, self.domain_id = log, domain_id
        log.parent.mkdir(parents=True, exist_ok=True)
        command = list(command or [sys.executable, "-m", "rfdetr_foundationpose.ros.main"])
        if parameters:
            command.append("--ros-args")
        for name, value in parameters.items():
            command += ["-p", f"{name}:={_yaml(value)}"]
        environment = {**os.environ, **local_domain(domain_id), "PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())}
        self._file = log.open("w")
        with unblocked():
            self._process = subprocess.Popen(
                command, stdout=self._file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the node's process."""
        return self._process.pid

    def check(self) -> None:
        """Raises NodeDied when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise NodeDied(f"the node ended with exit code {code}; the end of {self._log}:\n{self.tail()}")

    def tail(self, lines: int = 25) -> str:
        """The last lines of the node's log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, timeout: float = 15.0) -> int:
        """Terminate, and kill when that takes longer than ``timeout`` seconds. Returns the exit code."""
        if self._process.poll() is None:
            # Not SIGINT: Python loses one that comes while it imports.
            self._process.terminate()
            deadline = time.monotonic() + timeout
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if self._process.poll() is None:
                self._process.kill()
        code = self._process.wait()
        if code == -signal.SIGKILL:
            shared_memory.remove_left_behind()
        self._file.close()
        return code


@dataclass(frozen=True)
class NodeStart:
    """How the node that a recording is played to is started, or that it runs. log: file for its output. command: another program
    to start, for tests. process: a node that was started with these parameters already; its owner ends it."""

    parameters: Mapping[str, Any]
    log: Path
    command: Sequence[str] | None = None
    process: NodeProcess | None = None


def local_domain(domain_id: int) -> dict[str, str]:
    """Environment that keeps a run to this machine and apart from other ROS systems on it."""
    local = {"ROS_LOCALHOST_ONLY": "1"} if os.environ.get("ROS_DISTRO") == "humble" else _LOCALHOST
    return {"ROS_DOMAIN_ID": str(domain_id), **local, **choose().environment, **log_environment()}


def free_domain_id() -> int:
    """A domain that another run on this machine is unlikely to use: Linux allows 0..101 with default port ranges."""
    return 1 + os.getpid() % 100


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}'" if value == "" or not value.replace("-", "").replace("_", "").isalpha() else value
    return repr(value)
