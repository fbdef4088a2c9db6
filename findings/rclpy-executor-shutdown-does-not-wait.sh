#!/usr/bin/env bash
# Executor.shutdown() says that it waits for the callbacks under way; it returns at once, and the thread that spins ends in an exception.
#
# Versions: the wheels ros-kilted-rclpy 9.1.2 and ros-kilted-rmw-fastrtps-cpp 9.3.3 (ROS 2 Kilted), Python 3.11, Linux x86-64.
# Behaviour: "Stop executing callbacks and wait for their completion", with no timeout "block forever", returns True after milliseconds
#   while a timer's callback of a second is running in another thread; it has taken the guard condition away by then, which a handler
#   that has not begun yet triggers: a thread that had just been given one (here it is held up there, as by a busy machine) raises
#   InvalidHandle from spin_once. What helps: tell the thread to end, join it, and shut the executor down then.
# Output seen (the first number varies):
#   shutdown() returned True after 0.001 s, the callback was running: True
#   the thread that was about to run a callback raised: InvalidHandle
# Exits with 1 when shutdown() waits, or when the thread raises nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ros-kilted-rclpy==9.1.2 ros-kilted-rmw-fastrtps-cpp==9.3.3
cat > "$folder/shutdown.py" <<'PYTHON'
import threading
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor

rclpy.init()
raised = []
threading.excepthook = lambda what: raised.append(what.exc_type.__name__)


class HeldUp(SingleThreadedExecutor):
    """Its thread is held up for a moment between what is ready and its handler."""

    reached = threading.Event()

    def wait_for_ready_callbacks(self, *arguments, **options):
        found = super().wait_for_ready_callbacks(*arguments, **options)
        self.reached.set()
        time.sleep(0.5)
        return found


def spun(executor, callback):
    node = rclpy.create_node("timer")
    node.create_timer(0.01, callback)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    return thread


begun, ended = threading.Event(), threading.Event()
executor = SingleThreadedExecutor()
thread = spun(executor, lambda: (begun.set(), time.sleep(1.0), ended.set()))
begun.wait()
begin = time.monotonic()
result = executor.shutdown()
took, running = time.monotonic() - begin, not ended.is_set()
thread.join()
print(f"shutdown() returned {result} after {took:.3f} s, the callback was running: {running}")
raised.clear()
executor = HeldUp()
thread = spun(executor, lambda: None)
executor.reached.wait()
executor.shutdown()
thread.join()
print(f"the thread that was about to run a callback raised: {', '.join(raised) or 'nothing'}")
rclpy.shutdown()
raise SystemExit(0 if result and running and raised == ["InvalidHandle"] else 1)
PYTHON
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" "$folder/shutdown.py"
