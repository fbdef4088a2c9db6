"""``pose_node``: the node as a process that ends cleanly. Imports nothing heavy, so that a signal finds it ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from .signals import Stop

if TYPE_CHECKING:
    from .pipeline import PipelineFactory


def main(args: Sequence[str] | None = None, factory: PipelineFactory | None = None) -> NoReturn:
    """Run the node until SIGINT or SIGTERM; then the process ends with its exit status. The main thread must call it.

    factory: makes the pipeline (default: the real one).
    """
    stop = Stop()
    from .process import run

    run(stop, args, factory)


if __name__ == "__main__":
    main()
