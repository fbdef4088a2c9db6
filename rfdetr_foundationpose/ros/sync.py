"""Pairs of rgb and depth by their stamps: newest wins, and everything that found no partner is counted.

Not message_filters, whose interface this has: it calls back with its lock held, so that nobody can make it forget when
stamps jump back, it then keeps what is newer than all that follows, and newer releases drop what is older than
their last match: a recording that loops would give no second pair. What is installed on a robot is what is tested here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from ..camera.images import stamp_ns


class SimpleFilter:
    """A source of messages to which callbacks are registered."""

    def __init__(self) -> None:
        self.callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def registerCallback(self, callback: Callable[..., None], *args: Any) -> None:
        self.callbacks.append((callback, args))

    def signalMessage(self, *messages: Any) -> None:
        for callback, args in self.callbacks:
            callback(*messages, *args)


class Subscriber(SimpleFilter):
    """A subscription as a filter; ``kwargs`` go to ``node.create_subscription``."""

    def __init__(self, node: Any, msg_type: Any, topic: str, **kwargs: Any) -> None:
        super().__init__()
        kwargs.setdefault("qos_profile", 10)
        self.sub = node.create_subscription(msg_type, topic, self.signalMessage, **kwargs)


class ApproximateTimeSynchronizer(SimpleFilter):
    """One message of each filter, at most ``slop`` seconds from the one that came last; the newest possible set wins.

    A match discards everything older in all queues: a pair that comes late is of no use to a tracker.
    """

    def __init__(self, fs: Sequence[Any], queue_size: int = 10, slop: float = 0.02) -> None:
        super().__init__()
        if queue_size < 1:
            raise ValueError(f"queue_size={queue_size} must be at least 1")
        if slop < 0:
            raise ValueError(f"slop={slop} s must not be negative")
        self._slop_ns = round(slop * 1e9)
        self._size = queue_size
        self._queues: list[deque[tuple[int, Any]]] = [deque() for _ in fs]
        self._received = [0] * len(fs)
        self._matched = 0
        self._lock = Lock()
        for index, source in enumerate(fs):
            source.registerCallback(self._add, index)

    def clear(self) -> None:
        """Forget what waits, e.g. after a jump in time."""
        with self._lock:
            for queue in self._queues:
                queue.clear()

    def state(self) -> tuple[list[int], int, list[int]]:
        """At one moment: messages received, by filter; sets matched; messages that still may find a partner, by filter."""
        with self._lock:
            return list(self._received), self._matched, [len(q) for q in self._queues]

    def _add(self, message: Any, index: int) -> None:
        stamp = stamp_ns(message.header)
        with self._lock:
            queue = self._queues[index]
            queue.append((stamp, message))
            self._received[index] += 1
            match = self._match(index)
            self._matched += match is not None
            if match is None and len(queue) > self._size:
                queue.popleft()
        if match is not None:
            self.signalMessage(*match)

    def _match(self, index: int) -> list[Any] | None:
        """The set around the newest message of ``index``, taken out of the queues with all that is older."""
        stamp = self._queues[index][-1][0]
        chosen: list[tuple[int, Any]] = []
        for queue in self._queues:
            nearest = min(queue, key=lambda entry: abs(entry[0] - stamp), default=None)
            if nearest is None or abs(nearest[0] - stamp) > self._slop_ns:
                return None
            chosen.append(nearest)
        for queue, (limit, _) in zip(self._queues, chosen, strict=True):
            newer = [entry for entry in queue if entry[0] > limit]
            queue.clear()
            queue.extend(newer)
        return [message for _, message in chosen]


class PairSynchronizer:
    """rgb and depth pairs for ``on_pair``; slop: seconds between their stamps at most, None for equal stamps.

    counts: "rgb" and "depth" received, "pairs" matched, "unmatched_rgb" and "unmatched_depth".
    """

    QUEUE = 10

    def __init__(
        self, rgb: SimpleFilter, depth: SimpleFilter, on_pair: Callable[[Any, Any], None], slop: float | None
    ) -> None:
        self._sync = ApproximateTimeSynchronizer((rgb, depth), self.QUEUE, slop or 0.0)
        self._sync.registerCallback(on_pair)

    def clear(self) -> None:
        """Forget what waits for a partner: after a jump in time it would match nothing, or the wrong thing."""
        self._sync.clear()

    def counts(self) -> dict[str, int]:
        return pair_counts(*self._sync.state())


def pair_counts(received: Sequence[int], pairs: int, waiting: Sequence[int]) -> dict[str, int]:
    """Of images of colour and of depth: received, matched, without a partner."""
    found = dict(zip(("rgb", "depth"), received, strict=True)) | {"pairs": pairs}
    for name, wait in zip(("rgb", "depth"), waiting, strict=True):
        found[f"unmatched_{name}"] = found[name] - pairs - wait
    return found
