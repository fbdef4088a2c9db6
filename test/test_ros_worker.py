"""Newest wins, and the books balance."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rfdetr_foundationpose.ros.worker import LatestFrame, Pair, Worker, check_age
from rfdetr_foundationpose.types import InputError


def pair(number: int) -> Pair:
    return Pair(None, None, number, time.monotonic())


def balanced(latest: LatestFrame) -> bool:
    tally = latest.tally()
    return tally.received == tally.processed + sum(tally.dropped.values()) + tally.in_flight


def run(handle, numbers, latest=None):
    """A worker that was given the numbered pairs one by one; returns the mailbox and reported errors."""
    latest = latest or LatestFrame()
    errors: list[tuple[str, Exception]] = []
    worker = Worker(latest, lambda kind, error: errors.append((kind, error)))
    worker.start(handle)
    for number in numbers:
        latest.put(pair(number))
        assert balanced(latest)
        time.sleep(0.002)
    deadline = time.monotonic() + 60
    while latest.tally().in_flight and time.monotonic() < deadline:
        time.sleep(0.005)
    assert worker.stop(60)
    return latest, errors


def test_the_newest_is_processed_and_the_rest_counted_as_replaced():
    seen: list[int] = []
    begun, release = threading.Event(), threading.Event()

    def handle(p: Pair) -> None:
        seen.append(p.stamp_ns)
        begun.set()
        assert release.wait(60)

    latest = LatestFrame()
    worker = Worker(latest, lambda *_: None)
    worker.start(handle)
    latest.put(pair(0))
    assert begun.wait(60)
    for number in range(1, 6):
        latest.put(pair(number))
    assert worker.busy_for() > 0
    release.set()
    while latest.tally().in_flight:
        time.sleep(0.005)
    assert worker.stop(60)
    assert seen == [0, 5]
    assert latest.tally().dropped == {"replaced": 4}
    assert latest.tally().processed == 2
    assert worker.busy_for() == 0


def test_skips_and_failures_are_counted_under_their_kind_and_do_not_end_the_thread():
    def handle(p: Pair) -> None:
        if p.stamp_ns % 3 == 1:
            raise InputError("bad_depth", "depth is bad")
        if p.stamp_ns % 3 == 2:
            raise RuntimeError("unforeseen")

    latest, errors = run(handle, range(60))
    tally = latest.tally()
    assert balanced(latest)
    assert tally.in_flight == 0
    assert tally.dropped["bad_depth"] > 0
    assert tally.dropped["pipeline_error"] > 0
    assert {kind for kind, _ in errors} == {"bad_depth", "pipeline_error"}


@pytest.mark.parametrize(
    ("age", "limit", "said"),
    [
        (0.4, 0.5, None),
        (-3.0, 0.5, None),
        (1e9, 0.0, None),
        (0.9, 0.5, r"frame is 0.90 s old, more than input.max_age=0.5 s; for a recording play with --clock"),
        (6e7, 0.5, "frame is 60000000.00 s old"),
        (
            1.79e9,
            0.5,
            r"stamped 57 years before ROS time, as by a device's own clock .* driver stamp .* use_sim_time",
        ),
    ],
)
def test_what_is_too_old_is_told_from_what_is_stamped_by_another_clock(age, limit, said):
    if said is None:
        check_age(age, limit)
        return
    with pytest.raises(InputError, match=said) as found:
        check_age(age, limit)
    assert found.value.kind == "stale"


def test_stop_drops_what_waits_and_start_goes_on():
    latest, _ = run(lambda p: None, range(5))
    before = latest.tally()
    latest.put(pair(9))
    latest.close("deactivated")
    assert latest.tally().dropped.get("deactivated", 0) == before.dropped.get("deactivated", 0) + 1
    latest, _ = run(lambda p: None, range(5), latest)
    assert balanced(latest)
    assert latest.tally().received == 11


def test_what_comes_after_the_end_is_counted_and_not_kept_for_the_next_start():
    """A callback may be under way when the subscriptions are taken away."""
    latest, _ = run(lambda p: None, range(3))
    before = latest.tally().dropped.get("deactivated", 0)
    latest.put(pair(3))
    assert latest.tally().dropped["deactivated"] == before + 1
    assert balanced(latest) and latest.tally().in_flight == 0
    latest.open()
    assert latest.take(0) is None
    latest.put(pair(4))
    assert latest.take(0).stamp_ns == 4
    latest.done(None)
    assert balanced(latest)


def test_stop_says_when_a_frame_does_not_end():
    release = threading.Event()
    latest = LatestFrame()
    worker = Worker(latest, lambda *_: None)
    worker.start(lambda p: release.wait(60))
    latest.put(pair(0))
    while worker.busy_for() == 0:
        time.sleep(0.002)
    assert not worker.stop(0.05)
    release.set()
    assert worker.stop(60)


def test_a_thread_that_outlived_its_stop_keeps_a_new_one_from_starting_and_takes_nothing_more():
    """Two at once would own the pipeline together."""
    release = threading.Event()
    seen: list[int] = []

    def handle(p: Pair) -> None:
        seen.append(p.stamp_ns)
        assert release.wait(60)

    def workers() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "pose_worker"]

    latest = LatestFrame()
    worker = Worker(latest, lambda *_: None)
    assert worker.start(handle)
    latest.put(pair(0))
    while worker.busy_for() == 0:
        time.sleep(0.002)
    assert not worker.stop(0.05)
    (old,) = workers()
    assert not worker.start(handle)
    assert workers() == [old]
    release.set()
    old.join(60)
    assert worker.start(handle)
    (new,) = workers()
    assert new is not old
    latest.put(pair(1))
    while latest.tally().in_flight:
        time.sleep(0.005)
    assert worker.stop(60)
    assert seen == [0, 1]
    assert balanced(latest)


def test_rate_and_silence():
    latest = LatestFrame()
    assert latest.rate(0.0) == 0.0
    assert latest.silence(0.0) is None
    for i in range(11):
        latest.put(Pair(None, None, i, 100 + i * 0.1))
    assert latest.rate(101.0) == pytest.approx(10.0)
    assert latest.silence(103.0) == pytest.approx(2.0)
    assert latest.rate(200.0) == 0.0


def test_processed_rate_counts_what_was_processed_and_not_what_was_dropped():
    latest = LatestFrame()
    for i in range(20):
        latest.put(pair(i))
        assert latest.take(1.0) is not None
        latest.done("bad_depth" if i % 2 else None)
        time.sleep(0.01)
    now = time.monotonic()
    assert 0 < latest.processed_rate(now) <= 50.0
    assert latest.processed_rate(now + 10.0) == 0.0
    latest.open()
    assert latest.processed_rate(now) == 0.0


def test_refused_pairs_are_counted():
    latest = LatestFrame()
    latest.refuse("out_of_order")
    assert latest.tally().received == 1
    assert latest.tally().dropped == {"out_of_order": 1}
    assert balanced(latest)
