"""``pose_node`` with the double pipeline as a process from its first import on, as ``python -m rfdetr_foundationpose.ros.main``."""

from __future__ import annotations

import sys
from typing import Any

from rfdetr_foundationpose.ros.main import main


def double(config: Any) -> Any:
    from support.ros_double_node import DoublePipeline

    return DoublePipeline(config)


if __name__ == "__main__":
    sys.exit(main(factory=double))
