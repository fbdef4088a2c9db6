"""The node's threads, held up where one could get in the way of another."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from itertools import count

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rcl_interfaces.msg import SetParametersResult
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from rfdetr_foundationpose.config import Config
from rfdetr_foundationpose.ros.inputs import Inputs
from rfdetr_foundationpose.ros.worker import LatestFrame
from support.ros_own_process import Pipeline, node_of
from support.ros_support import PATIENCE, Camera, Graph, wait_for

pytestmark = pytest.mark.timeout(600)
# A thread that nobody holds up gets through in this time (s); on a machine too busy for that the test shows nothing.
THROUGH = 0.3
_numbers = count()


class Held:
    """A function that waits, when a thread calls it, until ``let_go``. before: where it waits."""

    def __init__(self, function, *, before: bool) -> None:
        self._function = function
        self._before = before
        self.reached = threading.Event()
        self._go = threading.Event()

    def __call__(self, *arguments):
        result = None if self._before else self._function(*arguments)
        self.reached.set()
        assert self._go.wait(PATIENCE)
        return self._function(*arguments) if self._before else result

    def let_go(self) -> None:
        self._go.set()


def started(function, *arguments) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def ended(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture()
def graph():
    graph = Graph(f"/races{next(_numbers)}", reliable=True, latched_info=True)
    yield graph
    graph.close()


def inputs_of(graph) -> tuple[Inputs, LatestFrame, list]:
    errors: list = []
    latest = LatestFrame()
    made = Inputs(graph.node, Config(), (), latest, errors.append, lambda *error: errors.append(error))
    return made, latest, errors


def test_a_pair_that_is_being_judged_while_time_jumps_is_forgotten_with_the_others(graph):
    made, latest, errors = inputs_of(graph)
    camera = Camera(graph)
    check = made._guard.check = Held(made._guard.check, before=False)
    pairing = started(made._on_pair, camera.rgb(5 * 10**9), camera.depth(5 * 10**9))
    assert check.reached.wait(PATIENCE)
    forgetting = started(made.forget)
    forgetting.join(THROUGH)
    check.let_go()
    ended(pairing, forgetting)
    assert latest.take(0) is None, "a frame of the time before the jump"
    assert latest.tally().dropped == {"time_jump": 1}
    made._on_pair(camera.rgb(4 * 10**9 + 9 * 10**8), camera.depth(4 * 10**9 + 9 * 10**8))
    assert latest.take(0) is not None and errors == []
    made.close()


def test_images_are_counted_once_while_the_subscriptions_are_closed(graph, monkeypatch):
    made, _, errors = inputs_of(graph)
    made.open()
    camera = Camera(graph)

    def published(**how) -> bool:
        camera.publish(**how)
        return made.counts()["pairs"] > 2

    wait_for(published, "pairs")
    before = made.counts()["rgb"]
    wait_for(lambda: camera.publish(depth=None) and made.counts()["rgb"] > before, "an image without a partner")
    counted: list[dict[str, int]] = []
    destroy = graph.node.destroy_subscription
    monkeypatch.setattr(
        graph.node, "destroy_subscription", lambda gone: (counted.append(made.counts()), destroy(gone))[1]
    )
    made.close_images()
    now = made.counts()
    assert counted == [now, now]
    assert now["unmatched_rgb"] == now["rgb"] - now["pairs"] > 0, "what waited finds no partner any more"
    made.close()
    assert errors == []


def test_no_subscription_is_made_when_the_inputs_are_closed_meanwhile(graph, monkeypatch):
    """A timer looks for a latched camera_info; it may be at it in the executor when a transition cleans up."""
    ask = Held(graph.node.get_publishers_info_by_topic, before=False)
    monkeypatch.setattr(graph.node, "get_publishers_info_by_topic", ask)
    wait_for(lambda: graph.node.count_publishers("rgb/camera_info"), "the publisher")
    made, _, errors = inputs_of(graph)
    assert ask.reached.wait(PATIENCE)
    closing = started(made.close)
    closing.join(THROUGH)
    ask.let_go()
    ended(closing)
    wait_for(graph._executor.create_task(lambda: None).done, "the executor to go on")
    left = [s.topic_name for s in graph.node.subscriptions if s.topic_name.endswith("camera_info")]
    assert left == [] and errors == []


def test_a_setting_that_changes_while_the_pipeline_is_built_reaches_it(tmp_path):
    """ROS stores a value only after the callback that accepts it; the pipeline may be ready in between."""
    pipeline = Pipeline()
    build = Held(lambda: pipeline, before=True)
    with node_of(None, tmp_path, build) as (node, graph):
        configuring = started(graph.transition, "configure")
        assert build.reached.wait(PATIENCE)

        def while_not_stored(changes) -> SetParametersResult:
            if changes[0].name == "detector.threshold":
                build.let_go()
                wait_for(lambda: node.state.label == "inactive", "the end of configure")
                ended(started(node.declare_parameter, "qos_overrides.other", "as subscriptions do"))
            return SetParametersResult(successful=True)

        node._on_set_parameters_callbacks.append(while_not_stored)
        assert graph.set_parameter("detector.threshold", 0.61).successful
        ended(configuring)
        assert pipeline.config.detector.threshold == node._config.detector.threshold == 0.61


def test_a_setting_that_is_accepted_just_before_configure_is_what_configure_takes(tmp_path):
    with node_of(Pipeline(), tmp_path) as (node, graph):

        def while_not_stored(_changes) -> SetParametersResult:
            ended(started(node.trigger_configure))
            return SetParametersResult(successful=True)

        node._on_set_parameters_callbacks.append(while_not_stored)
        assert graph.set_parameter("input.sync", "approximate").successful
        node._on_set_parameters_callbacks.pop()
        assert node.state.label == "inactive" and node._inputs._config.input.sync == "approximate"
        assert "cannot change while the node is configured" in graph.set_parameter("input.sync", "exact").reason
        assert graph.transition("cleanup")
        assert graph.set_parameter("input.sync", "exact").successful


def test_a_jump_in_time_while_a_transition_takes_everything_away_is_no_error(tmp_path):
    pipeline = Pipeline()
    with node_of(pipeline, tmp_path) as (node, graph):
        assert graph.transition("configure")
        found = {"_inputs": [node._inputs], "_pipeline": [pipeline]}
        plain = type(node)

        class Released(plain):
            """What it has is gone once somebody has looked."""

            _inputs = property(lambda self: found["_inputs"].pop() if found["_inputs"] else None)
            _pipeline = property(lambda self: found["_pipeline"].pop() if found["_pipeline"] else None)

        inputs, resets = node._inputs, pipeline.status().counters.get("resets", 0)
        node.__class__ = Released
        try:
            node._on_jump("ROS time jumped")
        finally:
            node.__class__ = plain
        assert pipeline.status().counters["resets"] == resets + 1
        assert node._inputs is inputs and node._report.snapshot()[1] == {}


def test_everything_at_once_leaves_nothing_wrong(tmp_path, monkeypatch):
    """Frames, transitions, settings, services, jumps in time and publishers of other QoS, with threads that switch all the time."""
    wrong: list = []
    monkeypatch.setattr(threading, "excepthook", lambda what: wrong.append(what.exc_value))
    done: Counter[str] = Counter()
    stop = threading.Event()
    rng = random.Random(0)
    with node_of(None, tmp_path, Pipeline) as (node, graph):
        camera = Camera(graph)
        after = {
            "unconfigured": ["configure"],
            "inactive": ["activate", "activate", "cleanup"],
            "active": ["deactivate"],
        }
        gone: list = []

        def frame() -> None:
            camera.publish(time.time_ns() - rng.choice([0] * 20 + [3 * 10**9]), **rng.choice([{}, {}, {"depth": None}]))

        def transition() -> None:
            assert graph.transition(rng.choice(after[graph.state()])), node.state.failure

        def setting() -> None:
            value = round(rng.uniform(0.3, 0.9), 3)
            assert graph.set_parameter("detector.threshold", value).successful
            assert node._config.detector.threshold == value

        def service() -> None:
            graph.call(Trigger, "reset", Trigger.Request())
            graph.call(SetBool, "set_enabled", SetBool.Request(data=rng.random() < 0.7))

        def other_qos() -> None:
            for name in ("rgb", "depth"):
                gone.append(getattr(graph, name))
                reliability = rng.choice([ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
                qos = QoSProfile(depth=5, reliability=reliability)
                setattr(graph, name, graph.node.create_publisher(Image, f"{name}/image", qos))
            while len(gone) > 4:
                graph.node.destroy_publisher(gone.pop(0))

        def look() -> None:
            tally, inputs = node._latest.tally(), node._inputs
            assert tally.received == tally.processed + sum(tally.dropped.values()) + tally.in_flight
            assert inputs is None or min(inputs.counts().values(), default=0) >= 0

        def again(act, pause: float) -> None:
            while not stop.wait(pause):
                act()
                done[act.__name__] += 1

        acts = {frame: 0.005, transition: 0.1, setting: 0.05, service: 0.1, other_qos: 0.7, look: 0.002}
        acts[lambda: node._on_jump("ROS time jumped")] = 0.2
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [started(again, act, pause) for act, pause in acts.items()]
            wait_for(
                lambda: wrong or (done["transition"] > 12 and done["other_qos"] > 8 and done["frame"] > 500), "all"
            )
        finally:
            stop.set()
            sys.setswitchinterval(interval)
        ended(*threads)
        assert wrong == []
        assert set(node._report.snapshot()[1]) <= {"disabled", "stale", "no_camera_info"}
