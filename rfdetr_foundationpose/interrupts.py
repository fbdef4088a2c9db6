"""Ctrl-C and SIGTERM in commands: heard whatever libraries do, and a wish, so that what there is can be kept."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, NoReturn

logger = logging.getLogger(__name__)

KEPT = "stopping after this step; what there is is kept (Ctrl-C again ends at once)"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Interrupts a wait of the main thread; whoever does not know it ignores it.
WAKE = signal.SIGURG
TICK = 0.2
# Seconds that the main thread has for hearing a signal, which it does between two steps of Python.
PATIENCE = 2.5
# A terminal's Ctrl-C may come twice, from the terminal and from a program that started this one; a second wish is later (s).
SAME_WISH = 0.5


@dataclass(frozen=True)
class Watch:
    """Who follows a long piece of work. advance: gets the number of steps done and of all. stop: asked after each step; once it
    says True the work ends, with what there is so far."""

    advance: Callable[[int, int], None] = lambda done, total: None
    stop: Callable[[], bool] = lambda: False


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def status_of(interrupt: KeyboardInterrupt) -> int:
    """The exit status that says so: 128 + the number of the signal, which where none is named is the last one heard."""
    if isinstance(interrupt, Interrupted):
        return 128 + interrupt.number
    return 128 + (_listener.last if _listener is not None else signal.SIGINT)


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
        begin()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
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
                raise Interrupted(self.status - 128)

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
        _heard()
        self.requested = True
        self.status = 128 + number
        self._restore()
        logger.info(KEPT)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()


class CutShort:
    """While open, Ctrl-C (or SIGTERM) ends the body at once, but not the command. requested, status: as Interruptible's."""

    def __init__(self) -> None:
        self.requested = False
        self.status = 0

    def __enter__(self) -> CutShort:
        begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, KeyboardInterrupt):
            return False
        self.requested, self.status = True, status_of(error)
        return True


class _Listener:
    """Takes the process's signals, which are blocked in every thread, and has Python's handlers run by the main thread."""

    def __init__(self, name: str, clean_up: Callable[[], None]) -> None:
        self._name, self._clean_up = name, clean_up
        self._main = threading.main_thread()
        self.begun = self.over = False
        self.heard = True
        self.last: int = signal.SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish stays
                signal.signal(number, _raise)
        signal.signal(WAKE, lambda *_: None)
        os.register_at_fork(after_in_child=unblock)
        threading.Thread(target=self._run, name="signals", daemon=True).start()

    def _run(self) -> None:
        delivered = -SAME_WISH
        while True:
            number = signal.Signals(signal.sigwait(SIGNALS))
            if time.monotonic() - delivered < SAME_WISH or signal.getsignal(number) == signal.SIG_IGN:
                continue
            if self.over or not self.begun or not self.heard:
                self._leave(number)
            delivered = time.monotonic()
            self._deliver(number)

    def _deliver(self, number: signal.Signals) -> None:
        """Have the main thread run its handler; say so when it does not for long."""
        handler = signal.getsignal(number)
        self.last = number
        self.heard = not (handler is _raise or isinstance(getattr(handler, "__self__", None), Interruptible))
        _thread.interrupt_main(number)
        signal.pthread_kill(self._main.ident or 0, WAKE)
        begin = time.monotonic()
        while not self.heard and time.monotonic() - begin < PATIENCE:
            again = signal.sigtimedwait(SIGNALS, TICK)
            if again is not None and time.monotonic() - begin > SAME_WISH and not self.heard:
                self._leave(again.si_signo)
        if not self.heard:
            _print(f"{self._name}: interrupted; ends after {self._doing()}, at once by a second Ctrl-C")

    def _doing(self) -> str:
        """The innermost function of this package that the main thread is in."""
        frame = sys._current_frames().get(self._main.ident or 0)
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if module.startswith(f"{__package__}."):
                return f"{frame.f_code.co_name} of {module.removeprefix(f'{__package__}.')}"
            frame = frame.f_back
        return "this step"

    def _leave(self, number: int) -> NoReturn:
        left = f"; left behind: {self._doing()}" if self.begun and not self.over else ""
        _print(f"{self._name}: interrupted{left}")
        self._clean_up()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(128 + number)


_listener: _Listener | None = None


def listen(name: str, clean_up: Callable[[], None] = lambda: None) -> None:
    """From now on a thread waits for SIGINT and SIGTERM, so that no library can take them away. Once a process, early.

    NVRTC (measured with 13.0) puts handlers of its own in while it compiles, which end the process with status 4, and
    puts the old ones back so that they interrupt no wait any more. To be called by the main thread before other threads
    exist: they inherit its blocked signals, as child processes do (see ``unblocked``).

    A signal ends the process at once until ``begin`` is called: there is nothing to keep. Then Python's handler runs in
    the main thread: ``Interruptible``'s, or one that raises Interrupted. What does not hear it for PATIENCE seconds is
    named, and a second signal ends the process wherever it is. name: begins what is said. clean_up: called before such an
    end.
    """
    global _listener
    if _listener is None:
        _listener = _Listener(name, clean_up)


def begin() -> None:
    """From now on there is something to keep or to clean up."""
    if _listener is not None:
        _listener.begun = True


def over() -> None:
    """From now on there is nothing to keep any more."""
    if _listener is not None:
        _listener.over = True


def before_workers() -> None:
    """Before worker processes are spawned: signals wait until they have started and call ``unblock``.

    multiprocessing's resource tracker unblocks the signals of this thread when it starts, so it is started here.
    """
    resource_tracker.ensure_running()
    if _listener is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def unblock() -> None:
    """In a child process: it is to hear signals as usual."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def unblocked() -> Iterator[None]:
    """Child processes that are started in here hear signals as usual."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    _heard()
    raise Interrupted(number)


def _heard() -> None:
    if _listener is not None:
        _listener.heard = True


def _print(text: str) -> None:
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
