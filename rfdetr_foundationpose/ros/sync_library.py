"""message_filters in the place of our own synchronizer, with the same interface and the same newest-wins book-keeping."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

from ..camera.images import stamp_ns
from . import compat
from .stamps import JUMP_NS
from .sync import PairSynchronizer, SimpleFilter, Subscriber, pair_counts


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
        self._received = [0, 0]
        self._last: list[int | None] = [None, None]
        self._to_jump: set[int] = set()
        self._pairs = 0
        self._forget = False
        # Held while a message goes through, callbacks included: who counts sees it nowhere or in its place.
        self._lock = RLock()
        gates = [SimpleFilter(), SimpleFilter()]
        if slop is None:
            self._sync = filters.TimeSynchronizer(gates, PairSynchronizer.QUEUE)
        else:
            self._sync = filters.ApproximateTimeSynchronizer(gates, PairSynchronizer.QUEUE, slop)
        self._sync.registerCallback(self._pair)
        for index, (source, gate) in enumerate(zip((rgb, depth), gates, strict=True)):
            source.registerCallback(self._add, index, gate)

    def _add(self, message: Any, index: int, gate: SimpleFilter) -> None:
        stamp = stamp_ns(message.header)
        with self._lock:
            self._received[index] += 1
            forget, self._forget = self._forget or self._jumped(index, stamp), False
            self._last[index] = stamp
            if forget:
                for queue in self._sync.queues:
                    queue.clear()
            gate.signalMessage(message)

    def _jumped(self, index: int, stamp: int) -> bool:
        """Whether time has jumped back, said once: the other topic, which jumps a moment later, then waits for no one."""
        last = self._last[index]
        if last is None or last - stamp <= JUMP_NS:
            return False
        if index in self._to_jump:
            self._to_jump.clear()
            return False
        self._to_jump = {1 - index}
        return True

    def _pair(self, rgb: Any, depth: Any) -> None:
        self._pairs += 1
        # message_filters takes a pair out of its queues afterwards.
        self._on_pair(rgb, depth)

    def clear(self) -> None:
        """Forget what waits, before the next message."""
        with self._lock:
            self._forget = True

    def counts(self) -> dict[str, int]:
        """As PairSynchronizer.counts."""
        with self._lock:
            waiting = [0 if self._forget else len(queue) for queue in self._sync.queues]
            return pair_counts(self._received, self._pairs, waiting)


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
