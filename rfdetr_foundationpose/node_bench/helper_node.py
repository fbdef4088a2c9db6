"""A node of its own in a helper process, which ends on SIGINT or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from .parent import when_parent_ends


@contextmanager
def helper_node(name: str) -> Iterator[tuple[Node, threading.Event]]:
    """A started node, and the event that a signal, or the end of the parent, sets; the node is destroyed and rclpy shut down at the end."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    when_parent_ends(stop.set)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node(name)
    try:
        yield node, stop
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
