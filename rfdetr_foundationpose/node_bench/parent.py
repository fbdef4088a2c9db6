"""Processes of the bench end with the one that started them, however and whenever that ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from ..ros.signals import PARENT

LOOK_SECONDS = 0.5


def when_parent_ends(act: Callable[[], object]) -> None:
    """Call ``act`` in a thread once the parent is gone."""
    named = os.environ.get(PARENT, "")  # it may be gone by now, which the kernel's answer does not tell
    parent = int(named) if named.isdigit() else os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        act()

    threading.Thread(target=watch, name="parent", daemon=True).start()
