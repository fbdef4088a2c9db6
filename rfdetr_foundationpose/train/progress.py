"""How a training runs for the person who started it: a bar with the time that is left, a budget, saves, Ctrl-C.

All trainings share these habits: the budget counts training alone, the state is saved every minute and on Ctrl-C, the
same command goes on from it, and weights of too few steps are never written as a result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from ..errors import UserError

SAVE_SECONDS = 60.0
WARM_UP_STEPS, WARM_UP_SHARE = 300, 0.1
"""The learning rate rises over so many steps, or over this share of the budget where that is shorter."""


class TrainingError(UserError, ValueError):
    """A training that cannot begin or go on as asked; the message says what to change."""


class TooFewSteps(TrainingError):
    """So few training steps fit the budget that the weights would be no better than what they started from."""


class TrainingProgress:
    """A bar over the phases of one call and the time that is left of all of them.

    phases: name -> expected seconds, in order; better estimates come with ``expect`` and from how fast a phase gets on.
    Where the output is no terminal, a line every ``interval`` seconds says the same. Use as a context manager.
    """

    def __init__(
        self,
        phases: Mapping[str, float],
        console: Console | None = None,
        *,
        interval: float = 30.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = dict(phases)
        self._console = console or Console()
        self._interval, self._now = interval, now
        self._begin = self._phase_begin = self._spoken = now()
        self._phase, self._fraction = next(iter(phases)), 0.0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=self._console)
        self._task = self._bar.add_task(self._phase, total=1.0, left="")

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        self._show("")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, phase: str) -> None:
        """Enter a phase. Raises KeyError for one that was not announced."""
        self._expected[phase]
        self._phase, self._fraction, self._phase_begin = phase, 0.0, self._now()
        self._show("")

    def expect(self, phase: str, seconds: float) -> None:
        """A better estimate of how long a phase takes as a whole."""
        self._expected[phase] = seconds

    def update(self, fraction: float, detail: str = "") -> None:
        """How far the phase is, 0 to 1."""
        self._fraction = min(max(fraction, 0.0), 1.0)
        self._show(detail)

    @property
    def remaining(self) -> float:
        """Seconds left of all phases, as far as is known."""
        names = list(self._expected)
        later = sum(self._expected[name] for name in names[names.index(self._phase) + 1 :])
        elapsed = self._now() - self._phase_begin
        # What was announced counts until the phase has shown its own speed.
        weight = min(1.0, self._fraction / 0.1)
        measured = elapsed / self._fraction if self._fraction > 0 else 0.0
        total = (1 - weight) * self._expected[self._phase] + weight * measured
        return max(total - elapsed, 0.0) + later

    def _show(self, detail: str) -> None:
        now, left = self._now(), self.remaining
        passed = now - self._begin
        share = passed / max(passed + left, 1e-9)
        text = f"{clock(left)} left" + (f"  {detail}" if detail else "")
        self._bar.update(self._task, completed=share, description=f"{self._phase:<8}", left=text)
        if not self._console.is_terminal and now - self._spoken >= self._interval:
            self._spoken = now
            self._say(f"{self._phase} {share:.0%}, {text}")


def clock(seconds: float) -> str:
    """1:05 or 2:03:00."""
    whole = math.ceil(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class Every:
    """``due()`` is true once every ``seconds``."""

    def __init__(self, seconds: float = SAVE_SECONDS, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._now = seconds, now
        self._last = now()

    def due(self) -> bool:
        if self._now() - self._last < self._seconds:
            return False
        self._last = self._now()
        return True


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """torch.save that never leaves half a file: whoever pulls the plug keeps the state before."""
    part = path.with_name(path.name + ".part")
    torch.save(dict(state), part)
    part.replace(path)


def learning_rate(peak: float, step: int, done: float) -> float:
    """Linear warm-up that fits the budget, then half a cosine. step: from 0. done: share of the budget spent."""
    warm = min(1.0, max((step + 1) / WARM_UP_STEPS, done / WARM_UP_SHARE))
    return max(peak * warm * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))), 1e-6)


def check_budget(done_steps: int, seconds_left: float, step_seconds: float, least: int, advice: str) -> None:
    """Raises TooFewSteps when the steps done and those that still fit are fewer than ``least``. advice: what to change."""
    expected = done_steps + seconds_left / max(step_seconds, 1e-9)
    if expected < least:
        raise TooFewSteps(
            f"about {max(int(expected), 1)} training steps fit the budget (a step takes {step_seconds:.2g} s), at least "
            f"{least} are needed for weights worth having; {advice}"
        )
