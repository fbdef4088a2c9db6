"""Which camera the pipeline is ready for, and what a change of it costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rfdetr_foundationpose.ros.ros_lock import RosLock
from rfdetr_foundationpose.ros.state import NodeState
from rfdetr_foundationpose.ros.warm_up import WarmUp
from rfdetr_foundationpose.types import CameraIntrinsics


class Pipeline:
    def __init__(self) -> None:
        self.done: list[str] = []

    def warm_up(self, camera: CameraIntrinsics) -> None:
        self.done.append(f"warm up {camera.width}x{camera.height}")

    def reset(self) -> None:
        self.done.append("reset")


@pytest.fixture()
def made():
    pipeline, said = Pipeline(), []
    logger = SimpleNamespace(info=lambda _text: None, warning=said.append)
    return WarmUp(pipeline, NodeState(), RosLock(), logger), pipeline.done, said


def frame(frame_id: str = "camera", size: tuple[int, int] = (640, 480), focal: float = 600.0, cx: float = 320.0):
    return SimpleNamespace(frame_id=frame_id, camera=CameraIntrinsics(focal, focal, cx, size[1] / 2, *size))


def test_a_size_is_warmed_up_for_once_and_a_change_of_camera_starts_over(made):
    warm_up, done, said = made
    for shown in (frame(), frame(), frame("other"), frame("other", (320, 240)), frame("other", (320, 240))):
        warm_up.follow(shown)
    assert done == ["warm up 640x480", "reset", "reset", "warm up 320x240"]
    assert warm_up.frame_id == "other" and warm_up.is_for(320, 240) and not warm_up.is_for(640, 480)
    assert "camera changed from ('camera', 640, 480) to ('other', 640, 480)" in said[0]
    warm_up.start_over()
    warm_up.follow(frame())
    assert done[4:] == ["warm up 640x480"] and len(said) == 2


@pytest.mark.parametrize("changed", [{"focal": 630.0}, {"cx": 300.0}])
def test_intrinsics_of_another_view_start_over_and_a_lens_that_focuses_does_not(made, changed):
    warm_up, done, said = made
    for step in range(60):
        warm_up.follow(frame(focal=600.0 + step))  # a tenth in all, in small steps
    assert done == ["warm up 640x480"] and said == []
    warm_up.follow(frame(focal=659.0))
    warm_up.follow(frame(**{"focal": 659.0, **changed}))
    assert done == ["warm up 640x480", "reset"] and "intrinsics changed from (659, 659, 320, 240) to" in said[0]
