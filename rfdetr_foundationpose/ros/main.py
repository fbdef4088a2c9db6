"""``pose_node``: the node as a process that ends cleanly. Imports nothing heavy, so that a signal finds it ready."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .signals import Stop

if TYPE_CHECKING:
    from .pipeline import PipelineFactory


def main(args: Sequence[str] | None = None, factory: PipelineFactory | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit status; the main thread must call it.

    factory: makes the pipeline (default: the real one).
    """
    stop = Stop()
    from .process import run

    return run(stop, args, factory)


if __name__ == "__main__":
    sys.exit(main())
