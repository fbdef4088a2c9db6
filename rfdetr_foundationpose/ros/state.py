"""What the node is at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class NodeState:
    """Written by transitions and services, read by the worker's and the telemetry thread.

    label: of the life cycle. failure: why the node does not run, until the next configure. since: of the activation, monotonic
    seconds. enabled: by ~/set_enabled. doing: what takes its time now, for who waits for the end of the process.
    """

    label: str = "unconfigured"
    failure: str = ""
    since: float = 0.0
    enabled: bool = True
    doing: str = "starting"
