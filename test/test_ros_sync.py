"""Pairs by stamp: newest wins, exact and approximate, counted; the order of frames in time."""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rfdetr_foundationpose.ros import sync
from rfdetr_foundationpose.ros.stamps import StampGuard
from support.ros_support import PATIENCE

MS = 1_000_000


def message(ms: float) -> SimpleNamespace:
    sec, nanosec = divmod(round(ms * MS), 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)), ms=ms)


class Bench:
    """Two filters, a pair synchronizer, and the pairs that came out."""

    def __init__(self, slop: float | None = None) -> None:
        self.rgb, self.depth = sync.SimpleFilter(), sync.SimpleFilter()
        self.pairs: list[tuple[float, float]] = []
        self.sync = sync.PairSynchronizer(self.rgb, self.depth, self.take, slop)

    def take(self, rgb: SimpleNamespace, depth: SimpleNamespace) -> None:
        self.pairs.append((rgb.ms, depth.ms))

    def feed(self, *events: tuple[str, float]) -> None:
        for name, ms in events:
            getattr(self, name).signalMessage(message(ms))


def test_exact_pairs_in_any_order_of_arrival():
    bench = Bench()
    bench.feed(("rgb", 0), ("depth", 0), ("depth", 33), ("rgb", 33), ("rgb", 66), ("depth", 66.000001))
    assert bench.pairs == [(0, 0), (33, 33)]


def test_a_match_discards_what_is_older():
    bench = Bench()
    bench.feed(("rgb", 0), ("rgb", 33), ("depth", 33), ("depth", 0))
    assert bench.pairs == [(33, 33)]
    assert bench.sync.counts() == {"rgb": 2, "depth": 2, "pairs": 1, "unmatched_rgb": 1, "unmatched_depth": 0}


def test_approximate_takes_the_nearest_within_slop():
    bench = Bench(slop=0.02)
    bench.feed(("depth", 0), ("depth", 30), ("rgb", 22))
    assert bench.pairs == [(22, 30)]
    bench.feed(("rgb", 60), ("depth", 81))
    assert len(bench.pairs) == 1


def test_a_steady_shift_of_20_ms_pairs_every_frame():
    bench = Bench(slop=0.021)
    for i in range(50):
        bench.feed(("depth", 100 * i + 20), ("rgb", 100 * i))
    assert bench.pairs == [(100 * i, 100 * i + 20) for i in range(50)]


def test_unmatched_are_counted_and_the_queues_are_bounded():
    bench = Bench()
    for i in range(100):
        bench.feed(("rgb", 33 * i), ("depth", 33 * i + 7))
    counts = bench.sync.counts()
    assert counts["pairs"] == 0
    assert counts["unmatched_rgb"] == counts["unmatched_depth"] == 100 - sync.PairSynchronizer.QUEUE


def test_every_message_is_paired_waiting_or_unmatched():
    rng = random.Random(0)
    bench = Bench(slop=0.01)
    for i in range(500):
        events = [("rgb", 33 * i + rng.uniform(-4, 4)), ("depth", 33 * i + rng.uniform(-9, 9))]
        rng.shuffle(events)
        bench.feed(*[e for e in events if rng.random() > 0.2])
    counts = bench.sync.counts()
    assert counts["pairs"] == len(bench.pairs) > 200
    assert all(abs(a - b) <= 10 for a, b in bench.pairs)
    assert [a for a, _ in bench.pairs] == sorted(a for a, _ in bench.pairs)
    for name in ("rgb", "depth"):
        waiting = counts[name] - counts["pairs"] - counts[f"unmatched_{name}"]
        assert 0 <= waiting <= sync.PairSynchronizer.QUEUE


def test_clear_forgets_what_waits():
    bench = Bench()
    bench.feed(("rgb", 0))
    bench.sync.clear()
    bench.feed(("depth", 0))
    assert bench.pairs == []


def test_a_recording_that_loops_is_paired_again():
    """The node makes the synchronizer forget from inside the callback of the first pair after the jump. Images left over
    from the first round, newer than all that follows, hold nothing up."""

    class Node(Bench):
        guard = StampGuard()

        def take(self, rgb: SimpleNamespace, depth: SimpleNamespace) -> None:
            super().take(rgb, depth)
            if self.guard.check(round(rgb.ms * MS)) == "jump":
                self.sync.clear()

    node = Node()
    for _ in range(2):
        for i in range(0, 3000, 100):
            node.feed(("rgb", i), ("depth", i))
        node.feed(*(("rgb", 5000 + i) for i in range(2 * sync.PairSynchronizer.QUEUE)))
    assert node.pairs == [(i, i) for i in range(0, 3000, 100)] * 2


@pytest.mark.parametrize(("size", "slop"), [(0, 0.1), (5, -0.1)])
def test_impossible_settings_are_refused(size, slop):
    with pytest.raises(ValueError, match="must"):
        sync.ApproximateTimeSynchronizer([sync.SimpleFilter()], size, slop)


def test_stamps_in_order_late_and_after_a_jump():
    guard = StampGuard()
    assert [guard.check(ms * MS) for ms in (0, 33, 66, 50, 99)] == ["ok", "ok", "ok", "late", "ok"]
    assert guard.check(99 * MS) == "late"
    assert guard.check(99 * MS - 2_000 * MS) == "jump"
    assert guard.check(99 * MS - 1_950 * MS) == "ok"


def test_a_short_recording_that_loops_is_a_jump_after_a_few_frames():
    guard = StampGuard()
    loop = [guard.check(i * 30 * MS) for _ in range(2) for i in range(20)]
    assert loop.count("jump") == 1
    assert loop[-1] == "ok"


def test_message_filters_makes_the_same_pairs_behind_the_same_interface():
    """Exact and approximate, out of order, with drops, and when the recording starts again."""
    filters = pytest.importorskip("message_filters", reason="message_filters is not installed")
    from builtin_interfaces.msg import Time

    from rfdetr_foundationpose.ros.sync_library import FilterSynchronizer

    rng = random.Random(0)
    for slop in (None, 0.02):
        ours, theirs = [], []
        mine = sync.SimpleFilter(), sync.SimpleFilter()
        other = filters.SimpleFilter(), filters.SimpleFilter()
        ends = (
            sync.PairSynchronizer(*mine, lambda a, b, out=ours: out.append((a.ms, b.ms)), slop),
            FilterSynchronizer(*other, lambda a, b, out=theirs: out.append((a.ms, b.ms)), slop),
        )
        for loop in range(2):
            for i in range(50):
                events = [(0, 33.0 * i), (1, 33.0 * i + (0.0 if slop is None else 5.0))]
                rng.shuffle(events)
                for which, ms in events[: 1 if rng.random() < 0.2 else 2]:
                    sec, nanosec = divmod(round(ms * MS), 10**9)
                    header = SimpleNamespace(stamp=Time(sec=sec, nanosec=nanosec))
                    for pair in (mine, other):
                        pair[which].signalMessage(SimpleNamespace(header=header, ms=ms, loop=loop))
            ends[0].clear()  # the node does so when a pair's stamp jumps back
        assert len(ours) > 60
        assert theirs == ours
        assert ends[0].counts()["pairs"] == ends[1].counts()["pairs"]


@pytest.mark.parametrize("library", ["own", "message_filters"])
def test_the_counts_are_right_whenever_somebody_looks(library):
    """As the thread that publishes diagnostics does, wherever a message is on its way."""
    if library == "message_filters":
        pytest.importorskip("message_filters", reason="message_filters is not installed")
        from builtin_interfaces.msg import Time
    else:
        Time = SimpleNamespace
    from rfdetr_foundationpose.ros import sync_library

    rgb, depth = sync.SimpleFilter(), sync.SimpleFilter()
    asked: list[threading.Thread] = []
    seen: list[dict[str, int]] = []

    def look(*_message) -> None:
        counting = threading.Thread(target=lambda: seen.append(made.counts()), daemon=True)
        counting.start()
        asked.append(counting)
        counting.join(0.05)  # or once the message is where it belongs

    made = sync_library.choose(library)[1](rgb, depth, look, None)
    for source in (rgb, depth):
        source.callbacks = [step for callback in source.callbacks for step in ((look, ()), callback)] + [(look, ())]
    for ms in (0, 33, 66):
        for source in (depth, rgb):
            sec, nanosec = divmod(ms * MS, 10**9)
            source.signalMessage(SimpleNamespace(header=SimpleNamespace(stamp=Time(sec=sec, nanosec=nanosec)), ms=ms))
    for counting in asked:
        counting.join(PATIENCE)
    assert len(seen) == len(asked) > 12
    assert all(counts["unmatched_rgb"] == counts["unmatched_depth"] == 0 for counts in seen), seen
    assert seen[-1] == {"rgb": 3, "depth": 3, "pairs": 3, "unmatched_rgb": 0, "unmatched_depth": 0}


def test_the_library_that_is_asked_for_is_taken_or_named(monkeypatch):
    from rfdetr_foundationpose.ros import compat, sync_library

    monkeypatch.setattr(compat, "message_filters", None)
    assert sync_library.choose("own")[1] is sync.PairSynchronizer
    assert sync_library.choose("auto")[1] is sync.PairSynchronizer
    with pytest.raises(ImportError, match="message-filters"):
        sync_library.choose("message_filters")
    filters = SimpleNamespace(Subscriber=object)
    monkeypatch.setattr(compat, "message_filters", filters)
    assert sync_library.choose("auto") == (object, sync_library.FilterSynchronizer)
    assert sync_library.choose("own")[1] is sync.PairSynchronizer
