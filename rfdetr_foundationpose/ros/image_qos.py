"""How reliably the images are subscribed to: as set, or as their publishers offer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

# Images that wait for our callbacks: with one alone, a thread that is late for a moment loses a picture's partner.
HISTORY = 3


class ImageQoS:
    """Of the images' topics. setting: ``input.reliability``: auto, reliable or best_effort.

    reliability: "reliable" or "best_effort", as the subscriptions were made; "" before the first. A reliable subscription gets
    nothing from a best-effort publisher, and a best-effort one loses large images.
    """

    def __init__(self, node: Any, topics: Sequence[str], setting: str) -> None:
        self._node = node
        self._topics = topics
        self._setting = setting
        self.reliability = ""

    def choose(self) -> None:
        """Settle on what fits the publishers there are, for the subscriptions that are made next."""
        self.reliability = self._wanted()

    def is_outdated(self) -> bool:
        """Whether the publishers offer something else by now than when it was chosen."""
        return self._follows() and self._wanted() != self.reliability

    def profile(self, depth: int = HISTORY) -> QoSProfile:
        """A new one for each subscription: rclpy writes what overrides a profile into it."""
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE if self.reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.VOLATILE,
        )

    def overriding(self) -> QoSOverridingOptions:
        """Policies with a parameter of their own: that of the reliability keeps its first value, so not where we follow."""
        policies = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        return QoSOverridingOptions(policy_kinds=policies[:2] if self._follows() else policies)

    def _follows(self) -> bool:
        given = getattr(self._node, "_parameter_overrides", {})
        own = any(f"qos_overrides.{topic}.subscription.reliability" in given for topic in self._topics)
        return self._setting == "auto" and not own

    def _wanted(self) -> str:
        if not self._follows():
            return "best_effort" if self._setting == "auto" else self._setting
        offered = [
            info.qos_profile.reliability
            for topic in self._topics
            for info in self._node.get_publishers_info_by_topic(topic)
        ]
        reliable = bool(offered) and all(policy == ReliabilityPolicy.RELIABLE for policy in offered)
        return "reliable" if reliable else "best_effort"
