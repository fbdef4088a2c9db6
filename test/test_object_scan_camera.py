"""``object scan --camera``: frames of topics, as a driver publishes them, become the same mesh as a recording."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rfdetr_foundationpose.cli import scan_camera
from rfdetr_foundationpose.cli.main import main
from rfdetr_foundationpose.object_tools.board import BOARDS
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.replay.player import FramePublisher
from rfdetr_foundationpose.replay.recording import Recording
from rfdetr_foundationpose.ros import camera_frames
from rfdetr_foundationpose.synth.generate import load_scene_objects
from rfdetr_foundationpose.synth.scan_video import ScanSettings, ScanVideo
from support.ros_support import Graph

BOARD = BOARDS["a4"]
FRAMES = 16


def walk(pose: int):
    (mug,) = load_scene_objects(names=("mug",))
    settings = ScanSettings(frames=FRAMES, rate=0.55, size=(384, 512), pose=pose, seed=pose)
    made = ScanVideo(mug, (BOARD.picture(4), BOARD.size), settings)
    return [made.frame(i)[0] for i in range(FRAMES)]


@pytest.fixture
def camera():
    """Publishes what is in ``frames``, one after the other, each until a recording has taken it."""
    graph = Graph("/scan_camera")
    publisher = FramePublisher(graph.node)
    playing = Playing(publisher)
    yield playing
    playing.end()
    graph.close()


class Playing:
    def __init__(self, publisher: FramePublisher) -> None:
        self.frames: list = []
        self.publisher = publisher
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            if self.frames:
                frame = self.frames[0]
                self.publisher.publish(frame, time.time_ns())

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def words(tmp_path, *more: str) -> list[str]:
    topics = [f"--{option}=/scan_camera/{topic}" for option, topic in TOPICS.items()]
    file = str(tmp_path / "objects.yaml")
    return ["object", "scan", "--camera", "--name", "cup", "--objects-file", file, "--device", "cpu", *topics, *more]


TOPICS = {"rgb": "rgb/image", "depth": "depth/image", "camera-info": "rgb/camera_info"}


def test_two_passes_of_a_live_camera_are_kept_as_recordings_and_become_one_mesh(tmp_path, camera, monkeypatch, capsys):
    passes = [walk(1), walk(0)]
    shown = camera.frames
    shown += passes[0]

    class Counted(scan_camera.RecordingWriter):
        """The next place is shown after each frame; Ctrl-C ends the pass when every one was taken."""

        def write(self, frame, truth=None):
            super().write(frame, truth)
            if len(shown) > 1:
                shown.pop(0)
            if self.frames == FRAMES + 2:  # the one on its way when the next was shown may come twice
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(scan_camera, "RecordingWriter", Counted)
    monkeypatch.setattr(scan_camera, "RATE", 100.0)

    class Enter(io.StringIO):
        def readline(self, *size):
            shown[:] = passes[1]  # somebody turned it over
            return "\n"

    monkeypatch.setattr(sys, "stdin", Enter())
    with pytest.raises(SystemExit) as ended:
        main(words(tmp_path, "--turned-over", "--seconds", "600", "--voxel", "2", "--no-symmetries"))
    printed = capsys.readouterr().out
    assert not ended.value.code, printed
    for number in (1, 2):
        tape = Recording(tmp_path / "scans" / f"cup-{number}")
        assert len(tape) >= FRAMES
        *_, (frame, _) = tape
        assert frame.rgb.shape == (384, 512, 3) and (frame.depth == passes[number - 1][-1].depth).all()
    assert "turn the object over" in printed and "in common" in printed
    (spec,) = load_objects(tmp_path / "objects.yaml")
    assert spec.name == "cup" and spec.mesh.is_file()


def test_depth_in_another_frame_than_colour_is_said(tmp_path, camera, capsys):
    """As a driver sends it that does not register depth; in the recording it would have colour's frame."""
    depth = camera.publisher._depth

    class Elsewhere:
        def publish(self, message):
            message.header = type(message.header)(stamp=message.header.stamp, frame_id="camera_depth_optical_frame")
            depth.publish(message)

    camera.publisher._depth = Elsewhere()
    camera.frames += walk(1)[:1]
    with pytest.raises(SystemExit):
        main(words(tmp_path, "--seconds", "1"))
    assert "depth is in frame camera_depth_optical_frame, colour in" in capsys.readouterr().out


def test_a_camera_that_is_silent_is_said_with_what_there_is_on_the_graph(tmp_path, camera, monkeypatch, capsys):
    monkeypatch.setattr(camera_frames, "PATIENCE", 3.0)
    with pytest.raises(SystemExit) as ended:
        main([*words(tmp_path), "--rgb=/nowhere/image"])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no frame came for 3 s on /nowhere/image" in said
    published = said.partition("images are published on")[2]
    assert "/scan_camera/rgb/image" in published and "/nowhere/image" not in published
    assert "--camera-info" in said and "Traceback" not in said
    assert not (tmp_path / "scans").exists() or not list((tmp_path / "scans").iterdir())
