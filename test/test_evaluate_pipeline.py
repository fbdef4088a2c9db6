"""evaluate pipeline: how poses are judged, on made-up ones, and the shipped weights on two frames."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.cli.settings import write_known
from rfdetr_foundationpose.evaluate.detector_recordings import RecordingSettings
from rfdetr_foundationpose.evaluate.pipeline_recordings import (
    JudgedPose,
    PipelineOutcome,
    RecordingRun,
    Sought,
    evaluate_pipeline,
    judge_poses,
    stretches,
)
from rfdetr_foundationpose.interrupts import Watch
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.pipeline.results import FrameResult
from rfdetr_foundationpose.replay.metrics import ObjectGeometry
from rfdetr_foundationpose.replay.recording import InstanceTruth
from rfdetr_foundationpose.resources import default_objects_file
from rfdetr_foundationpose.synth.generate import load_scene_objects
from rfdetr_foundationpose.synth.video import SceneVideo
from rfdetr_foundationpose.types import ObjectPose, TrackState
from support.cli_runs import run_cli

D = 0.2
CAN = ObjectGeometry.from_points(np.random.default_rng(1).uniform(-0.05, 0.05, (200, 3)), D)


def at(x: float, turn: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("x", turn, degrees=True).as_matrix()
    T[:3, 3] = T[:3, :3] @ -CAN.centre + (x, 0, 1)
    return T


def pose(name: str, T: np.ndarray, state: TrackState = TrackState.TRACKING) -> ObjectPose:
    object, _, number = name.partition("_")
    return ObjectPose(object, int(number or 0), T, 0.8, 0.9, state, 0, "camera")


def truth(*places: float, object: str = "can") -> list[InstanceTruth]:
    return [InstanceTruth(object if i == 0 else f"{object}_{i}", object, at(x), 1.0) for i, x in enumerate(places)]


def verdicts(poses: list[ObjectPose], truths: list[InstanceTruth], held: dict[str, str] | None = None) -> dict:
    judged = judge_poses(poses, truths, {"can": CAN, "mug": CAN}, held=held)
    return {p.track: "duplicate" if p.duplicate else p.instance or "false" for p in judged}


def test_a_pose_is_in_place_up_to_a_quarter_of_a_diameter():
    (near,) = judge_poses([pose("can", at(0.049))], truth(0.0), {"can": CAN}, seed=3, frame=7)
    assert (near.seed, near.frame, near.instance, near.false, near.flipped) == (3, 7, "can", False, False)
    assert near.off == pytest.approx(0.245) and near.add_ratio == pytest.approx(0.245)
    (far,) = judge_poses([pose("can", at(0.051))], truth(0.0, 0.3), {"can": CAN})
    assert far.false and far.error is None and far.off == pytest.approx(0.255)


def test_a_false_pose_takes_no_instance_from_a_right_one():
    # By the sum of distances alone, "can" at 0.0 might as well be the instance at 0.2.
    poses = [pose("can", at(0.0)), pose("can_1", at(-0.2))]
    assert verdicts(poses, truth(0.0, 0.2)) == {"can": "can", "can_1": "false"}


def test_a_second_track_in_one_place_is_a_duplicate():
    poses = [pose("can", at(0.02)), pose("can_1", at(0.01))]
    assert verdicts(poses, truth(0.0, 0.5)) == {"can": "duplicate", "can_1": "can"}
    # The track that had the instance keeps it, though the other is nearer.
    assert verdicts(poses, truth(0.0, 0.5), {"can": "can"}) == {"can": "can", "can_1": "duplicate"}
    assert verdicts([poses[1]], truth(0.0), {"can": "can"}) == {"can_1": "can"}


def test_objects_are_judged_apart():
    assert verdicts([pose("mug", at(0.0)), pose("can", at(0.0))], truth(0.0)) == {"mug": "false", "can": "can"}
    (mug,) = judge_poses([pose("mug", at(0.0))], truth(0.0), {"mug": CAN})
    assert mug.off == np.inf


def test_flipped_needs_place_and_angle():
    def turned(turn: float, geometry: ObjectGeometry = CAN) -> bool:
        (one,) = judge_poses([pose("can", at(0.0, turn))], truth(0.0), {"can": geometry})
        assert one.instance == "can"
        return one.flipped

    assert turned(180.0) and turned(95.0) and not turned(85.0)
    half = np.stack([np.eye(4), np.linalg.inv(at(0.0)) @ at(0.0, 180.0)])
    assert not turned(180.0, replace(CAN, transforms=half))


def judged(frames: Iterable[int], name: str, x: float, seed: int = 1, **changes: Any) -> list[JudgedPose]:
    one = judge_poses([pose(name, at(x))], truth(0.0, 1.0), {"can": CAN})[0]
    return [replace(one, seed=seed, frame=i, **changes) for i in frames]


def test_figures_are_exact():
    right = judged(range(4), "can", 0.01) + judged([4, 5], "can", 0.03) + judged([6], "can_1", 0.0)
    upside = replace(judge_poses([pose("can_1", at(0.0, 180.0))], truth(0.0), {"can": CAN})[0], seed=2)
    # Frames 0 to 2 are a track, 4 and 5 are none; nor are three frames of two tracks.
    false = judged([0, 1, 2, 4, 5], "can_1", 0.6, on="mug") + judged([6], "can_2", 0.6)
    duplicate = judged([0, 1], "can_3", 0.0, duplicate=True)
    sought = [Sought(1, p.frame, "can", "can", p) for p in right] + [Sought(1, 7, "can", "can", None)]
    counters = {
        "registrations": 5,
        "registrations_refused": 3,
        "registration_unexplained": 1,
        "registration_duplicate": 2,
    }
    runs = [
        RecordingRun(1, 8, {**counters, "lost": 2, "detector_runs": 8}, [(3, "can lost: gone")], 1.5),
        RecordingRun(2, 1, {"registrations": 1}, [], 0.5),
    ]
    outcome = PipelineOutcome([*sought, Sought(2, 0, "can", "can", upside)], [*right, *false, *duplicate, upside], runs)
    figures = outcome.as_dict()
    total = figures["all"]
    assert total["instances"] == 9 and total["recall"] == pytest.approx(8 / 9)
    # 0.03 m are 0.15 d of ADD, but each point has another one near it.
    assert total["add_recall_0.1d"] == pytest.approx(5 / 9) and total["adds_recall_0.1d"] == pytest.approx(8 / 9)
    assert total["translation_error_mm"]["p50"] == pytest.approx(10.0)
    assert figures["by_seed"][1]["translation_error_mm"]["p95"] == pytest.approx(30.0)
    assert figures["by_seed"][1]["rotation_error_deg"]["p95"] == pytest.approx(0.0, abs=1e-4)
    assert figures["by_seed"][2]["rotation_error_deg"]["p50"] == pytest.approx(180.0)
    keys = ("poses", "false_poses", "false_tracks", "flipped", "duplicates", "id_changes")
    assert [total[k] for k in keys] == [16, 6, 1, 1, 2, 1]
    assert [figures["by_seed"][1][k] for k in keys] == [15, 6, 1, 0, 2, 1]
    assert [figures["by_object"]["can"][k] for k in keys] == [16, 6, 1, 1, 2, 1]
    assert total["refused_by"] == {"duplicate": 2, "unexplained": 1}
    assert (total["frames"], total["registrations"], total["refused"], total["lost"]) == (9, 6, 3, 2)
    assert total["seconds"] == 2.0 and figures["by_seed"][2]["refused_by"] == {}
    (track,) = figures["false_tracks"]
    assert track.pop("off") == pytest.approx(2.0)
    assert track == {
        "seed": 1,
        "frame": 0,
        "last": 2,
        "frames": 3,
        "object": "can",
        "track": "can_1",
        "instance": "",
        "on": "mug",
        "confidence": [0.8, 0.8],
    }
    assert [(d["track"], d["instance"], d["frames"]) for d in figures["duplicates"]] == [("can_3", "can", 2)]
    assert figures["misses"] == [{"seed": 1, "frame": 7, "instance": "can"}]
    assert len(figures["false_poses"]) == 6 and figures["events"][0]["event"] == "can lost: gone"


def test_stretches_end_with_a_gap_a_track_and_a_recording():
    poses = judged([2, 1, 4], "can", 0.6) + judged([3], "can_1", 0.6) + judged([3], "can", 0.6, seed=2)
    runs = [(run[0].seed, run[0].track, [p.frame for p in run]) for run in stretches(poses)]
    assert runs == [(1, "can", [1, 2]), (1, "can_1", [3]), (1, "can", [4]), (2, "can", [3])]
    assert stretches([]) == []


class Scripted:
    """A pipeline that says where things are: the mug once where the drill is, and the drill only from frame 2 on."""

    device = "cpu"

    def __init__(self, video: SceneVideo) -> None:
        self.frames = {video.frame(i)[0].stamp_ns: video.frame(i)[1] for i in range(len(video))}
        self.first, self.calls = min(self.frames), ["made"]
        self.count = 0

    def warm_up(self, camera: object) -> None:
        self.calls.append("warm_up")

    def reset(self) -> None:
        self.calls.append("reset")

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(counters={"lost": self.count, "resets": 1})

    def process(self, frame: Any) -> FrameResult:
        self.count += 1
        mug, drill = (t.T_cam_obj for t in self.frames[frame.stamp_ns].instances)
        poses = [pose("mug", drill)] if self.count <= 3 else [pose("mug", mug)]
        if self.count >= 3:
            poses.append(pose("drill", drill))
        return FrameResult(frame, [*poses, pose("drill_1", mug, TrackState.LOST)], None, [f"call {self.count}"])


def test_a_recording_is_played_in_part_and_what_false_poses_stand_on_is_said():
    settings = RecordingSettings(seeds=(5,), targets=("mug", "drill"), frames=30, size=(120, 160))
    models, specs = load_scene_objects(), load_objects(default_objects_file())
    scripted = Scripted(SceneVideo(models, settings.video(5)))
    done = []
    outcome = evaluate_pipeline(
        scripted,  # type: ignore[arg-type]
        [s for s in specs if s.name in settings.targets],
        models,
        settings,
        range(10, 16),
        Watch(lambda count, total: done.append((count, total))),
    )
    figures = outcome.as_dict()
    assert done == [(i, 6) for i in range(1, 7)] and scripted.calls == ["made", "warm_up", "reset"]
    assert figures["all"]["instances"] == 12 and figures["all"]["recall"] == pytest.approx(7 / 12)
    assert figures["by_object"]["mug"]["recall"] == 0.5 and figures["by_object"]["mug"]["false_poses"] == 3
    assert figures["by_object"]["drill"]["poses"] == 4
    assert figures["all"]["translation_error_mm"]["p95"] == pytest.approx(0.0, abs=1e-6)
    (track,) = figures["false_tracks"]
    assert (track["frame"], track["last"], track["track"], track["on"]) == (10, 12, "mug", "drill")
    assert figures["all"]["lost"] == 6 and figures["events"][0] == {"seed": 5, "frame": 10, "event": "call 1"}
    ((picture, caption),) = outcome.pictures
    assert picture.shape == (120, 160, 3) and caption.startswith("seed 5 frame 10: mug false")
    assert caption.endswith("on drill, 3 frames")


def test_the_pipeline_has_room_for_what_is_on_the_table(tmp_path):
    file = default_objects_file()
    listed = load_objects(file)

    def room(targets: tuple[str, ...], everything: bool) -> dict[str, int]:
        specs = write_known(file, listed, targets, tmp_path / "new" / "objects.yaml", everything=everything)
        assert all(s.mesh.is_file() for s in specs)
        return {s.name: s.max_instances for s in specs}

    assert room(("mug", "drill", "mug"), False) == {"mug": 2, "drill": 1}
    everything = {"cereal_box": 1, "mug": 1, "drill": 1, "spray_bottle": 1, "soup_can": 3}
    assert room(("soup_can",) * 3, True) == everything


def run(capsys, tmp_path, *arguments: str) -> tuple[int, str, dict]:
    common = ["--device", "cpu", "--seeds", "100", "--out", str(tmp_path / "out")]
    code, said = run_cli(capsys, "evaluate", "pipeline", *common, *arguments)
    path = tmp_path / "out" / "result.json"
    return code, said, json.loads(path.read_text()) if path.exists() else {}


def test_shipped_weights_find_the_mug(capsys, tmp_path):
    arguments = (
        "--targets",
        "mug",
        "--first-frame",
        "20",
        "--frames",
        "2",
        "--min-recall",
        "1",
        "--max-false-tracks",
        "0",
    )
    code, said, figures = run(capsys, tmp_path, *arguments)
    assert code == 0, said
    assert figures["known"] == ["mug"] and (figures["start"], figures["frames"]) == (20, 2)
    total = figures["all"]
    assert total["instances"] == 2 and total["recall"] == total["adds_recall_0.1d"] == 1.0
    assert total["poses"] == 2 and total["false_poses"] == 0 and figures["false_tracks"] == []
    assert total["registrations"] == 1 + total["refused"]
    assert "false tracks: 0" in said and "seed 100" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--targets", "mug,robot"), "robot not in the objects file"),
        (("--pose-weights", "nowhere"), "no refiner weights in nowhere"),
        (("--detector-weights", "nowhere.pth"), "nowhere.pth do not exist"),
        (("--set", "objects_file=mine.yaml"), "use --objects-file"),
        (("--set", "pose.nothing=1"), "pose.nothing"),
        (("--objects-file", "nowhere.yaml"), "nowhere.yaml does not exist"),
        (("--seeds", "9..3"), "must be numbers or ranges"),
        (("--first-frame", "140", "--frames", "20"), "a recording has 150 frames"),
        (("--first-frame", "150"), "a recording has 150 frames"),
    ],
)
def test_wrong_arguments_are_explained(capsys, tmp_path, arguments, said):
    code, printed, figures = run(capsys, tmp_path, *arguments)
    assert code == 2 and said in printed and not figures
