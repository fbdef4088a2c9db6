"""Publishing until something is so, and what the node says that it dropped."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.ros_support import PATIENCE, Graph


def dropped(graph: Graph, *kinds: str) -> int:
    """As the newest report says."""
    return sum(int(graph.values().get(f"dropped_{kind}", 0)) for kind in kinds)


def publish_until(condition: Callable[[], bool], what: str, publish: Callable[[], object]) -> None:
    """Publish at 20 Hz until that is so, however long a busy machine takes."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        publish()
        time.sleep(0.05)


def publish_until_dropped(graph: Graph, kinds: tuple[str, ...], number: int, publish: Callable[[], object]) -> None:
    before = dropped(graph, *kinds)
    publish_until(lambda: dropped(graph, *kinds) >= before + number, f"{number} drops of {kinds}", publish)
