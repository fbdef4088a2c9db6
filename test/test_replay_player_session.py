"""A recording goes through a real node process over DDS and comes back judged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

pytest.importorskip("rclpy")

from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.replay.counters import Counters
from rfdetr_foundationpose.replay.live import LiveOptions
from rfdetr_foundationpose.replay.node_process import NodeStart, NoPose
from rfdetr_foundationpose.replay.playback import Playback
from rfdetr_foundationpose.replay.recording import (
    GroundTruth,
    InstanceTruth,
    Recording,
    RecordingWriter,
)
from rfdetr_foundationpose.replay.session import run_session, stage_latency
from rfdetr_foundationpose.types import CameraIntrinsics, Frame

CAMERA = CameraIntrinsics(200.0, 200.0, 80.0, 60.0, 160, 120)
# The double (ros_double_node.py) answers with x = mean red / 1000 and z = median depth: so is the ground truth.
RED = 100


def write_recording(folder: Path, frames: int) -> Recording:
    with RecordingWriter(folder, objects={"box": "box"}) as writer:
        for i in range(frames):
            rgb = np.full((120, 160, 3), RED, np.uint8)
            depth = np.full((120, 160), 600 + 2 * i, np.uint16)
            T = np.eye(4)
            T[:3, 3] = (RED / 1000, 0.001, 0.6 + 0.002 * i)  # 1 mm off in y, so that errors are not all zero
            frame = Frame(i * 50_000_000, "camera", rgb, depth, 0.001, CAMERA)
            writer.write(frame, GroundTruth((InstanceTruth("box", "box", T, 1.0),)))
    return Recording(folder)


@pytest.fixture
def spec(tmp_path) -> ObjectSpec:
    trimesh.creation.box(extents=(0.1, 0.06, 0.04)).export(tmp_path / "box.ply")
    (tmp_path / "objects.yaml").write_text("objects:\n  - name: box\n    mesh: box.ply\n")
    return ObjectSpec("box", tmp_path / "box.ply")


def play(tmp_path, spec, frames: int, **options):
    parameters = {
        "objects_file": str(tmp_path / "objects.yaml"),
        "input.reliability": "reliable",
        # Deep: a machine that is busy for a moment loses none.
        "qos_overrides./rgb/image.subscription.depth": 100,
        "qos_overrides./depth/image.subscription.depth": 100,
        "input.max_age": 0.0,
        "output.covariance": True,
    }
    double = [sys.executable, str(Path(__file__).parent / "support" / "ros_double_node.py")]
    return run_session(
        Playback(write_recording(tmp_path / "bag", frames), [spec]),
        NodeStart(parameters, tmp_path / "node.log", double),
        LiveOptions(startup_timeout=400, first_pose_timeout=100, **options),
    )


@pytest.mark.timeout(600)
def test_every_frame_is_answered_and_judged(tmp_path, spec, monkeypatch, said):
    monkeypatch.setenv("DOUBLE_SECONDS", "0.01")
    session = play(tmp_path, spec, 12, measured_frames=40)
    result = session.result
    assert result["frames_published"] == result["frames_received"] == 12
    assert result["poses"] == result["frames_processed"] == 12 - result["dropped"]
    assert result["poses"] >= 10
    assert result["translation_error_mm"]["p50"] == pytest.approx(1.0, abs=0.01)
    assert result["rotation_error_deg"]["p95"] == pytest.approx(0.0, abs=1e-4)
    assert result["adds_recall_0.1d"] == 1.0
    assert result["latency_ms"]["track"]["p50"] >= 10
    assert result["latency_ms"]["end_to_end"]["p50"] >= result["latency_ms"]["track"]["p50"]
    assert result["frames_held"] > 0
    assert [s.seconds for s in session.samples] == sorted(s.seconds for s in session.samples)
    assert session.samples[-1].seconds == pytest.approx(0.55)
    assert all(s.age_ms > 9 for s in session.samples)
    # The topic with covariances appears with the first pose.
    sure = [s.confidence for s in session.samples if s.confidence is not None]
    assert sure and sure == pytest.approx([0.9] * len(sure))
    assert len(session.series["image to pose, as received"]) == result["poses"]
    assert any("ms from image to pose" in sentence for sentence in said)  # at what pace follows from that


def test_frames_that_a_slow_node_replaces_are_all_accounted_for(tmp_path, spec, monkeypatch):
    monkeypatch.setenv("DOUBLE_SECONDS", "0.3")
    result = play(tmp_path, spec, 30, rate=2.0).result
    assert result["frames_published"] == result["frames_received"] == 30
    assert result["dropped_by_reason"]["replaced"] == result["dropped"] > 0
    assert result["poses"] == result["frames_processed"] == 30 - result["dropped"]


def test_counters_are_differences_of_the_nodes_own():
    def diagnostics(received, processed, replaced, lost):
        return {
            "pose_node: processing": {
                "received": str(received),
                "processed": str(processed),
                "dropped_replaced": str(replaced),
                "in_flight": "0",
                "newest_stamp_ns": "7",
                "track_ms_p50_p95_max": "1.5 2.5 3.5",
            },
            "pose_node: objects": {"lost": str(lost)},
        }

    before, after = diagnostics(10, 8, 2, 1), diagnostics(30, 25, 5, 1)
    new = Counters.read(after).since(Counters.read(before))
    assert (new.received, new.processed, new.dropped, new.lost) == (20, 17, {"replaced": 3}, 0)
    assert stage_latency(after) == {"track": {"p50": 1.5, "p95": 2.5, "max": 3.5}}
    with pytest.raises(NoPose, match="no diagnostics"):
        Counters.read({})
