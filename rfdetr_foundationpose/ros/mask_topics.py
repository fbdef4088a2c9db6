"""``mask/<instance>``: masks that somebody else makes, kept until the frame with their stamp comes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import CallbackGroup
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from ..camera import images
from .guards import guarded
from .reporting import REPEAT

# Masks may trail the images by this time (s).
MASK_WAIT = 0.1
# Masks of this many stamps wait for their images.
MASKS_KEPT = 10


class MaskTopics:
    """A topic for each of ``instances``; callbacks run in ``group`` and store. on_error: told of what they raise."""

    def __init__(
        self,
        node: Any,
        instances: Sequence[str],
        group: CallbackGroup,
        on_error: Callable[[str, Exception], None],
    ) -> None:
        self._node = node
        self._group = group
        self._on_error = on_error
        # Resolved: counting publishers knows no remappings.
        self._topics = {name: node.resolve_topic_name(f"mask/{name}") for name in instances}
        self._messages: dict[str, OrderedDict[int, Any]] = {name: OrderedDict() for name in instances}
        self._arrived = threading.Condition()

    def subscribe(self, qos: Callable[[int], QoSProfile]) -> list[Any]:
        """Subscriptions, which are the caller's to destroy. qos: the profile that keeps so many messages."""
        return [
            self._node.create_subscription(
                Image,
                f"mask/{name}",
                guarded(partial(self._on_mask, name), self._on_error),
                qos(MASKS_KEPT),
                callback_group=self._group,
            )
            for name in self._topics
        ]

    def forget(self) -> None:
        """What waits belongs to another time."""
        with self._arrived:
            for messages in self._messages.values():
                messages.clear()

    def take(self, stamp: int) -> dict[str, NDArray[np.bool_]]:
        """Instance -> (H, W) mask of the frame with this stamp (ns), those of topics that have a publisher awaited for MASK_WAIT.

        Raises InputError for a message that is no mask.
        """
        if not self._topics:
            return {}
        coming = [self._messages[n] for n, topic in self._topics.items() if self._node.count_publishers(topic) > 0]
        if not coming:
            self._node.get_logger().warning(
                f"masks are awaited, but nobody publishes {', '.join(self._topics.values())}",
                throttle_duration_sec=REPEAT,
            )
        with self._arrived:
            self._arrived.wait_for(lambda: all(stamp in messages for messages in coming), MASK_WAIT)
            found = {name: messages[stamp] for name, messages in self._messages.items() if stamp in messages}
        return {name: images.image_to_mask(message) for name, message in found.items()}

    def _on_mask(self, name: str, message: Any) -> None:
        with self._arrived:
            messages = self._messages[name]
            messages[images.stamp_ns(message.header)] = message
            while len(messages) > MASKS_KEPT:
                messages.popitem(last=False)
            self._arrived.notify_all()
