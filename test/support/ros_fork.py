"""Runs the double node in a forked process. Light, because the tests' own process imports it too."""

from __future__ import annotations

import os
import sys


def run(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """The node with ``arguments``; output goes to the file ``log``. The fork server has its libraries loaded already."""
    from support.ros_double_node import DoublePipeline, main

    os.environ.update(environment)
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    user = environment.get("DOUBLE_USER")
    if user is not None:
        os.setgid(int(user))
        os.setuid(int(user))
    sys.exit(main(["pose_node", *arguments], DoublePipeline))
