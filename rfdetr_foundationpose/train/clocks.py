"""How long the parts of a training step take, and a limit for what may take too long."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

import torch


class StepWatch:
    """Milliseconds of a step's parts, where ``on``."""

    def __init__(self, device: torch.device, on: bool) -> None:
        self.device, self.on = device, on
        self.laps: dict[str, float] = {}
        self.since = self._now() if on else 0.0

    def lap(self, name: str) -> None:
        if self.on:
            now = self._now()
            self.laps[name] = (now - self.since) * 1e3
            self.since = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the main thread."""

    def late(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
