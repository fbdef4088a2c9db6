"""The example nodes over a real graph: masks of a segmenter, and the page on which a box is drawn."""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from itertools import count
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image, RegionOfInterest

from support.ros_support import Graph

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
_numbers = count()


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def red_square() -> Image:
    rgb = np.full((60, 80, 3), 90, np.uint8)
    rgb[20:40, 30:60] = (220, 20, 30)
    rgb[2:4, 2:4] = (220, 20, 30)
    message = Image(height=60, width=80, encoding="rgb8", step=240, data=rgb.tobytes())
    message.header.stamp.sec, message.header.frame_id = 7, "camera"
    return message


@pytest.fixture
def graph():
    made = Graph(f"/examples{next(_numbers)}")
    yield made
    made.close()


def spin_until(executor, done) -> None:
    for _ in range(400):
        if done():
            return
        executor.spin_once(timeout_sec=0.05)
    raise AssertionError("nothing came in time")


def test_masks_have_the_stamp_of_their_image_and_the_largest_piece(graph):
    node = example("mask_publisher").MaskPublisher(
        "mug", "rgb/image", (170, 120, 60), (179, 255, 255), context=graph.context, namespace=graph.node.get_namespace()
    )
    masks: list[Image] = []
    graph.node.create_subscription(Image, "mask/mug", masks.append, 1)
    images = graph.node.create_publisher(Image, "rgb/image", 1)
    executor = SingleThreadedExecutor(context=graph.context)
    executor.add_node(node)
    try:
        spin_until(executor, lambda: images.get_subscription_count() == 1 and node.masks.get_subscription_count() == 1)
        images.publish(red_square())
        spin_until(executor, lambda: masks)
    finally:
        executor.shutdown()
        node.destroy_node()
    assert masks[0].header.stamp.sec == 7 and masks[0].encoding == "mono8"
    pixels = np.frombuffer(bytes(masks[0].data), np.uint8).reshape(60, 80)
    assert (pixels > 0).sum() == 20 * 30 and pixels[30, 45] == 255


def test_a_box_drawn_on_the_page_is_published(graph):
    page = example("init_box_page").InitBoxPage(
        ["mug", "drill"], "rgb/image", port=0, context=graph.context, namespace=graph.node.get_namespace()
    )
    boxes: list[RegionOfInterest] = []
    graph.node.create_subscription(RegionOfInterest, "pose_node/init_box/drill", boxes.append, 1)
    images = graph.node.create_publisher(Image, "rgb/image", 1)
    executor = SingleThreadedExecutor(context=graph.context)
    executor.add_node(page)
    address = f"http://127.0.0.1:{page.server.server_port}/"

    def post(**content) -> str:
        return urllib.request.urlopen(address + "box", json.dumps(content).encode(), timeout=60).read().decode()

    try:
        spin_until(executor, lambda: images.get_subscription_count() == 1)
        images.publish(red_square())
        spin_until(executor, lambda: page.jpeg)
        assert b'"drill"' in urllib.request.urlopen(address, timeout=60).read()
        assert urllib.request.urlopen(address + "image.jpg", timeout=60).read()[:2] == b"\xff\xd8"
        spin_until(executor, lambda: page.boxes["drill"].get_subscription_count() == 1)
        assert post(object="mug", box=[1, 1, 9, 9]) == "mug: nobody listens; is pose_node running?"
        assert post(object="drill", box=[30, 20, 2, 20]) == "draw a larger box"
        assert post(object="drill", box=[30, 20, 31, 21]) == "drill: box sent"
        spin_until(executor, lambda: boxes)
    finally:
        page.server.shutdown()
        executor.shutdown()
        page.destroy_node()
    assert (boxes[0].x_offset, boxes[0].y_offset, boxes[0].width, boxes[0].height) == (30, 20, 31, 21)
