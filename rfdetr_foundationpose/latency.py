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


# So many stages on a device wait for ``stats`` to read them; of more, two are read with each new one.
PENDING = 32


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
    so timing adds no synchronization; ``stats`` harvests what is ready, and their events are used again.
    """

    def __init__(self, device: torch.device | str = "cpu", window: int = 512) -> None:
        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self._window = window
        self._values: dict[str, deque[float]] = {}
        self._counts: dict[str, int] = {}
        self._pending: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._free: list[torch.cuda.Event] = []
        self._lock = Lock()

    @contextmanager
    def stage(self, name: str, *, on_device: bool = True) -> Iterator[None]:
        """Time the body: device time where it runs on CUDA and ``on_device``, else wall time."""
        if self._cuda and on_device:
            start, end = self._event(), self._event()
            stream = torch.cuda.current_stream(self._device)
            start.record(stream)
            yield
            end.record(stream)
            with self._lock:
                self._pending.append((name, start, end))
                if len(self._pending) > PENDING:
                    self._harvest(2)
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

    def _event(self) -> torch.cuda.Event:
        with self._lock:
            return self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)

    def _harvest(self, most: int | None = None) -> None:
        for _ in range(len(self._pending) if most is None else most):
            name, start, end = self._pending[0]
            if not end.query():
                return
            self._pending.popleft()
            self._store(name, start.elapsed_time(end))
            self._free += (start, end)

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
