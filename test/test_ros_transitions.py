"""Transitions that fail in this process: the reason is said, and they can be repeated."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_srvs.srv import Trigger

from rfdetr_foundationpose.ros import node as node_module
from rfdetr_foundationpose.ros.executor import NodeExecutor
from rfdetr_foundationpose.ros.ros_lock import RosLock
from support.ros_own_process import Pipeline, Spinning, node_of
from support.ros_support import Camera, Graph, rclpy, wait_for

pytestmark = pytest.mark.timeout(600)


def test_a_warm_up_that_fails_at_configure_is_said_and_configure_can_be_repeated(tmp_path, capfd):
    pipeline = Pipeline(failures=1)
    with node_of(pipeline, tmp_path) as (_, graph):
        camera = Camera(graph)
        stop = threading.Event()
        stream = threading.Thread(target=lambda: [camera.publish() for _ in iter(lambda: stop.wait(0.05), True)])
        stream.start()
        try:
            assert not graph.transition("configure")
            assert graph.state() == "unconfigured"
            assert "RuntimeError: no kernel image is available" in graph.fresh_report("backend").message
            said = capfd.readouterr().err
            assert "cannot configure: RuntimeError: no kernel image is available" in said
            assert "Traceback" in said
            assert "error in state" not in said
            assert graph.transition("configure")
        finally:
            stop.set()
            stream.join()
        assert pipeline.warm_ups == 2
        assert graph.transition("activate")
        camera.stream_until_pose()
        assert graph.fresh_report("backend").level == b"\x00"


def test_a_warm_up_that_fails_at_the_first_frame_is_repeated_at_the_next(tmp_path):
    pipeline = Pipeline(failures=3)
    with node_of(pipeline, tmp_path) as (_, graph):
        assert graph.transition("configure")
        assert pipeline.warm_ups == 0
        assert graph.transition("activate")
        Camera(graph).stream_until_pose()
        assert pipeline.warm_ups == 4
        assert graph.fresh_values()["dropped_pipeline_error"] == "3"


def test_garbage_collection_passes_over_what_is_loaded_while_configured(tmp_path):
    with node_of(Pipeline(), tmp_path) as (_, graph):
        assert gc.get_freeze_count() == 0
        assert graph.transition("configure")
        assert gc.get_freeze_count() > 100_000
        assert graph.transition("cleanup")
        assert gc.get_freeze_count() == 0


def test_cleanup_leaves_nothing_of_the_pipeline(tmp_path):
    """Programs and networks hold each other, so that only a collection frees them and their device memory."""
    pipeline = Pipeline()
    pipeline.itself = pipeline
    alive = weakref.ref(pipeline)
    pipelines = [pipeline]
    with node_of(None, tmp_path, pipelines.pop) as (_, graph):
        del pipeline
        assert graph.transition("configure")
        assert alive() is not None
        assert graph.transition("cleanup")
        assert alive() is None


def test_what_a_pipeline_raises_in_a_service_or_a_parameter_change_is_the_answer(tmp_path):
    class Raising(Pipeline):
        armed = False

        def reset(self):
            if self.armed:
                raise RuntimeError("tracks are stuck")

        def apply(self, config):
            if self.armed:
                raise RuntimeError("device lost")

    pipeline = Raising()
    with node_of(pipeline, tmp_path) as (_, graph):
        assert graph.transition("configure")
        pipeline.armed = True
        answer = graph.call(Trigger, "reset", Trigger.Request())
        assert (answer.success, answer.message) == (False, "RuntimeError: tracks are stuck")
        wait_for(lambda: any("tracks are stuck" in s.message for a in graph.diagnostics for s in a.status), "the error")
        refused = graph.set_parameter("detector.threshold", 0.7)
        assert (refused.successful, refused.reason) == (False, "RuntimeError: device lost")
        pipeline.armed = False
        assert graph.set_parameter("detector.threshold", 0.7).successful


def test_activate_is_refused_with_a_reason_while_an_old_frame_is_still_in_work(tmp_path, monkeypatch):
    monkeypatch.setattr(node_module, "FRAME_WAIT", 0.1)
    pipeline = Pipeline()
    with node_of(pipeline, tmp_path) as (_, graph):
        camera = Camera(graph)
        assert graph.transition("configure")
        assert graph.transition("activate")
        pipeline.release.clear()
        pipeline.busy.clear()
        camera.stream_until(pipeline.busy.is_set, "a frame in work")
        assert not graph.transition("deactivate")
        assert graph.state() == "unconfigured"
        assert graph.transition("configure")
        assert not graph.transition("activate")
        assert graph.state() == "inactive"
        assert "has not ended yet" in graph.fresh_report("backend").message
        pipeline.release.set()
        wait_for(lambda: graph.transition("activate"), "activate")
        camera.stream_until_pose()
        assert graph.fresh_report("backend").level == b"\x00"


def test_a_callback_that_waits_for_the_one_before_it_is_not_begun_twice(capfd):
    """Two of the slow group may be ready at once; rclpy yields the second again whenever something wakes it."""
    graph = Graph("/queue")
    node = rclpy.create_node("queue", context=graph.context)
    group = MutuallyExclusiveCallbackGroup()
    lock = RosLock()
    executor = NodeExecutor(group, lock, context=graph.context)
    submitted: list = []
    submit = executor._pool.submit
    executor._pool.submit = lambda function, handler: (submitted.append(handler), submit(function, handler))[1]

    def tick() -> None:
        calls.append(1)
        raise ValueError("weights on fire")

    calls: list[int] = []
    for _ in range(2):
        node.create_timer(0.02, tick, callback_group=group)
    turns: list[int] = []
    looked = executor.get_nodes
    executor.get_nodes = lambda: (turns.append(1), looked())[1]
    with lock:  # neither can begin
        spinning = Spinning(executor, node)
        wait_for(lambda: len(set(submitted)) == 2, "both callbacks")
        seen = len(turns)
        wait_for(lambda: len(turns) > seen + 5, "the executor to look again")
        assert len(submitted) == 2
    wait_for(lambda: len(calls) >= 2, "both to run")
    spinning.end()
    assert capfd.readouterr().err.count("ValueError: weights on fire") == len(calls)
    node.destroy_node()
    graph.close()


def test_what_a_callback_of_the_slow_group_raises_is_logged_and_the_next_one_runs(capfd):
    graph = Graph("/slow")
    node = rclpy.create_node("slow", context=graph.context)
    group = MutuallyExclusiveCallbackGroup()
    calls: list[str] = []

    def tick() -> None:
        calls.append(threading.current_thread().name)
        raise ValueError("weights on fire")

    node.create_timer(0.02, tick, callback_group=group)
    spinning = Spinning(NodeExecutor(group, RosLock(), context=graph.context), node)
    wait_for(lambda: len(calls) > 1, "two calls")
    time.sleep(0.1)
    spinning.end()
    assert all(name.startswith("transition") for name in calls)
    said = capfd.readouterr().err
    assert "ValueError: weights on fire" in said
    assert "in tick" in said
    node.destroy_node()
    graph.close()
