"""Where every millisecond goes: a stage timer that never waits for the device in the hot path."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import torch

STAGES = ("convert", "detector", "preprocess", "register", "track", "publish", "visualize", "end_to_end")


@dataclass(frozen=True)
class StageStats:
    """Milliseconds over the rolling window; count is since the start."""

    count: int
    last: float
    mean: float
    p50: float
    p95: float
    max: float


class StageTimer:
    """Rolling per-stage latency. Thread-safe.

    On CUDA a stage is bracketed by events on the current stream and read when they have completed,
    so timing adds no synchronization; ``stats`` harvests what is ready.
    """

    def __init__(self, device: torch.device | str = "cpu", window: int = 512) -> None:
        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self._window = window
        self._values: dict[str, deque[float]] = {}
        self._counts: dict[str, int] = {}
        self._pending: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._lock = Lock()

    @contextmanager
    def stage(self, name: str, *, on_device: bool = True) -> Iterator[None]:
        """Time the body: device time where it runs on CUDA and ``on_device``, else wall time."""
        if self._cuda and on_device:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self._device)
            start.record(stream)
            yield
            end.record(stream)
            with self._lock:
                self._pending.append((name, start, end))
                self._harvest()
        else:
            begin = time.perf_counter()
            yield
            self.add(name, (time.perf_counter() - begin) * 1e3)

    def add(self, name: str, milliseconds: float) -> None:
        """Record a duration that was measured elsewhere."""
        with self._lock:
            self._store(name, milliseconds)

    def _store(self, name: str, milliseconds: float) -> None:
        self._values.setdefault(name, deque(maxlen=self._window)).append(milliseconds)
        self._counts[name] = self._counts.get(name, 0) + 1

    def _harvest(self) -> None:
        while self._pending and self._pending[0][2].query():
            name, start, end = self._pending.popleft()
            self._store(name, start.elapsed_time(end))

    def stats(self) -> dict[str, StageStats]:
        """Statistics of every stage seen so far. Does not wait for the device."""
        with self._lock:
            self._harvest()
            snapshot = {name: (self._counts[name], list(values)) for name, values in self._values.items()}
        return {name: _summarize(count, values) for name, (count, values) in snapshot.items()}

    def clear(self) -> None:
        """Forget everything, e.g. after warm-up."""
        with self._lock:
            self._values.clear()
            self._counts.clear()
            self._pending.clear()


def percentile(ordered: list[float], q: float) -> float:
    """Linear-interpolated percentile of an ascending, non-empty list; q in [0, 100]."""
    position = (len(ordered) - 1) * q / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _summarize(count: int, values: list[float]) -> StageStats:
    ordered = sorted(values)
    return StageStats(
        count, values[-1], sum(values) / len(values), percentile(ordered, 50), percentile(ordered, 95), ordered[-1]
    )
