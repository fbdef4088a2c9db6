"""The managed node in the test's own process, with a pipeline that tests hold."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from itertools import count

from rclpy.impl.implementation_singleton import rclpy_implementation

from rfdetr_foundationpose.ros.executor import NodeExecutor
from rfdetr_foundationpose.ros.node import PoseNode

from . import ros_support
from .ros_double_node import DoublePipeline
from .ros_support import Graph

_numbers = count()


class Spinning(threading.Thread):
    """Spins an executor with one node until ``end``."""

    def __init__(self, executor: NodeExecutor, node) -> None:
        super().__init__(daemon=True)
        self._executor = executor
        self._stop_event = threading.Event()
        executor.add_node(node)
        self.start()

    def run(self) -> None:
        while not self._stop_event.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.05)
            except rclpy_implementation.InvalidHandle:  # a transition destroyed an entity meanwhile
                continue

    def end(self) -> None:
        self._stop_event.set()
        self.join()
        assert self._executor.drain(60)
        self._executor.shutdown(timeout_sec=0.2)


@contextmanager
def node_of(pipeline, folder, make=None, node_class=PoseNode):
    """An unconfigured node that uses the pipeline, or what ``make`` gives, and a graph around it."""
    namespace = f"/transitions{next(_numbers)}"
    graph = Graph(namespace)
    arguments = ["--ros-args", "-r", f"/diagnostics:={namespace}/diagnostics", "-p", "autostart:=false"]
    arguments += ["-p", f"objects_file:={ros_support.objects_yaml(folder)}", "-p", "debug.diagnostics_rate:=10.0"]
    node = node_class(
        lambda _config: make() if make else pipeline,
        context=graph.context,
        namespace=namespace,
        cli_args=arguments,
    )
    spinning = Spinning(NodeExecutor(node.transitions, node.ros_lock, context=graph.context), node)
    try:
        yield node, graph
    finally:
        spinning.end()
        assert node.close(60) == []
        gc.unfreeze()  # a process that closed its node would be gone
        node.destroy_node()
        graph.close()


class Pipeline(DoublePipeline):
    """Fails to warm up so many times; blocks in a frame until ``release`` is set."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(None)
        self.failures = failures
        self.warm_ups = 0
        self.busy = threading.Event()
        self.release = threading.Event()
        self.release.set()

    def warm_up(self, camera):
        self.warm_ups += 1
        if self.warm_ups <= self.failures:
            raise RuntimeError("no kernel image is available")

    def process(self, frame):
        self.busy.set()
        assert self.release.wait(60)
        return super().process(frame)
