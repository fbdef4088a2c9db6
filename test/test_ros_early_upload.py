"""The early image of a pair: uploaded while the other is on its way, and never counted."""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rfdetr_foundationpose.config import Config, InputConfig
from rfdetr_foundationpose.ros import inputs as inputs_module
from rfdetr_foundationpose.ros.worker import EarlyImage, LatestFrame, Pair, Worker
from rfdetr_foundationpose.types import InputError
from support.ros_own_process import Pipeline, node_of
from support.ros_support import Camera, Graph, wait_for


@pytest.fixture()
def graph():
    graph = Graph("/early")
    yield graph
    graph.close()


def pair(stamp: int) -> Pair:
    return Pair(None, None, stamp, time.monotonic())


def test_a_pair_goes_before_an_early_image_and_what_is_not_newer_is_left():
    latest = LatestFrame()
    latest.put_early(EarlyImage("depth", True, 1))
    latest.put_early(EarlyImage("depth", True, 2))
    assert latest.take_next(0).stamp_ns == 2
    assert latest.take_next(0) is None
    latest.put_early(EarlyImage("depth", True, 3))
    waiting = pair(3)
    latest.put(waiting)
    latest.put_early(EarlyImage("rgb", False, 3))  # of the pair that waits
    assert latest.take_next(0) is waiting
    latest.done(None)
    assert latest.take_next(0) is None
    latest.put_early(EarlyImage("depth", True, 4))
    assert latest.take(0) is None  # who wants pairs alone
    latest.close("deactivated")
    latest.put_early(EarlyImage("depth", True, 5))
    latest.open()
    assert latest.take_next(0) is None
    tally = latest.tally()
    assert (tally.received, tally.processed, tally.in_flight, tally.dropped) == (1, 1, 0, {})


def test_an_image_of_the_next_pair_waits_for_the_pair_before_it():
    latest, waiting = LatestFrame(), pair(1)
    latest.put(waiting)
    latest.put_early(EarlyImage("depth", True, 2))
    assert latest.take_next(0) is waiting
    latest.done(None)
    assert latest.take_next(0).stamp_ns == 2 and latest.take_next(0) is None
    latest.put_early(EarlyImage("depth", True, 3))
    latest.put(pair(3))
    assert latest.take_next(0).stamp_ns == 3 and latest.take_next(0) is None


def test_the_later_image_of_a_pair_of_two_stamps_is_not_of_the_next_one(graph, monkeypatch):
    """Approximate synchronization pairs a depth image with the colour image before it."""
    monkeypatch.setattr(inputs_module, "resolve_device", lambda _: "cuda")
    heard, errors, latest = [], [], LatestFrame()
    put_early = latest.put_early
    monkeypatch.setattr(latest, "put_early", lambda image: put_early(image) or heard.append(image))
    settings = Config(input=InputConfig(sync="approximate"))
    made = inputs_module.Inputs(graph.node, settings, (), latest, errors.append, lambda *e: errors.append(e))
    made.open()
    camera = Camera(graph)
    wait_for(lambda: graph.rgb.get_subscription_count() and graph.depth.get_subscription_count(), "subscriptions")
    stamp = time.time_ns()
    graph.rgb.publish(camera.rgb(stamp))
    wait_for(lambda: len(heard) == 1, "colour")
    assert latest.take_next(0).stamp_ns == stamp
    graph.depth.publish(camera.depth(stamp + 1_000_000))
    wait_for(lambda: len(heard) == 2, "depth")
    taken = latest.take_next(0)
    assert isinstance(taken, Pair) and (taken.stamp_ns, taken.depth_ns) == (stamp, stamp + 1_000_000)
    latest.done(None)
    assert latest.take_next(0) is None
    made.close()
    assert errors == []


def test_time_that_jumps_takes_an_early_image_along():
    latest = LatestFrame()
    latest.put_early(EarlyImage("depth", True, 1))
    latest.clear("time_jump")
    assert latest.take_next(0) is None and latest.tally().dropped == {}


def test_a_bad_early_image_is_said_by_its_pair_alone_and_a_failure_is_no_lost_frame():
    errors, done, taken = [], [], []

    def handle_early(image: EarlyImage) -> None:
        taken.append(image.stamp_ns)
        raise InputError("bad_encoding", "what is that") if image.stamp_ns == 1 else RuntimeError("no memory")

    latest = LatestFrame()
    worker = Worker(latest, lambda kind, _: errors.append(kind))
    assert worker.start(lambda p: done.append(p.stamp_ns), handle_early)
    for stamp in (1, 2):
        latest.put_early(EarlyImage("depth", True, stamp))
        wait_for(lambda stamp=stamp: taken[-1:] == [stamp], "the image")
        latest.put(pair(stamp))
        wait_for(lambda stamp=stamp: done[-1:] == [stamp], "its pair")
    assert worker.stop(60)
    assert errors == ["early_upload_error"]
    assert latest.tally().processed == 2 and latest.tally().dropped == {} and worker.busy_for() == 0


def early_images(
    graph,
    monkeypatch,
    device: str,
    changed: InputConfig | None = None,
    depth_first: bool = True,
    encoding: str = "rgb8",
) -> list:
    """Of three frames, whether the early image was depth."""
    monkeypatch.setattr(inputs_module, "resolve_device", lambda _: device)
    found, errors, latest = [], [], LatestFrame()
    settings = Config(input=changed or InputConfig())
    made = inputs_module.Inputs(graph.node, settings, (), latest, errors.append, lambda *e: errors.append(e))
    monkeypatch.setattr(latest, "put_early", found.append)
    made.open()
    camera = Camera(graph)
    wait_for(lambda: graph.rgb.get_subscription_count() and graph.depth.get_subscription_count(), "subscriptions")
    wait_for(lambda: camera.publish(rgb=None, depth=None) and made.camera is not None, "camera_info")
    for _ in range(3):
        stamp, known = time.time_ns(), len(found)
        sides = ("depth", "rgb") if depth_first else ("rgb", "depth")
        images = {side: getattr(camera, side)(stamp) for side in sides}
        images["rgb"].encoding = encoding
        getattr(graph, sides[0]).publish(images[sides[0]])
        wait_for(lambda: sum(made.counts().get(n, 0) for n in ("rgb", "depth")) % 2, "the first image")
        if device != "cpu" and not settings.input.rectify:
            wait_for(lambda known=known: len(found) > known, "the early image")
        getattr(graph, sides[1]).publish(images[sides[1]])
        taken = None
        while taken is None:
            taken = latest.take(1.0)
        assert taken.stamp_ns == stamp
        with ExitStack() as leases:
            frame = made.assemble(taken, leases)
        if len(found) > known:
            wait_for(lambda known=known: len(found) == known + 2, "the other one, which is early no more")
            assert found[known].stamp_ns == stamp
            if encoding == "rgb8":
                (name, image), *_ = made.convert_early(found[known]).items()
                assert np.shares_memory(image, getattr(frame, name))
            (name, image), *_ = made.convert_early(found[known]).items()
            with ExitStack() as leases:
                again = made.assemble(taken, leases)
                assert getattr(again, name) is image and np.array_equal(again.rgb, frame.rgb)
                assert getattr(made.assemble(taken, leases), name) is not image
        latest.done(None)
    made.close()
    assert errors == []
    return list({image.stamp_ns: image.is_depth for image in reversed(found)}.values())


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
@pytest.mark.parametrize("depth_first", [True, False])
def test_for_a_gpu_the_early_image_is_converted_once(graph, monkeypatch, depth_first, encoding):
    assert early_images(graph, monkeypatch, "cuda", depth_first=depth_first, encoding=encoding) == [depth_first] * 3


@pytest.mark.parametrize(("device", "changed"), [("cpu", InputConfig()), ("cuda", InputConfig(rectify=True))])
def test_there_is_no_early_image_for_a_cpu_or_where_images_are_rectified_first(graph, monkeypatch, device, changed):
    assert early_images(graph, monkeypatch, device, changed) == []


def test_a_node_uploads_early_images_of_frames_that_it_will_take(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs_module, "resolve_device", lambda _: "cuda")
    pipeline = Pipeline()
    with node_of(pipeline, tmp_path) as (node, graph):
        assert node.trigger_configure() == node.trigger_activate()
        camera = Camera(graph)

        def counted(name: str) -> int:
            return pipeline._counters[name]

        camera.stream_until(lambda: node._latest.tally().processed >= 2, "frames")
        known = counted("early_depth")

        def one_by_one(stamp: int | None = None) -> None:
            stamp = time.time_ns() if stamp is None else stamp
            processed = node._latest.tally().received
            camera.publish(stamp, rgb=None)
            time.sleep(0.05)
            camera.publish(stamp, depth=None)
            wait_for(lambda: node._latest.tally().received > processed, "the pair")

        wait_for(lambda: one_by_one() or counted("early_depth") > known, "an early depth image")
        node.state.enabled = False
        time.sleep(0.1)
        known = counted("early_depth"), counted("early_rgb")
        for _ in range(3):
            one_by_one()
        assert (counted("early_depth"), counted("early_rgb")) == known
        assert node._latest.tally().dropped["disabled"] >= 3
        node.state.enabled = True
        one_by_one(time.time_ns() - 10**10)  # late, and too old
        assert (counted("early_depth"), counted("early_rgb")) == known
        assert node._report.snapshot()[1].get("pipeline_error", 0) == 0
        tally = node._latest.tally()
        assert tally.received == tally.processed + sum(tally.dropped.values()) + tally.in_flight
