"""Errors remembered for diagnostics, and said in the log, each kind once in a while."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from typing import Any

from ..types import InputError

# The same kind of error is reported again after this time (s).
REPEAT = 5.0
# These kinds are what the user asked for and are not reported.
QUIET = {"disabled"}


class Reporter:
    """Thread-safe. logger: an rclpy logger."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._messages: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._said: dict[str, float] = {}
        self._closed = False

    def close(self) -> None:
        """From now on errors are counted only."""
        self._closed = True

    def __call__(self, kind: str, error: Exception) -> None:
        """Count an error; what is no InputError is said with its traceback."""
        now = time.monotonic()
        with self._lock:
            self._messages[kind] = str(error) or type(error).__name__
            self._counts[kind] += 1
            if self._closed or kind in QUIET or now - self._said.get(kind, -REPEAT) < REPEAT:
                return
            self._said[kind] = now
        if isinstance(error, InputError):
            self._logger.warning(f"frame dropped ({kind}): {error}")
        else:
            self._logger.error(f"{kind}: " + "".join(traceback.format_exception(error)))

    def snapshot(self) -> tuple[dict[str, str], dict[str, int]]:
        """Last message and number of errors, by kind."""
        with self._lock:
            return dict(self._messages), dict(self._counts)
