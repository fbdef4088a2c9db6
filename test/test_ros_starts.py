"""``~/init_box/<object>`` over a real graph: what is said there reaches the pipeline."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import RegionOfInterest

from support.ros_own_process import Pipeline, node_of
from support.ros_support import wait_for

pytestmark = pytest.mark.timeout(600)


def test_a_box_on_the_topic_starts_its_object_and_the_topic_goes_with_the_configuration(tmp_path):
    pipeline = Pipeline()
    with node_of(pipeline, tmp_path) as (node, graph):
        node.trigger_configure()
        topic = f"{node.get_fully_qualified_name()}/init_box/box"
        publisher = graph.node.create_publisher(RegionOfInterest, topic, 1)
        wait_for(lambda: publisher.get_subscription_count() == 1, "the node to listen")
        publisher.publish(RegionOfInterest(x_offset=20, y_offset=30, width=40, height=50))
        wait_for(lambda: pipeline.status().counters.get("start_box_20_30_60_80") == 1, "the start")
        node.trigger_cleanup()
        wait_for(lambda: publisher.get_subscription_count() == 0, "the topic to go")
