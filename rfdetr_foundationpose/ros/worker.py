"""Newest wins: callbacks leave the latest frame, a single thread takes it when it is free."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..types import InputError

# No recording is so old (s, 31 years): its stamps do not count from 1970.
OTHER_CLOCK = 1e9


@dataclass(frozen=True)
class Pair:
    """Synchronized messages as they came; conversion is the worker's. stamp_ns: of rgb. arrival: monotonic seconds.
    depth_ns: stamp of depth, which approximate synchronization lets differ; 0: the same."""

    rgb: Any
    depth: Any
    stamp_ns: int
    arrival: float
    depth_ns: int = 0


@dataclass(frozen=True)
class EarlyImage:
    """An image that came before its partner of the other topic, as it came."""

    message: Any
    is_depth: bool
    stamp_ns: int


def check_age(age: float, limit: float) -> None:
    """Raises InputError for images that are older than ``limit`` seconds; 0: none is."""
    if limit <= 0 or age <= limit:
        return
    remedy = "for a recording play with --clock and set use_sim_time:=true, or set input.max_age:=0"
    if age > OTHER_CLOCK:
        raise InputError(
            "stale",
            f"images are stamped {age / 31_557_600:.0f} years before ROS time, as by a device's own clock or a simulation's: let the camera's driver stamp "
            f"them by ROS time; {remedy}",
        )
    raise InputError("stale", f"frame is {age:.2f} s old, more than input.max_age={limit:g} s; {remedy}")


@dataclass(frozen=True)
class Tally:
    """received == processed + sum(dropped.values()) + in_flight, at any moment. newest_ns: stamp of the pair that came last,
    0 before the first."""

    received: int
    processed: int
    in_flight: int
    dropped: dict[str, int]
    newest_ns: int = 0


class LatestFrame:
    """The newest pair, with exact book-keeping. Nothing in it waits but ``take`` and ``take_next``.

    depth: how many pairs may wait; the node takes 1, as what is older than the newest is of no use to it.
    """

    # Rates are taken over this time (s).
    RATE_WINDOW = 5.0

    def __init__(self, depth: int = 1) -> None:
        self._condition = threading.Condition()
        self.depth = depth
        self._waiting: deque[Pair] = deque()
        self._early: EarlyImage | None = None
        self._busy = False
        # Why pairs are dropped while it is closed.
        self._closed: str | None = None
        self._received = 0
        self._processed = 0
        self._newest_ns = 0
        # An early image is newer than both images of the pair that came last.
        self._paired_ns = 0
        self._dropped: Counter[str] = Counter()
        self._arrivals: deque[float] = deque(maxlen=1000)
        self._ends: deque[float] = deque(maxlen=1000)

    def put(self, pair: Pair) -> None:
        """Store the newest pair; the oldest of more than ``depth`` that nobody took is dropped as "replaced"."""
        with self._condition:
            self._received += 1
            self._arrivals.append(pair.arrival)
            self._newest_ns = pair.stamp_ns
            self._paired_ns = max(pair.stamp_ns, pair.depth_ns)
            if self._closed is not None:  # of a callback that was under way: nobody takes it before the next ``open``
                self._dropped[self._closed] += 1
                return
            self._waiting.append(pair)
            self._early = None
            if len(self._waiting) > self.depth:
                self._waiting.popleft()
                self._dropped["replaced"] += 1
            self._condition.notify_all()

    def put_early(self, image: EarlyImage) -> None:
        """Store one image of the pair that comes next, in the place of an earlier one. It is not counted, and may be left."""
        with self._condition:
            if self._closed is None and image.stamp_ns > self._paired_ns:
                self._early = image
                self._condition.notify_all()

    def refuse(self, reason: str) -> None:
        """Count a pair that is not even stored."""
        with self._condition:
            self._received += 1
            self._dropped[reason] += 1

    def take(self, timeout: float) -> Pair | None:
        """Wait for a pair; None after ``timeout`` seconds or when closed. ``done`` must follow."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._closed is not None, timeout)
            return self._pop()

    def take_next(self, timeout: float) -> Pair | EarlyImage | None:
        """As ``take``, but where no pair waits an early image is given too, once; ``done`` follows a pair alone."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._early or self._closed is not None, timeout)
            if self._waiting or self._early is None:
                return self._pop()
            early, self._early = self._early, None
            return early

    def _pop(self) -> Pair | None:
        pair = self._waiting.popleft() if self._waiting else None
        self._busy = pair is not None
        return pair

    def done(self, dropped: str | None) -> None:
        """Book the taken pair: as processed, or as dropped for a reason."""
        with self._condition:
            self._busy = False
            if dropped is None:
                self._processed += 1
                self._ends.append(time.monotonic())
            else:
                self._dropped[dropped] += 1
            self._condition.notify_all()

    def clear(self, reason: str) -> None:
        """Drop what waits."""
        with self._condition:
            self._drop(reason)

    def _drop(self, reason: str) -> None:
        self._early = None
        if self._waiting:
            self._dropped[reason] += len(self._waiting)
            self._waiting.clear()
            self._condition.notify_all()

    def close(self, reason: str) -> None:
        """Drop what waits and, until ``open``, what comes; ``take`` and ``take_next`` return None."""
        with self._condition:
            self._drop(reason)
            self._closed = reason
            self._condition.notify_all()

    def open(self) -> None:
        with self._condition:
            self._closed = None
            self._arrivals.clear()
            self._ends.clear()

    def tally(self) -> Tally:
        with self._condition:
            in_flight = int(self._busy) + len(self._waiting)
            return Tally(self._received, self._processed, in_flight, dict(self._dropped), self._newest_ns)

    def rate(self, now: float) -> float:
        """Pairs per second that came over the last seconds (monotonic clock)."""
        return self._per_second(self._arrivals, now)

    def processed_rate(self, now: float) -> float:
        """Pairs per second that were processed over the last seconds."""
        return self._per_second(self._ends, now)

    def _per_second(self, times: deque[float], now: float) -> float:
        with self._condition:
            recent = [t for t in times if now - t <= self.RATE_WINDOW]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0

    def silence(self, now: float) -> float | None:
        """Seconds since the last pair; None before the first."""
        with self._condition:
            return now - self._arrivals[-1] if self._arrivals else None


class Worker:
    """The one thread that owns the pipeline. on_error: told of what goes wrong, by the kind that it is counted under."""

    def __init__(self, latest: LatestFrame, on_error: Callable[[str, Exception], None]) -> None:
        self._latest = latest
        self._on_error = on_error
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._started: float | None = None

    def start(
        self, handle: Callable[[Pair], None], handle_early: Callable[[EarlyImage], None] = lambda _image: None
    ) -> bool:
        """Begin to take pairs. False while the thread of an earlier start, which ``stop`` left behind, still runs.

        handle: raises InputError for a pair that is to be skipped. handle_early: does what can be done with an early image. What
        it raises as InputError its pair will raise again.
        """
        if self._thread is not None and self._thread.is_alive():
            return False
        # Its own: a thread that was told to stop must never hear otherwise.
        self._stop = threading.Event()
        self._latest.open()
        asked = (self._stop, handle, handle_early)
        self._thread = threading.Thread(target=self._run, args=asked, name="pose_worker", daemon=True)
        self._thread.start()
        return True

    def stop(self, timeout: float) -> bool:
        """Finish the pair in work and end. False when that takes longer than ``timeout`` seconds."""
        self._stop.set()
        self._latest.close("deactivated")
        if self._thread is None:
            return True
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._thread = None
        return True

    def busy_for(self) -> float:
        """Seconds that the pair, or the image, in work has taken so far; 0 when idle."""
        started = self._started
        return 0.0 if started is None else time.monotonic() - started

    def _run(
        self, stop: threading.Event, handle: Callable[[Pair], None], handle_early: Callable[[EarlyImage], None]
    ) -> None:
        while not stop.is_set():
            taken = self._latest.take_next(0.5)
            if taken is None:
                continue
            self._started = time.monotonic()
            if isinstance(taken, EarlyImage):
                self._work_early(handle_early, taken)
            else:
                self._work(handle, taken)

    def _work(self, handle: Callable[[Pair], None], pair: Pair) -> None:
        reason: str | None = None
        try:
            handle(pair)
        except InputError as error:
            reason = error.kind
            self._on_error(reason, error)
        except Exception as error:  # one bad frame must not end the node; it is counted and said
            reason = "pipeline_error"
            self._on_error(reason, error)
        finally:
            self._started = None
            self._latest.done(reason)

    def _work_early(self, handle_early: Callable[[EarlyImage], None], image: EarlyImage) -> None:
        try:
            handle_early(image)
        except InputError:
            pass
        except Exception as error:  # of no frame: that comes later, and may be processed all the same
            self._on_error("early_upload_error", error)
        finally:
            self._started = None
