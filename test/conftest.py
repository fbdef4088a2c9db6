"""Shared by all tests: GPU tests skip without a GPU, ROS tests keep to this machine and to a domain of their own."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.pipeline_world import World

# Before any test imports rclpy: other sessions on this machine must not hear ours.
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job; tests send it to themselves
        signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    from rfdetr_foundationpose.process import prepare_process

    prepare_process(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is first imported: its kernels run on the CPU


def pytest_sessionstart(session: pytest.Session) -> None:
    if os.environ.get("CI"):
        # The graph tests skip where there is no ROS; in CI that would be a green run that tested half.
        import rclpy  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small random refiner and scorer weights, for commands whose answers need not be right."""
    import torch

    from rfdetr_foundationpose.pose import checkpoints
    from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    checkpoints.write(folder / "refiner.safetensors", RefineNet(0.125).eval(), "test refiner")
    checkpoints.write(folder / "scorer.safetensors", ScoreNet(0.125).eval(), "test scorer")
    return folder


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the package says while the test runs, from INFO up, line by line."""
    logger, listener = logging.getLogger("rfdetr_foundationpose"), _Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    yield listener.lines
    logger.removeHandler(listener)
    logger.setLevel(level)


@pytest.fixture
def world() -> Iterator[World]:
    """What the scripted detector and estimator of the pipeline's tests see; no registration is left waiting in it."""
    from support.pipeline_world import World

    world = World()
    yield world
    if world.hold is not None:
        world.hold.set()
