"""The node over a real DDS graph, in a second process: poses, stamps, life cycle, services, parameters, end."""

from __future__ import annotations

import pytest
from ros_support import FRAME_ID, Camera, running_node, stamp_of


def test_poses_carry_the_images_stamp_and_frame(tmp_path):
    with running_node(tmp_path) as (_, graph):
        camera = Camera(graph)
        stamps = camera.stream(2.0)
        camera.stream_until_pose()
        known = [p for p, _ in graph.poses if stamp_of(p) in stamps]
        assert len(known) >= 10
        for pose in known:
            assert pose.header.frame_id == FRAME_ID
            assert pose.pose.position.z == pytest.approx(1.0)
            assert pose.pose.position.x == pytest.approx(0.2)
