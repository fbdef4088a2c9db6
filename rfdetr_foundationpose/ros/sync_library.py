"""message_filters in the place of our own synchronizer, with the same interface and the same newest-wins book-keeping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any

from ..camera.images import stamp_ns
from . import compat
from .sync import PairSynchronizer, Subscriber

# A stamp that is farther back than this is a recording that started again.
JUMP_NS = 1_000_000_000


class FilterSynchronizer:
    """``message_filters``' (Approximate)TimeSynchronizer over two of its Subscribers; see PairSynchronizer.

    It calls back with its lock held, and where stamps jump back it keeps what is newer than all that follows: so both are
    looked for before a message reaches it.
    """

    def __init__(self, rgb: Any, depth: Any, on_pair: Callable[[Any, Any], None], slop: float | None) -> None:
        filters = compat.message_filters
        if filters is None:
            raise ImportError("message_filters is not installed (apt install ros-$ROS_DISTRO-message-filters)")
        self._on_pair = on_pair
        self._received: Counter[str] = Counter()
        self._last: dict[str, int] = {}
        self._to_jump: set[str] = set()
        self._pairs = 0
        self._forget = False
        self._lock = Lock()
        for source, name in ((rgb, "rgb"), (depth, "depth")):
            source.registerCallback(self._before, name)  # before the synchronizer's own
        if slop is None:
            self._sync = filters.TimeSynchronizer([rgb, depth], PairSynchronizer.QUEUE)
        else:
            self._sync = filters.ApproximateTimeSynchronizer([rgb, depth], PairSynchronizer.QUEUE, slop)
        self._sync.registerCallback(self._pair)

    def _before(self, message: Any, name: str) -> None:
        stamp = stamp_ns(message.header)
        with self._lock:
            self._received[name] += 1
            forget, self._forget = self._forget or self._jumped(name, stamp), False
            self._last[name] = stamp
        if forget:
            for queue in self._sync.queues:
                queue.clear()

    def _jumped(self, name: str, stamp: int) -> bool:
        """Whether time has jumped back, said once: the other topic, which jumps a moment later, then waits for no one."""
        if self._last.get(name, stamp) - stamp <= JUMP_NS:
            return False
        if name in self._to_jump:
            self._to_jump.clear()
            return False
        self._to_jump = {"rgb", "depth"} - {name}
        return True

    def _pair(self, rgb: Any, depth: Any) -> None:
        with self._lock:
            self._pairs += 1
        self._on_pair(rgb, depth)

    def clear(self) -> None:
        """Forget what waits, before the next message."""
        with self._lock:
            self._forget = True

    def counts(self) -> dict[str, int]:
        """As PairSynchronizer.counts."""
        waiting = [len(queue) for queue in self._sync.queues]
        with self._lock:
            received, pairs = dict(self._received), self._pairs
        found = {"rgb": received.get("rgb", 0), "depth": received.get("depth", 0), "pairs": pairs}
        for name, wait in zip(("rgb", "depth"), waiting, strict=True):
            found[f"unmatched_{name}"] = max(found[name] - pairs - wait, 0)
        return found


def choose(library: str) -> tuple[Any, Any]:
    """(Subscriber, synchronizer) of ``input.sync_library``. Raises ImportError where message_filters is asked for and missing."""
    if library == "own" or (library == "auto" and compat.message_filters is None):
        return Subscriber, PairSynchronizer
    if compat.message_filters is None:
        raise ImportError(
            "input.sync_library is message_filters, which is not installed (apt install "
            "ros-$ROS_DISTRO-message-filters); set it to own or auto"
        )
    return compat.message_filters.Subscriber, FilterSynchronizer
