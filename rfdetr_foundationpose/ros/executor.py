"""Callbacks in one thread, which images need, and slow transitions in another."""

from __future__ import annotations

import traceback
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.executors import SingleThreadedExecutor, TimeoutException
from rclpy.logging import get_logger
from rclpy.task import Task

from .ros_lock import RosLock


class NodeExecutor(SingleThreadedExecutor):
    """Runs callbacks in the thread that spins, and those of the group ``slow`` in a thread of their own, which holds ``lock``.

    rclpy's MultiThreadedExecutor hands every image from thread to thread: measured at 1280x720 and 30 Hz on two cores it
    makes poses 2 to 7 ms older (p50; p99 2 to 4 times) and loses images that wait for a thread.
    """

    def __init__(self, slow: CallbackGroup, lock: RosLock, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._slow = slow
        self._lock = lock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="transition")
        self._transitions: dict[Task[Any], Future[None]] = {}

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Execute one callback that is ready, waiting for it up to ``timeout_sec``.

        Raises what it raises; what one of the slow group raises is logged.
        """
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except TimeoutException:
            return
        if getattr(entity, "callback_group", None) is self._slow:
            # rclpy yields what has not begun again and again.
            if handler not in self._transitions:
                transition = self._transitions[handler] = self._pool.submit(self._run_slow, handler)
                transition.add_done_callback(lambda _: self._transitions.pop(handler))
            return
        handler()
        error = handler.exception()
        if error is not None:
            raise error

    def _run_slow(self, handler: Task[Any]) -> None:
        if handler.done():
            return
        with self._lock:
            handler()
        error = handler.exception() if handler.done() else None
        if error is not None:  # nobody asks this thread for its errors
            get_logger("transitions").error("".join(traceback.format_exception(error)))

    def drain(self, timeout: float) -> bool:
        """Begin no further transition, and wait for the one under way; False when it takes longer. Nobody may spin any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not wait(list(self._transitions.values()), timeout).not_done
