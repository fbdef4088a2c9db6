"""A run as MCAP and as a rerun recording, read back by the readers that people use; and the Foxglove layout for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.replay.mcap_sink import McapSink
from rfdetr_foundationpose.replay.outputs import write_outputs
from rfdetr_foundationpose.replay.playback import Playback
from rfdetr_foundationpose.replay.recording import Recording
from rfdetr_foundationpose.replay.result import FrameCounts, PoseSample, RunOutcome, build_result
from rfdetr_foundationpose.resources import models_dir, share_dir
from rfdetr_foundationpose.synth.generate import generate_recording, load_scene_objects
from rfdetr_foundationpose.synth.video import VideoSettings

LATENCY = {"track": [(0.0, 30.0), (0.05, 31.0)], "register": [(0.0, 900.0)]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A generated recording of four frames with the true poses as answers: the mug in all, the drill in the first two."""
    folder = tmp_path_factory.mktemp("run")
    targets = ("mug", "drill")
    settings = VideoSettings(frames=4, size=(120, 160), targets=targets, distractors=0)
    generate_recording(folder / "bag", load_scene_objects(names=targets), settings)
    yaml = folder / "objects.yaml"
    yaml.write_text("objects:\n" + "".join(f"  - {{name: {n}, mesh: {models_dir()}/demo/{n}.glb}}\n" for n in targets))
    recording = Recording(folder / "bag")
    samples, start = [], None
    for index, (frame, truth) in enumerate(recording):
        start = start or frame.stamp_ns
        for t in truth.instances:
            if t.object == "mug" or index < 2:
                seconds = (frame.stamp_ns - start) * 1e-9
                samples.append(
                    PoseSample(index, frame.stamp_ns, seconds, t.object, t.T_cam_obj, confidence=0.8, age_ms=None)
                )
    return folder, recording, load_objects(yaml), samples


def outputs(run, out: Path, sinks):
    _, recording, specs, samples = run
    result = build_result(samples, FrameCounts(4, 4, 4), latency_ms={}, detection_source="", weights="", device="cpu")
    outcome = RunOutcome(result, samples, LATENCY)
    return write_outputs(out, outcome, Playback(recording, specs), title="test", sinks=sinks)


@pytest.fixture(scope="module")
def mcap(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    outputs(run, out, [McapSink(out / "run.mcap", run[2])])
    return out / "run.mcap"


def test_the_mcap_reader_finds_topics_types_and_stamps(mcap, run):
    stamps = [frame.stamp_ns for frame, _ in run[1]]
    with mcap.open("rb") as file:
        summary = make_reader(file).get_summary()
        kinds = {c.topic: summary.schemas[c.schema_id].name for c in summary.channels.values()}
        counts = {summary.channels[i].topic: n for i, n in summary.statistics.channel_message_counts.items()}
        assert (summary.statistics.message_start_time, summary.statistics.message_end_time) == (
            stamps[0],
            max(stamps[-1], stamps[0] + 50_000_000),
        )
    assert kinds["/rgb/image/compressed"] == "sensor_msgs/msg/CompressedImage"
    assert kinds["/pose_node/pose/mug"] == "geometry_msgs/msg/PoseStamped"
    assert kinds["/pose_node/markers"] == "visualization_msgs/msg/MarkerArray"
    assert (counts["/pose_node/pose/mug"], counts["/pose_node/pose/drill"], counts["/tf"]) == (4, 2, 4)
    assert (counts["/pose_node/latency/track"], counts["/pose_node/latency/register"]) == (2, 1)
    assert counts["/pose_node/confidence/mug"] == 4 and counts["/pose_node/debug_image/compressed"] == 4


def test_rosbags_reads_every_message_back(mcap, run):
    _, recording, _, samples = run
    frames = [frame for frame, _ in recording]
    seen: dict[str, list] = {}
    with AnyReader([mcap], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        for connection, _, raw in reader.messages():
            seen.setdefault(connection.topic, []).append(reader.deserialize(raw, connection.msgtype))
    depth = seen["/depth/image"][2]
    assert np.array_equal(np.frombuffer(depth.data, np.uint16).reshape(120, 160), frames[2].depth)
    pose = seen["/pose_node/pose/mug"][3].pose.position
    expected = next(s for s in samples if s.frame == 3).T_cam_obj[:3, 3]
    np.testing.assert_allclose((pose.x, pose.y, pose.z), expected)
    assert seen["/tf"][0].transforms[0].child_frame_id in ("mug", "drill")
    first, last = seen["/pose_node/markers"][0].markers, seen["/pose_node/markers"][2].markers
    assert {m.ns for m in first} == {"mug/mesh", "drill/mesh"} and all(len(m.points) % 3 == 0 for m in first)
    assert [(m.ns, m.action) for m in last] == [("drill/mesh", 2)]
    mesh = next(m for m in first if m.ns == "mug/mesh")
    assert mesh.header.frame_id == "mug" and mesh.frame_locked and len(mesh.points) == len(mesh.colors) > 300


def test_foxglove_layout_shows_topics_that_are_there_with_types_that_its_panels_take(mcap):
    """Nobody looked at it in Foxglove: this holds the layout against the recording."""
    layout = json.loads((share_dir() / "config" / "foxglove-layout.json").read_text())
    with mcap.open("rb") as file:
        summary = make_reader(file).get_summary()
        kinds = {c.topic: summary.schemas[c.schema_id].name for c in summary.channels.values()}
    takes = {
        "Image": {"imageTopic": "sensor_msgs/msg/CompressedImage", "calibrationTopic": "sensor_msgs/msg/CameraInfo"},
    }
    panels = layout["configById"]
    used = json.dumps(layout["layout"])
    assert all(name in used for name in panels)
    for name, config in panels.items():
        kind = name.partition("!")[0]
        for key, expected in takes.get(kind, {}).items():
            assert kinds[config["imageMode"][key]] == expected, name
        for topic in config.get("topics", {}) if kind == "3D" else ():
            assert topic in kinds, topic
        for path in config.get("paths", ()) if kind == "Plot" else ():
            topic, _, member = path["value"].partition(".")
            assert kinds[topic] == "std_msgs/msg/Float64" and member == "data", path
        assert kind in ("3D", "Image", "Plot")


def test_rerun_recording_holds_image_cloud_meshes_and_plots(run, tmp_path):
    pytest.importorskip("rerun")
    from rfdetr_foundationpose.replay.rerun_sink import RerunSink

    outputs(run, tmp_path, [RerunSink(tmp_path / "run.rrd", run[2], "test")])
    printed = rrd("print", tmp_path / "run.rrd")
    for path in (
        *("/world/camera/rgb", "/world/camera/depth", "/world/objects/mug/mesh", "/overlay"),
        *("/latency/track", "/confidence/mug", "/confidence/drill"),
    ):
        assert path in printed, path
    rrd("verify", tmp_path / "run.rrd")


def rrd(command: str, path: Path) -> str:
    """By rerun's own command line: its readers in Python change with every version."""
    words = [sys.executable, "-m", "rerun", "rrd", command, str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout


def test_rerun_that_is_not_installed_is_named(run, tmp_path, monkeypatch):
    from rfdetr_foundationpose.errors import UserError
    from rfdetr_foundationpose.replay.rerun_sink import RerunSink

    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match=r"pip install 'rfdetr_foundationpose\[rerun\]'"):
        RerunSink(tmp_path / "run.rrd", run[2], "test")


def test_the_whole_report_is_small(run, tmp_path):
    files = outputs(run, tmp_path, [])
    assert [f.name for f in files][:2] == ["overlay.webm", "contact_sheet.jpg"]
    page = [tmp_path / "report.html", *(f for f in files if f.suffix in (".webm", ".jpg", ".png"))]
    assert sum(f.stat().st_size for f in page) < 3e6
