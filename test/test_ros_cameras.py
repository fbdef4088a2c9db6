"""Which camera's frames are taken, and with which reliability."""

from __future__ import annotations

import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from rfdetr_foundationpose.ros.cameras import IN_A_ROW, SILENT, Steady
from support.ros_support import Camera, running_node, wait_for


def test_what_comes_between_is_not_taken_until_it_comes_alone():
    steady = Steady()
    assert steady.take("a", 0.0)
    for i in range(20):
        assert not steady.take("b", 0.1 * i)
        assert steady.take("a", 0.1 * i + 0.05)
    taken = [steady.take("b", 2.0 + 0.1 * i) for i in range(IN_A_ROW)]
    assert taken == [False] * (IN_A_ROW - 1) + [True]
    assert not steady.take("a", 2.5)
    assert steady.current == "b"


def test_a_single_change_is_taken_at_once_when_the_old_one_has_been_silent():
    steady = Steady()
    steady.take("latched once", 0.0)
    assert steady.take("latched anew", SILENT)


@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True)])
def test_the_subscription_follows_what_the_publishers_offer(tmp_path, first, then):
    with running_node(tmp_path, reliable=first) as (node, graph):
        topic = f"{graph.namespace}/rgb/image"

        def reliability() -> set[bool]:
            infos = graph.node.get_subscriptions_info_by_topic(topic)
            return {i.qos_profile.reliability == ReliabilityPolicy.RELIABLE for i in infos}

        wait_for(lambda: reliability() == {first}, f"reliable to be {first}")
        Camera(graph).stream_until_pose()
        policy = ReliabilityPolicy.RELIABLE if then else ReliabilityPolicy.BEST_EFFORT
        for name in ("rgb", "depth"):
            graph.node.destroy_publisher(getattr(graph, name))
            setattr(
                graph,
                name,
                graph.node.create_publisher(Image, f"{name}/image", QoSProfile(depth=5, reliability=policy)),
            )
        wait_for(lambda: reliability() == {then}, f"reliable to be {then}")
        said = f"images: {'reliable' if then else 'best_effort'}, as their publishers offer"
        wait_for(lambda: said in node.log, "the change to be said")
        Camera(graph).stream_until_pose()
        assert graph.fresh_values("input")["reliability"] == ("reliable" if then else "best_effort")


def test_a_reliability_that_is_set_is_kept(tmp_path):
    with running_node(tmp_path, "input.reliability:=best_effort", reliable=True) as (_, graph):
        Camera(graph).stream_until_pose()
        assert graph.fresh_values("input")["reliability"] == "best_effort"


def test_message_filters_in_the_loop_gives_the_same_poses(tmp_path):
    """Frames of different depth, so that a pose says which pair it was made of."""
    pytest.importorskip("message_filters", reason="message_filters is not installed")
    poses = {}
    for library in ("own", "message_filters"):
        with running_node(tmp_path, f"input.sync_library:={library}", "input.max_age:=0.0", reliable=True) as (
            _,
            graph,
        ):
            camera = Camera(graph)
            camera.stream_until_pose()
            graph.poses.clear()
            for i in range(30):
                camera.metres = 0.5 + 0.01 * i
                camera.publish(10**18 + i * 33_000_000)
                wait_for(lambda i=i, graph=graph: len(graph.poses) > i, f"pose {i}")
            poses[library] = [(p.pose.position.x, p.pose.position.z) for p, _ in graph.poses]
    assert poses["own"] == poses["message_filters"]
    assert len(set(poses["own"])) == 30
