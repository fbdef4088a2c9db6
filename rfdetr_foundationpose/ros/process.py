"""The node's threads from start to end: ROS comes up, the executor spins, and everything goes in order."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, ShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier

from ..config import ConfigError
from . import host_memory, shared_memory
from .executor import NodeExecutor
from .log_folder import log_environment
from .node import PoseNode
from .pipeline import PipelineFactory, real_pipeline
from .signals import Stop

# The threads get so many seconds to end; what is stuck in native code longer is left behind.
GRACE = 1.0
# The executor's thread looks so often (s) whether the node is to end, also where no callback runs; less than it has for that.
LOOK = 0.4
# A transition gets so many seconds to set the ROS entities aside, which takes it a few milliseconds unless the machine is busy.
LOCK_WAIT = 0.3
# A thread may hold the interpreter for so many seconds while another one, as that of the poses, waits for it (Python's default: 0.005).
SWITCH_INTERVAL = 0.0001


def run(
    stop: Stop,
    args: Sequence[str] | None = None,
    factory: PipelineFactory | None = None,
    node_class: type[PoseNode] = PoseNode,
) -> NoReturn:
    """The node until ``stop``; then the process ends with its exit status."""
    stop.begin()
    host_memory.keep()
    freed = shared_memory.remove_left_behind()
    os.environ.update(log_environment())
    try:
        rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    except rclpy_implementation.RCLError as error:  # an argument or a variable that ROS itself does not take
        _refuse(stop, error)
    sys.setswitchinterval(SWITCH_INTERVAL)
    if freed:
        get_logger("pose_node").info(f"freed {freed / 1e6:.1f} MB of shared memory that ended processes had left")
    try:
        node = node_class(factory or real_pipeline)
    except (ConfigError, InvalidParameterValueException, InvalidParameterTypeException) as error:
        _refuse(stop, error)
    except rclpy_implementation.RCLError as error:  # the middleware's: it has said why in the log
        _refuse(
            stop,
            f"{error}; is {get_rmw_implementation_identifier()} set up as it needs, and ROS_DOMAIN_ID from 0 to 101?",
        )
    executor = NodeExecutor(node.transitions, node.ros_lock)
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor, stop), name="executor", daemon=True)
    spinner.start()
    stop.wait()
    unfinished = _end(node, executor, spinner, stop)
    if unfinished:
        # A daemon thread inside native code would abort the interpreter's shutdown ("terminate called").
        stop.unfinished = lambda: unfinished
        if not spinner.is_alive() and node.ros_lock.keep(LOCK_WAIT):
            node.destroy_node()  # so that no peer keeps it in its graph
            rclpy.get_default_context().destroy()
        stop.leave(0, f"not ended within {GRACE:g} s")
    executor.shutdown(timeout_sec=0.2)
    node.destroy_node()
    _end_ros()
    # All that is ours has ended. The interpreter's own end would take seconds on a loaded machine (20 s were measured), in
    # which no thread of Python's runs any more that could cut it short.
    stop.leave(0)


def _refuse(stop: Stop, why: object) -> NoReturn:
    print(f"pose_node: {why}", file=sys.stderr)
    _end_ros()
    stop.leave(1)


def _end_ros() -> None:
    """The participant too: gc.freeze keeps what only a collection would destroy."""
    context = rclpy.get_default_context()
    rclpy.try_shutdown()
    context.destroy()


def _spin(executor: NodeExecutor, stop: Stop) -> None:
    try:
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=LOOK)
            except (ExternalShutdownException, ShutdownException):
                return
            except rclpy_implementation.InvalidHandle:
                # A transition destroyed an entity while the wait set was made; the next turn collects them anew.
                continue
            except Exception:  # a callback's; the node goes on
                traceback.print_exc()
    finally:
        stop.set()


def _end(node: PoseNode, executor: NodeExecutor, spinner: threading.Thread, stop: Stop) -> list[str]:
    """End all threads; what has not ended in time. Callbacks first, then the node's own: nothing starts what is ended."""
    deadline = time.monotonic() + GRACE
    node.get_logger().info("shutting down")
    node.closing()
    stop.unfinished = lambda: [node.state.doing]
    spinner.join(GRACE / 2)
    if spinner.is_alive():
        return ["a callback"]
    if not executor.drain(max(deadline - time.monotonic(), 0.1)):
        return [node.state.doing]
    return node.close(max(deadline - time.monotonic(), 0.1))
