"""Who may use the node's ROS entities: a transition while it runs, or the end of the process, which keeps them for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class RosLock:
    """A transition holds it (``with lock``) and sets it aside while it computes, so that the process can end meanwhile.

    After ``keep`` a transition waits for ever instead of going on: rclpy 9.1.2 crashes when a life cycle goes on after
    its node was destroyed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._holder = None
        self._lock.release()

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """For work without ROS. Does nothing in a thread that does not hold the lock."""
        if self._holder != threading.get_ident():
            yield
            return
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def keep(self, timeout: float) -> bool:
        """Take it for good; False when its holder does not set it aside within ``timeout`` seconds."""
        return self._lock.acquire(timeout=timeout)
