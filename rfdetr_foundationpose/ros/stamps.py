"""Time as images tell it: in order, disordered on the way, or started again."""

from __future__ import annotations

# A stamp that is farther back than this is a recording that started again; less disorder is the network's.
JUMP_NS = 1_000_000_000
# More late frames in a row than this are no disorder of the network either.
LATE_LIMIT = 5


class StampGuard:
    """Tells frames in order from late ones and from a jump back in time."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._late = 0

    def check(self, stamp: int) -> str:
        """One of "ok", "late", "jump"; after a jump, order starts anew at this stamp."""
        last = self._last
        if last is None or stamp > last:
            self._last, self._late = stamp, 0
            return "ok"
        self._late += 1
        if last - stamp > JUMP_NS or self._late > LATE_LIMIT:
            self._last, self._late = stamp, 0
            return "jump"
        return "late"

    def late_by(self, stamp: int) -> int:
        """ns by which a stamp is older than the one before it, or the same: then 0; negative for one in order."""
        return 0 if self._last is None else self._last - stamp

    def reset(self) -> None:
        self._last, self._late = None, 0
