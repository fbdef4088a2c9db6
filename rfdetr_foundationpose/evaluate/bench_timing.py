"""Measuring: interleaved repetitions, whole durations, memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..latency import percentile

STAGES = ("detector", "preprocess", "register", "track", "publish")


@dataclass(frozen=True)
class Stats:
    """Milliseconds."""

    count: int
    avg: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: list[float]) -> Stats:
        """Raises ValueError for an empty list."""
        if not values:
            raise ValueError("no samples")
        s = sorted(values)
        return cls(len(s), sum(s) / len(s), percentile(s, 50), percentile(s, 95), percentile(s, 99), s[-1])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was enqueued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Milliseconds of a call from an idle device to an idle device, and its result."""
    synchronize(device)
    begin = time.perf_counter()
    result = call()
    synchronize(device)
    return (time.perf_counter() - begin) * 1e3, result


def interleave(
    calls: Mapping[str, Callable[[int], float]],
    repetitions: int,
    advance: Callable[[], None] = lambda: None,
    samples: dict[str, list[float]] | None = None,
) -> dict[str, list[float]]:
    """``repetitions`` samples of every call, in rounds, each starting with another one: drift favours none.

    A call takes the round's number and returns its own milliseconds. samples: filled as they come, for who must not lose
    them when the user interrupts.
    """
    names = list(calls)
    samples = {} if samples is None else samples
    samples.update({name: [] for name in names})
    for round_number in range(repetitions):
        start = round_number % max(len(names), 1)
        for name in (*names[start:], *names[:start]):
            samples[name].append(calls[name](round_number))
            advance()
    return samples


def memory_in_use(device: torch.device) -> float | None:
    """What the whole device has in use, MB, that of torch's cache not counted; None on a CPU."""
    if device.type != "cuda":
        return None
    gc.collect()
    synchronize(device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 1e6


class MemoryMeter:
    """What a row adds to the memory that torch holds on a CUDA device; None elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def start(self) -> None:
        if self._device.type == "cuda":
            synchronize(self._device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_reserved(self._device)

    def settle(self) -> None:
        """Forget the peak so far, e.g. that of preparing and tuning, but not what is still held."""
        if self._device.type == "cuda":
            synchronize(self._device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)

    def peak_mb(self) -> float | None:
        """Largest growth since ``start``, MB: weights, static buffers, graph pools and working memory."""
        if self._device.type != "cuda":
            return None
        synchronize(self._device)
        return (torch.cuda.max_memory_reserved(self._device) - self._before) / 1e6
