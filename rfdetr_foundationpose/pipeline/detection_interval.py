"""On which frames the detector runs."""

from __future__ import annotations

from ..config import DetectorConfig

# A frame is due this much (ns) early: stamps are rounded, and a period of whole frames must not slip by one.
STAMP_SLACK_NS = 1_000_000


class DetectionInterval:
    """Every frame while something is searched, else every ``period_frames``-th frame or ``period_seconds`` after the
    last run, whichever comes first. Time is that of the frames' stamps, so that a recording gives the same at any
    speed; a stamp before that of the last run (a recording that starts over) is due at once.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None

    def reset(self) -> None:
        """The next frame is due."""
        self._last = None

    def due(self, index: int, stamp_ns: int, *, searching: bool, config: DetectorConfig) -> bool:
        """Whether the detector runs on frame number ``index``; True is taken as a run. At most once for one number."""
        if self._last is not None and self._last[0] == index:
            return False
        if not (searching or self._elapsed(index, stamp_ns, config)):
            return False
        self._last = index, stamp_ns
        return True

    def _elapsed(self, index: int, stamp_ns: int, config: DetectorConfig) -> bool:
        if self._last is None:
            return True
        frames, nanoseconds = index - self._last[0], stamp_ns - self._last[1]
        if config.period_frames > 0 and frames >= config.period_frames:
            return True
        if config.period_seconds <= 0:
            return False
        return nanoseconds < 0 or nanoseconds >= round(config.period_seconds * 1e9) - STAMP_SLACK_NS
