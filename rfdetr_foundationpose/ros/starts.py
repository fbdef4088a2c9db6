"""``~/init_box/<object>``: somebody says where an object is, and it is registered there on the next frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from sensor_msgs.msg import RegionOfInterest

from ..detect.starts import Start
from ..objects import ObjectSpec
from .guards import OnError, guarded


class StartTopics:
    """A subscription for each object. start: told of every box, from a callback's thread."""

    def __init__(
        self, node: Any, specs: Sequence[ObjectSpec], start: Callable[[Start], None], on_error: OnError
    ) -> None:
        self._node = node
        self._start = start
        self._subscriptions = [
            node.create_subscription(
                RegionOfInterest, f"~/init_box/{s.name}", guarded(partial(self._on_box, s.name), on_error), 1
            )
            for s in specs
        ]

    def _on_box(self, name: str, message: Any) -> None:
        x, y = message.x_offset, message.y_offset
        box = np.array([x, y, x + message.width, y + message.height], np.float32)
        self._node.get_logger().info(f"{name} is said to be in {message.width}x{message.height}+{x}+{y}")
        self._start(Start(name, box))

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        # An executor that waits has the subscriptions yet, and by them what is told.
        self._start = lambda _: None
