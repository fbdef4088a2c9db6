"""A thread that waits for the camera's messages alone.

rclpy's executors make a new wait set of all of a node's entities before every callback, and once more after it, because what runs a
callback wakes them: half a millisecond of Python for each message, which holds up the frame that is in work meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation

Take = Callable[[Any], Any]
"""Of a subscription, the message that waits, or None."""
# The thread looks so often whether it shall end or the context is gone, also where nobody wakes it, and for QoS events (s).
LOOK = 1.0
# Who ends it, or takes a subscription away, waits so long for the callback under way (s).
PATIENCE = 0.5
# What fails, and may fail again at once, fills no log (s).
PAUSE = 0.1


class ReadElsewhere(CallbackGroup):
    """Subscriptions of this group are read by a ``Reader``: an executor neither waits for them nor runs their callbacks.

    Nor for their QoS events: Fast DDS wakes who waits for them while a message waits to be taken
    (findings/rmw-fastrtps-event-wait-ends-with-messages.sh).
    """

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        return None


def message(subscription: Any) -> Any:
    """A ``Take`` of Python messages, as an executor makes them."""
    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    return None if taken is None else taken[0]


@dataclass(frozen=True)
class _Entry:
    subscription: Any
    take: Take


class Reader:
    """Takes messages of subscriptions of one context as they come and runs their callbacks, one after the other.

    on_error: told of what taking a message or a callback raises.
    group: the callback group that its subscriptions are made in.
    """

    def __init__(self, context: Context, on_error: Callable[[str, Exception], None]) -> None:
        self._context = context
        self._on_error = on_error
        self.group = ReadElsewhere()
        self._changed = threading.Condition()
        self._entries: list[_Entry] = []
        self._version = self._in_use = 0
        self._stopping = self._ended = False
        self._wake = GuardCondition(None, None, context)
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def add(self, subscription: Any, take: Take = message) -> None:
        """Read a subscription from now on. Raises ValueError where it was not made in ``group``.

        In another group an executor may wait for it already. A QoS event of rclpy keeps its place in the wait set that it was
        added to last, so that two who wait for it ask for each other's places.
        """
        if any(entity.callback_group is not self.group for entity in (subscription, *_events(subscription))):
            raise ValueError(f"{subscription.topic_name} is in another callback group than its reader's")
        with self._changed:
            self._entries = [*self._entries, _Entry(subscription, take)]
            self._version += 1
            if not self._stopping:
                self._wake.trigger()

    def remove(self, subscription: Any, timeout: float = PATIENCE) -> None:
        """Read it no more: afterwards its callback is not run, and it may be destroyed."""
        with self._changed:
            self._entries = [e for e in self._entries if e.subscription is not subscription]
            self._version += 1
            version = self._version
            if self._stopping or threading.current_thread() is self._thread:
                return
            self._wake.trigger()
            self._changed.wait_for(lambda: self._in_use >= version or self._ended, timeout)

    def close(self, timeout: float = PATIENCE) -> bool:
        """End the thread; False when a callback takes longer than ``timeout`` seconds. May be called again."""
        with self._changed:
            first, self._stopping = not self._stopping, True
        if first:
            self._wake.trigger()
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._wake.destroy()
        return True

    def _run(self) -> None:
        while not self._stopping and self._is_up():
            try:
                self._serve()
            except rclpy_implementation.InvalidHandle:
                # Who took a subscription away did not wait any longer, and destroyed it; the next turn does without.
                continue
            except Exception as error:
                if not self._stopping and self._is_up():
                    self._on_error("callback_error", error)
                    time.sleep(PAUSE)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _is_up(self) -> bool:
        """Whether the context is. Not by ``Context.ok``, which waits for a shutdown under way, which waits for this thread."""
        context: Any = self._context.handle
        try:
            with context:
                return bool(context.ok())
        except rclpy_implementation.InvalidHandle:
            return False

    def _serve(self) -> None:
        """Serve the subscriptions that there are until they change."""
        with ExitStack() as used:
            with self._changed:
                version, entries = self._version, self._entries
            context: Any = self._context.handle
            used.enter_context(context)
            used.enter_context(self._wake.handle)
            entries = [entry for entry in entries if self._enters(used, entry.subscription.handle)]
            events = [event for entry in entries for event in _events(entry.subscription) if self._enters(used, event)]
            # Messages alone are waited for: Fast DDS ends a wait for events while a message is not taken yet.
            messages, noticed = (
                rclpy_implementation.WaitSet(*numbers, context)
                for numbers in ((len(entries), 1, 0, 0, 0, 0), (0, 0, 0, 0, 0, len(events)))
            )
            used.enter_context(messages)
            used.enter_context(noticed)
            readable = [(entry, entry.subscription.handle) for entry in entries]
            looked = -LOOK
            while self._use(version):
                messages.clear_entities()
                messages.add_guard_condition(self._wake.handle)
                for _, handle in readable:
                    messages.add_subscription(handle)
                messages.wait(int(LOOK * 1e9))
                ready = messages.get_ready_entities("subscription")
                for entry, handle in readable:
                    if handle.pointer in ready and self._version == version and not self._stopping:
                        self._deliver(entry)
                if events and time.monotonic() - looked >= LOOK:
                    looked = time.monotonic()
                    self._notice(events, noticed, version)

    def _notice(self, events: Sequence[Any], wait_set: Any, version: int) -> None:
        """Tell what has happened to the subscriptions meanwhile."""
        wait_set.clear_entities()
        for event in events:
            event.add_to_wait_set(wait_set)
        wait_set.wait(0)
        for event in events:
            if event.is_ready(wait_set) and self._use(version):
                self._tell(event)

    def _use(self, version: int) -> bool:
        """Whether the thread goes on with the subscriptions of ``version``; who waits for it to have newer ones is told."""
        with self._changed:
            self._in_use = version
            self._changed.notify_all()
            return version == self._version and not self._stopping and self._is_up()

    def _enters(self, used: ExitStack, entity: Any) -> bool:
        try:
            used.enter_context(entity)
        except rclpy_implementation.InvalidHandle:  # destroyed
            return False
        return True

    def _deliver(self, entry: _Entry) -> None:
        try:
            taken = entry.take(entry.subscription)
        except Exception as error:
            self._on_error("callback_error", error)
            time.sleep(PAUSE)
            return
        try:
            if taken is not None:
                entry.subscription.callback(taken)
        except Exception as error:  # whatever it is, the next message deserves its chance
            self._on_error("callback_error", error)

    def _tell(self, event: Any) -> None:
        """Run what an event, as a publisher of other QoS, is told to: rclpy says it in the log."""
        data = event.take_data()
        try:
            running = event.execute(data)
            running.send(None)  # a coroutine that waits for nothing
            running.close()
        except StopIteration:
            pass
        except Exception as error:
            self._on_error("callback_error", error)


def _events(subscription: Any) -> list[Any]:
    return list(getattr(subscription, "event_handlers", ()))
