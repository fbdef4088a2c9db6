"""The process of ``TracedNode``. Imports nothing heavy before it waits for signals, as ros/main.py.

``python -m rfdetr_foundationpose.node_bench.traced TRACE.json [--without NAME] --ros-args ...``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..ros.signals import Stop


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The node until a signal, which the main thread must be able to wait for: no other thread may exist yet."""
    stop = Stop()
    from ..ros.process import run
    from .traced_node import TracedNode

    given = list(sys.argv[1:] if arguments is None else arguments)
    TracedNode.trace = Path(given.pop(0))
    if given[:1] == ["--without"]:
        TracedNode.without = given[1]
        del given[:2]
    run(stop, ["pose_node", *given], node_class=TracedNode)


if __name__ == "__main__":
    main()
