"""``pose_node`` with the double pipeline, whose process takes 1.5 s from the end of ROS to its own end.

``python ros_slow_end.py build|collect``: where its configure is for 2 s meanwhile, in the pipeline or between ROS calls.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

from rfdetr_foundationpose.ros import shared_memory
from rfdetr_foundationpose.ros.main import main
from support.ros_double_start import double


def delay() -> None:
    """What a busy machine does at times."""
    abandon, collect = shared_memory.abandon, gc.collect

    def slow_abandon() -> None:
        time.sleep(1.5)
        abandon()

    def slow_collect() -> int:
        if threading.current_thread().name.startswith("transition"):
            time.sleep(2.0)
        return collect()

    shared_memory.abandon = slow_abandon
    if sys.argv.pop(1) == "collect":
        gc.collect = slow_collect
    else:
        os.environ["DOUBLE_BUILD_SECONDS"] = "2"


if __name__ == "__main__":
    delay()
    sys.exit(main(factory=double))
