"""SIGINT, SIGTERM and SIGHUP, waited for instead of handled, so that no library can take them away. Needs no rclpy.

NVRTC (measured with 13.0) puts handlers of its own in while it compiles, which end the process with status 4, and puts the
old ones back so that they interrupt no wait any more. A signal that is blocked in every thread stays until ``sigtimedwait``
takes it, whatever the handlers are.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from . import shared_memory

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The clock and the parent are looked at with this period, in seconds.
TICK = 0.2
# A terminal's Ctrl-C comes twice, from the terminal and from ros2 launch; a second wish comes later than this, in seconds.
SAME_WISH = 0.5
# The process ends at most so many seconds after the first signal.
LIMIT = 2.5
# This variable holds the parent's process id for a node that is to end with it.
PARENT = "RFDETR_FOUNDATIONPOSE_PARENT"


class Stop:
    """The wish to end, by a signal, the end of the parent that started the process for itself, or ``set``.

    To be made by the main thread before other threads exist: they inherit its blocked signals. So do child processes.
    Until ``begin`` is called a signal ends the process at once (status 128 + its number): there is nothing to clean up.
    Afterwards the first sets the event; a second one, or ``LIMIT`` seconds, end the process wherever it is.
    """

    def __init__(self) -> None:
        # nohup's wish stays.
        self._signals = [s for s in SIGNALS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        self._event = threading.Event()
        self._begun = False
        self._left = threading.Lock()
        self.unfinished: Callable[[], list[str]] = list
        parent = os.environ.pop(PARENT, "")
        self._parent = int(parent) if parent.isdigit() else None
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def begin(self) -> None:
        """From now on there is something to end in order."""
        self._begun = True

    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    def wait(self) -> None:
        """Until the wish comes."""
        while not self._event.wait(TICK):
            pass

    def leave(self, status: int, why: str = "") -> NoReturn:
        """End the process now, without its threads; says what they still do. Never returns."""
        self._left.acquire()  # for good: one thread leaves
        if why:
            still = ", ".join(self.unfinished()) or "the end of the libraries"
            with suppress(OSError, ValueError):
                print(f"pose_node: {why}; left behind: {still}", file=sys.stderr, flush=True)
        shared_memory.abandon()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)

    def _watch(self) -> None:
        first: float | None = None
        while True:
            info = signal.sigtimedwait(self._signals, TICK)
            now = time.monotonic()
            if info is not None and not self._begun:
                self.leave(128 + info.si_signo)
            if info is not None and first is not None and now - first > SAME_WISH:
                self.leave(128 + info.si_signo, "second signal")
            if first is None and (info is not None or self._orphaned()):
                first = now
                self._event.set()
            if first is not None and now - first > LIMIT:
                self.leave(0, f"not ended within {LIMIT:g} s")

    def _orphaned(self) -> bool:
        return self._parent is not None and os.getppid() != self._parent
