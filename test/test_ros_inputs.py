"""Masks of a recording: which topics are read, and which a frame waits for."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from rfdetr_foundationpose.config import Config, DetectorConfig, InputConfig
from rfdetr_foundationpose.ros import inputs, mask_topics
from rfdetr_foundationpose.ros.image_qos import HISTORY
from rfdetr_foundationpose.ros.worker import LatestFrame, Pair
from rfdetr_foundationpose.types import InputError
from support.ros_support import Camera, Graph, wait_for

INSTANCES = ["mug", "mug_1", "box"]
MASKED = {
    "use_mask_topics": Config(input=InputConfig(use_mask_topics=True)),
    "mask-topic": Config(detector=DetectorConfig(source="mask-topic")),
}


@pytest.fixture()
def graph():
    graph = Graph("/masks")
    yield graph
    graph.close()


def opened(graph: Graph, config: Config) -> inputs.Inputs:
    errors: list = []
    made = inputs.Inputs(
        graph.node, config, INSTANCES, LatestFrame(), errors.append, lambda *error: errors.append(error)
    )
    made.open()
    return made


def subscribed(graph: Graph) -> list[str]:
    return [n for n in INSTANCES if graph.node.count_subscribers(f"/masks/mask/{n}")]


@pytest.mark.parametrize("setting", MASKED)
def test_either_setting_subscribes_to_the_masks_of_every_instance(graph, setting):
    made = opened(graph, MASKED[setting])
    wait_for(lambda: subscribed(graph) == INSTANCES, "mask subscriptions")
    made.close()


def test_without_either_setting_there_are_no_mask_topics(graph):
    made = opened(graph, Config())
    wait_for(lambda: graph.node.count_subscribers("/masks/rgb/image"), "the image subscription")
    assert subscribed(graph) == []
    made.close()


def test_frames_follow_a_camera_info_that_changes(graph):
    camera = Camera(graph)
    made = opened(graph, Config())
    stamp = time.time_ns()
    pair = Pair(camera.rgb(stamp), camera.depth(stamp), stamp, time.monotonic())
    wait_for(lambda: graph.info.get_subscription_count() > 0, "the camera_info subscription")
    for focal in (140.0, 150.0):
        info = camera.camera_info(stamp)
        info.k[0] = info.k[4] = focal

        def arrived(info=info, focal=focal) -> bool:
            graph.info.publish(info)
            return made.camera is not None and made.camera.fx == focal

        wait_for(arrived, "camera_info")
        assert made.assemble(pair, ExitStack()).camera.fy == focal
    made.close()


@pytest.mark.parametrize("name", ["rgb", "depth"])
def test_a_qos_parameter_of_one_image_topic_is_not_the_others_too(name):
    overridden = f"qos_overrides./one/{name}/image.subscription.depth"
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node(
        "one", context=context, namespace="/one", parameter_overrides=[Parameter(overridden, value=77)]
    )
    made = inputs.Inputs(node, Config(), [], LatestFrame(), print, print)
    made.open()
    depths = {s.topic_name: s.qos_profile.depth for s in node.subscriptions if s.topic_name.endswith("/image")}
    assert depths == {f"/one/{topic}/image": 77 if topic == name else HISTORY for topic in ("rgb", "depth")}
    made.close()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_lens_that_focuses_is_followed_and_is_no_second_camera(graph):
    camera = Camera(graph)
    made = opened(graph, Config())
    wait_for(lambda: graph.info.get_subscription_count() > 0, "the camera_info subscription")
    wait_for(lambda: graph.info.publish(camera.camera_info(0)) or made.camera is not None, "camera_info")
    for step in range(1, 40):
        info = camera.camera_info(0)
        focal = 160.0 + 0.25 * step
        info.k[0] = info.k[4] = focal
        received = made._infos.received
        graph.info.publish(info)
        wait_for(lambda received=received: made._infos.received > received, "camera_info")
        wait_for(lambda focal=focal: made.camera.fx == focal, "the focal length")
    assert made.health()["conflict"] == ""
    made.close()


@pytest.mark.parametrize("rectify", [False, True])
def test_a_lens_is_said_once_and_counted_or_undone(graph, rectify, capfd):
    camera = Camera(graph)
    made = opened(graph, Config(input=InputConfig(rectify=rectify)))
    stamp = time.time_ns()
    pair = Pair(camera.rgb(stamp), camera.depth(stamp), stamp, time.monotonic())
    info = camera.camera_info(stamp)
    info.distortion_model, info.d = "plumb_bob", [0.5, 0.0, 0.0, 0.0, 0.0]
    wait_for(lambda: graph.info.get_subscription_count() > 0, "the camera_info subscription")

    def arrived() -> bool:
        graph.info.publish(info)
        return made.camera is not None

    wait_for(arrived, "camera_info")
    frames = [made.assemble(pair, ExitStack()) for _ in range(3)]
    raw = np.asarray(pair.rgb.data, np.uint8).reshape(frames[0].rgb.shape)
    assert np.array_equal(frames[0].rgb, raw) != rectify
    assert frames[0].camera.fx == info.k[0]
    said = capfd.readouterr().err
    assert (made.distorted, said.count("lens distorts")) == ((0, 0) if rectify else (3, 1))
    assert ("input.rectify" in made.distortion) != rectify
    made.close()


def test_a_lens_that_is_exchanged_is_said_anew_or_no_more(graph, capfd):
    """As when the driver starts again with a rectified stream, or another calibration."""
    camera = Camera(graph)
    made = opened(graph, Config())
    stamp = time.time_ns()
    pair = Pair(camera.rgb(stamp), camera.depth(stamp), stamp, time.monotonic())
    wait_for(lambda: graph.info.get_subscription_count() > 0, "the camera_info subscription")
    said = []
    for k1 in (0.5, 0.25, 0.0):
        info = camera.camera_info(stamp)
        info.distortion_model, info.d = "plumb_bob", [k1, 0.0, 0.0, 0.0, 0.0]

        def arrived(info=info, k1=k1) -> bool:
            graph.info.publish(info)
            known = made._infos.calibration() if made.camera is not None else None
            return known is not None and known.distortion[:1] == ((k1,) if k1 else ())

        wait_for(arrived, "camera_info")
        for _ in range(2):
            made.assemble(pair, ExitStack())
        said.append(made.health()["distortion"])
    assert "0.5, 0" in said[0] and "0.25, 0" in said[1] and said[2] == ""
    assert capfd.readouterr().err.count("lens distorts") == 2
    made.close()


def test_images_without_a_frame_have_that_of_camera_info(graph):
    camera = Camera(graph)
    made = opened(graph, Config())
    stamp = time.time_ns()
    pair = Pair(camera.rgb(stamp), camera.depth(stamp), stamp, time.monotonic())
    pair.rgb.header.frame_id, pair.depth.header.frame_id = "", "camera_of_the_calibration"
    wait_for(lambda: graph.info.get_subscription_count() > 0, "the camera_info subscription")
    for named in ("camera_of_the_calibration", ""):
        info = camera.camera_info(stamp)
        info.header.frame_id = named
        wait_for(
            lambda info=info, named=named: graph.info.publish(info) or (made.camera and made._infos.frame_id == named),
            "camera_info",
        )
        assert made.assemble(pair, ExitStack()).frame_id == named
        assert made.health()["nameless"] == (named == "")
        assert not named or made.depth_frame == "", "depth is in the same frame"
    made.close()


def test_stamps_that_go_back_are_said_with_who_publishes(graph):
    """A recording that plays beside the camera."""
    errors, jumps, latest = [], [], LatestFrame()
    made = inputs.Inputs(graph.node, Config(), (), latest, jumps.append, lambda _, error: errors.append(str(error)))
    made.open()
    camera, begin = Camera(graph), time.time_ns()
    wait_for(lambda: graph.rgb.get_subscription_count() and graph.depth.get_subscription_count(), "subscriptions")
    other = graph.node.create_publisher(Image, "rgb/image", 1)
    wait_for(lambda: graph.node.count_publishers("/masks/rgb/image") == 2, "both publishers")

    def publish(stamp: int) -> None:
        received = latest.tally().received
        camera.publish(stamp)
        wait_for(lambda: latest.tally().received > received, "the pair")

    publish(begin)
    publish(begin - 500_000_000)
    assert latest.tally().dropped["out_of_order"] >= 1
    assert errors == ["an image is 0.5 s older than one before it (/masks/rgb/image is published by /masks/test)"]
    publish(begin)
    assert errors[1].startswith("two images have the same stamp")
    graph.node.destroy_publisher(other)
    wait_for(lambda: graph.node.count_publishers("/masks/rgb/image") == 1, "one publisher")
    publish(begin - 60 * 10**9)
    assert jumps == ["image stamps jumped back 60 s"]
    publish(0)
    assert latest.tally().dropped["no_stamp"] >= 1 and "header.stamp" in errors[-1]
    made.close()


def test_a_frame_waits_only_for_masks_that_somebody_publishes(graph, monkeypatch, capfd):
    monkeypatch.setattr(mask_topics, "MASK_WAIT", 600.0)
    camera = Camera(graph)
    made = opened(graph, MASKED["mask-topic"])
    stamp = time.time_ns()
    camera.publish(stamp)
    wait_for(lambda: made.camera is not None, "camera_info")
    pair = Pair(camera.rgb(stamp), camera.depth(stamp), stamp, time.monotonic())
    frames = []

    def assemble() -> threading.Thread:
        thread = threading.Thread(target=lambda: frames.append(made.assemble(pair, ExitStack())), daemon=True)
        thread.start()
        return thread

    thread = assemble()
    thread.join(60)
    assert not thread.is_alive()
    assert frames[-1].masks == {}
    assert "nobody publishes /masks/mask/mug, /masks/mask/mug_1, /masks/mask/box" in capfd.readouterr().err

    second = graph.node.create_publisher(Image, "mask/mug_1", 10)
    wait_for(lambda: second.get_subscription_count() > 0 and graph.node.count_publishers("/masks/mask/mug_1"), "match")
    thread = assemble()
    thread.join(0.3)
    assert thread.is_alive()
    second.publish(camera.message(np.full((camera.height, camera.width), 255, np.uint8), "mono8", stamp))
    thread.join(60)
    assert list(frames[-1].masks) == ["mug_1"]
    assert frames[-1].masks["mug_1"].all()
    made.close()


def test_depth_of_a_second_camera_is_not_taken_with_the_colour_of_the_first(graph):
    """With approximate stamps it would pair."""
    camera, other = Camera(graph), Camera(graph, 80, 60)
    other.frame_id = "other_depth"
    made = opened(graph, Config())
    stamp = time.time_ns()
    wait_for(lambda: camera.publish(stamp, rgb=None, depth=None) and made.camera is not None, "camera_info")
    for _ in range(6):
        made.assemble(Pair(camera.rgb(stamp), camera.depth(stamp), stamp, time.monotonic()), ExitStack())
        with pytest.raises(InputError, match=r"images of other_depth \(80x60\) come between .*/depth/image is pub"):
            made.assemble(Pair(camera.rgb(stamp), other.depth(stamp), stamp, time.monotonic()), ExitStack())
    made.close()
