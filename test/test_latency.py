"""Stages on a device: timed by events that nobody waits for, and that are used again."""

from __future__ import annotations

import pytest
import torch

from rfdetr_foundationpose import latency
from rfdetr_foundationpose.latency import StageTimer


class Event:
    """torch.cuda.Event on a clock of its own; done when ``finished`` has passed it."""

    made = 0
    clock = 0.0
    finished = float("inf")

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        type(self).made += 1

    def record(self, _stream) -> None:
        Event.clock += 1.0
        self.at = Event.clock

    def query(self) -> bool:
        return self.at <= Event.finished

    def elapsed_time(self, end: Event) -> float:
        return end.at - self.at


@pytest.fixture()
def timer(monkeypatch) -> StageTimer:
    Event.made, Event.clock, Event.finished = 0, 0.0, float("inf")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    return StageTimer("cuda")


def test_a_stage_is_read_when_somebody_asks_and_not_before_it_is_over(timer):
    with timer.stage("track"), timer.stage("inner"):
        pass
    Event.finished = 3.0  # the inner one is
    assert {name: s.last for name, s in timer.stats().items()} == {"inner": 1.0}
    Event.finished = float("inf")
    assert {name: (s.count, s.last) for name, s in timer.stats().items()} == {"inner": (1, 1.0), "track": (1, 3.0)}


def test_events_are_used_again_whether_or_not_somebody_asks(timer):
    for _ in range(10 * latency.PENDING):
        with timer.stage("track"):
            pass
    assert Event.made <= 2 * (latency.PENDING + 2)
    for _ in range(10 * latency.PENDING):
        with timer.stage("track"):
            pass
        timer.stats()
    found = timer.stats()["track"]
    assert Event.made <= 2 * (latency.PENDING + 2) and found.count == 20 * latency.PENDING and found.max == 1.0


def test_what_never_ends_is_kept_until_it_is_forgotten(timer):
    Event.finished = 0.0
    for _ in range(2 * latency.PENDING):
        with timer.stage("track"):
            pass
    assert timer.stats() == {}
    timer.clear()
    Event.finished = float("inf")
    assert timer.stats() == {}


@pytest.mark.gpu
def test_on_a_gpu_a_stage_takes_what_its_kernels_take():
    timer, x = StageTimer("cuda"), torch.rand(4096, 4096, device="cuda")
    for _ in range(3 * latency.PENDING):
        with timer.stage("product"):
            x @ x
        with timer.stage("nothing"):
            pass
    torch.cuda.synchronize()
    found = timer.stats()
    assert found["product"].count == found["nothing"].count == 3 * latency.PENDING
    assert found["product"].p50 > found["nothing"].p50
