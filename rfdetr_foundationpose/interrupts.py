"""Ctrl-C as a wish: the loop ends after the step it is at, so that what there is can be kept."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)

KEPT = "stopping after this step; what there is is kept (Ctrl-C again ends at once)"


class Interruptible:
    """While open, the first Ctrl-C (or SIGTERM) only sets ``requested``. A second one ends at once.

    status: what the process is to end with then, 128 + the signal's number; 0 before. Outside the main thread, where
    Python delivers no signals, it changes nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self.status = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def stop(self) -> bool:
        """Whether the loop is to end."""
        return self.requested

    def checked(self, advance: Callable[[int], None]) -> Callable[[int], None]:
        """``advance``, after which KeyboardInterrupt is raised once the wish was uttered: for loops that ask nobody."""

        def called(done: int) -> None:
            advance(done)
            if self.requested:
                raise KeyboardInterrupt

        return called

    @contextmanager
    def ends_here(self) -> Iterator[None]:
        """A KeyboardInterrupt that ``checked`` raised ends the body, not the command."""
        try:
            yield
        except KeyboardInterrupt:
            if not self.requested:
                raise

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.status = 128 + number
        self._restore()
        logger.info(KEPT)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
