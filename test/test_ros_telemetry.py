"""When the throttled thread does its work: at the end of a frame, since Python's lock is the next frame's."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rfdetr_foundationpose.config import Config
from rfdetr_foundationpose.latency import StageTimer
from rfdetr_foundationpose.pipeline import FrameResult
from rfdetr_foundationpose.ros import telemetry
from rfdetr_foundationpose.ros.telemetry import Telemetry
from rfdetr_foundationpose.types import CameraIntrinsics, Frame
from support.ros_support import wait_for

CAMERA = CameraIntrinsics(5.0, 5.0, 2.0, 2.0, 4, 4)


class Publisher:
    def get_subscription_count(self) -> int:
        return 0


@pytest.fixture(autouse=True)
def times(monkeypatch):
    """What it waits for comes, or the test would take ten minutes."""
    for name in ("GRACE", "RARE"):
        monkeypatch.setattr(telemetry, name, 600.0)


@pytest.fixture()
def made():
    """A thread whose latencies are asked for ten times a second, and how often they were."""
    asked, timer = [], StageTimer()
    node = SimpleNamespace(create_publisher=lambda *_: Publisher())

    def latency() -> dict:
        asked.append(time.monotonic())
        return {}

    config = Config()
    config.debug.diagnostics_rate = 0.1
    found = Telemetry(node, timer, lambda: config, latency, lambda: None, lambda *_: None)
    found._diagnose = lambda _health: []
    found._publish_diagnostics = lambda: None
    yield found, asked
    assert found.stop(60)


def result() -> FrameResult:
    return FrameResult(
        Frame(0, "", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16), 0.001, CAMERA), [], None, []
    )


def test_without_frames_it_is_done_when_it_is_due(made):
    thread, asked = made
    thread.start()
    wait_for(lambda: len(asked) >= 5, "five times")


def test_between_frames_it_waits_for_the_end_of_the_next_one(made, monkeypatch):
    monkeypatch.setattr(telemetry, "JUST", 0.05)
    thread, asked = made
    thread.offer(result())
    time.sleep(0.1)
    thread.start()
    time.sleep(0.5)
    assert asked == []

    def ended(count: int) -> bool:
        thread.offer(result())
        return len(asked) >= count

    for count in (1, 2, 3):
        wait_for(lambda count=count: ended(count), "the end of a frame")
    known = len(asked)
    time.sleep(0.5)
    assert len(asked) <= known + 1  # what was due within JUST of the last one


def test_where_no_frame_ends_it_waits_no_longer_than_the_grace(made, monkeypatch):
    monkeypatch.setattr(telemetry, "GRACE", 0.2)
    thread, asked = made
    thread.offer(result())
    thread.start()
    wait_for(lambda: len(asked) >= 3, "three times")


def test_the_end_comes_while_it_waits_for_a_frame(made):
    thread, _ = made
    thread.offer(result())
    time.sleep(0.05)
    thread.start()
    ended = threading.Event()
    threading.Thread(target=lambda: thread.stop(60) and ended.set(), daemon=True).start()
    assert ended.wait(60)
