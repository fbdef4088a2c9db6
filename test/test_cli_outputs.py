"""No command writes over what it did not write; what cannot be written is said before the run; Ctrl-C keeps what is there."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from rfdetr_foundationpose.cli import outputs as outputs_module
from rfdetr_foundationpose.cli.main import COMMANDS, Command
from rfdetr_foundationpose.cli.outputs import MARKER, claim, fresh
from rfdetr_foundationpose.errors import UserError
from rfdetr_foundationpose.evaluate.attempts import Attempt
from support.cli_runs import run_cli


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    """Four frames of a cereal box, with masks."""
    from rfdetr_foundationpose.synth.generate import generate_recording, load_scene_objects
    from rfdetr_foundationpose.synth.video import VideoSettings

    path = tmp_path_factory.mktemp("recording") / "bag"
    settings = VideoSettings(frames=4, targets=("cereal_box",), distractors=0, size=(240, 320))
    generate_recording(path, load_scene_objects(names=("cereal_box",)), settings)
    return path


@pytest.fixture(scope="module")
def bop(tmp_path_factory) -> Path:
    from rfdetr_foundationpose.synth.bop import write_models, write_scene
    from rfdetr_foundationpose.synth.generate import generate_frames, load_scene_objects
    from rfdetr_foundationpose.synth.video import VideoSettings

    path = tmp_path_factory.mktemp("bop")
    models = load_scene_objects(names=("mug",))
    frames = generate_frames(models, VideoSettings(frames=2, targets=("mug",), distractors=0, size=(120, 160)))
    write_scene(path / "test" / "000000", frames, write_models(path, models))
    return path


WRITES = {
    "demo": ("objects.yaml", []),
    "replay": ("result.json", ["BAG"]),
    "evaluate synth": ("result.json", ["--scenes", "1", "--weights", "WEIGHTS"]),
    "evaluate bop": ("result.json", ["BOP", "--weights", "WEIGHTS"]),
    "evaluate detector": ("result.json", []),
    "evaluate pipeline": ("objects.yaml", []),
    "evaluate schedules": ("result.json", []),
    "calibrate": ("confidence.json", []),
    "bench stages": ("bench.json", ["--weights", "WEIGHTS"]),
    "bench node": ("bench_node.json", []),
    "bench networks": ("networks.json", ["--weights", "WEIGHTS"]),
    "bench scaling": ("scaling.json", ["--weights", "WEIGHTS"]),
    "export": ("refiner_fp32.onnx", ["--weights", "WEIGHTS"]),
    "generate recording": ("metadata.yaml", ["--frames", "1"]),
    "generate scan": ("metadata.yaml", ["--object", "mug", "--frames", "2"]),
    "generate bop": ("models", ["--frames", "1"]),
    "generate coco": ("train", ["--train", "1"]),
    "generate objects": ("mug.glb", []),
    "train detector": ("detector.safetensors", []),
    "train refiner": ("refiner.safetensors", []),
    "train first-pass": ("first_pass.safetensors", []),
    "train scorer": ("scorer.safetensors", []),
}
ELSEWHERE = {
    "evaluate ycbv": "needs frames that are not shipped; it claims its folder as the others do",
    "build-engines": "its folder has a manifest of its own, and needs TensorRT",
    "bench overlap": "refuses on a CPU before it would write",
}


def command_line(name: str, bag: Path, bop: Path, weights: Path) -> list[str]:
    places = {"BAG": str(bag), "BOP": str(bop), "WEIGHTS": str(weights)}
    words = [*name.split(), *(places.get(w, w) for w in WRITES[name][1])]
    return words if name in ("export", "generate objects") else [*words, "--device", "cpu"]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def writing_commands() -> set[str]:
    found = set()
    for name, entry in COMMANDS.items():
        for words, command in {name: entry}.items() if isinstance(entry, Command) else entry.items():
            full = name if isinstance(entry, Command) else f"{name} {words}"
            if "out" in command.load().__annotations__:
                found.add(full)
    return found


def test_every_command_that_writes_is_tried():
    ours = {c for c in writing_commands() if not c.startswith("object ")}
    assert ours == set(WRITES) | set(ELSEWHERE)


@pytest.mark.parametrize("name", WRITES)
def test_a_users_folder_is_left_as_it_is(name, bag, bop, weights, tmp_path, capsys):
    out = tmp_path / "mine"
    (out / "recording").mkdir(parents=True)
    (out / "recording" / "metadata.yaml").write_text("my recording")
    (out / WRITES[name][0]).write_text("mine")
    before = snapshot(out)
    code, text = run_cli(capsys, *command_line(name, bag, bop, weights), "--out", str(out))
    assert code == 2, text
    assert "--out" in text and str(out) in text
    assert snapshot(out) == before


@pytest.mark.parametrize("name", ["replay", "generate recording", "train refiner", "evaluate schedules", "demo"])
def test_what_cannot_be_written_is_said_before_the_run(name, bag, bop, weights, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below", Path("/proc/nothing/here")):
        code, text = run_cli(capsys, *command_line(name, bag, bop, weights), "--out", str(out))
        assert code == 2, text
        assert "--out" in text and "Traceback" not in text
    assert file.read_text() == "mine"


JSON_COMMANDS = {
    "replay": "BAG",
    "evaluate schedules": "",
    "doctor": "",
    "validate pose": "BAG",
    "demo": "",
    "evaluate pipeline": "",
}


@pytest.mark.parametrize("name", JSON_COMMANDS)
def test_a_users_file_is_not_replaced_by_json(name, bag, weights, tmp_path, capsys):
    mine = tmp_path / "mine.json"
    mine.write_text('{"precious": 1}')
    words = [*name.split(), *([str(bag)] if JSON_COMMANDS[name] else [])]
    words += [] if name == "doctor" else ["--device", "cpu"]
    words += ["--out", str(tmp_path / "out")] if name not in ("doctor", "validate pose") else []
    words += ["--weights", str(weights)] if name == "validate pose" else []
    for target in (mine, tmp_path, mine / "below.json", Path("/proc/nothing/here.json")):
        code, text = run_cli(capsys, *words, "--json", str(target))
        assert code == 2, text
        assert f"--json {target}" in text
    assert mine.read_text() == '{"precious": 1}'


class TestClaim:
    def test_a_fresh_folder_and_one_of_the_same_command(self, tmp_path):
        out = tmp_path / "a" / "b"
        for _ in range(2):
            claim("replay", out, ("result.json",))
            (out / "result.json").write_text("ours")

    def test_what_is_of_another_command_or_was_put_there(self, tmp_path):
        claim("replay", tmp_path / "out", ("result.json",))
        out = tmp_path / "out"
        (out / "result.json").write_text("replay's")
        with pytest.raises(UserError, match=r"holds result.json, which demo did not write; .* --out.* --overwrite"):
            claim("demo", out, ("result.json", "objects.yaml"))
        (out / "objects.yaml").write_text("the user's")
        with pytest.raises(UserError, match=r"objects.yaml"):
            claim("replay", out, ("result.json", "objects.yaml"))
        claim("demo", out, ("result.json", "objects.yaml"), overwrite=True)

    def test_a_marker_that_is_damaged_owns_nothing(self, tmp_path):
        (tmp_path / "result.json").write_text("?")
        for content in ("", "[]", '{"files": 3}', '{"files": {"result.json": "demo"}}', "\0"):
            (tmp_path / MARKER).write_text(content)
            with pytest.raises(UserError, match=r"result.json"):
                claim("replay", tmp_path, ("result.json",))

    def test_links_of_a_user_are_not_followed(self, tmp_path):
        precious = tmp_path / "precious"
        precious.write_text("mine")
        claim("replay", tmp_path / "out", ())
        (tmp_path / "out" / "result.json").symlink_to(precious)
        with pytest.raises(UserError, match=r"result.json"):
            claim("replay", tmp_path / "out", ("result.json",))

    def test_json_of_the_same_command_is_replaced(self, tmp_path):
        path = tmp_path / "deep" / "r.json"
        for value in (1, 2):
            claim("doctor", json_file=path).write({"value": value})
            assert json.loads(path.read_text()) == {"written_by": "rfdetr-foundationpose doctor", "value": value}
        with pytest.raises(UserError, match="was not written by demo"):
            claim("demo", json_file=path)
        assert list(path.parent.iterdir()) == [path]

    def test_json_to_a_pipe(self, tmp_path):
        claim("doctor", json_file=Path("/dev/null")).write({"value": 1})
        assert Path("/dev/null").is_char_device()

    def test_a_full_disk_is_found_first(self, tmp_path, monkeypatch):
        def full(folder: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(outputs_module, "_probe", full)
        for call in (
            lambda: claim("replay", tmp_path / "out", ("result.json",)),
            lambda: claim("replay", json_file=tmp_path / "r.json"),
            lambda: fresh(tmp_path / "bag"),
        ):
            with pytest.raises(UserError, match="No space left on device"):
                call()

    def test_only_a_recording_is_removed(self, tmp_path):
        made = claim("demo", tmp_path / "out", ("recording",))
        path = made.remove_recording("recording")
        path.mkdir()
        (path / "metadata.yaml").touch()
        (path / "recording.mcap").touch()
        assert made.remove_recording("recording") == path and not path.exists()
        path.mkdir()
        (path / "thesis.tex").touch()
        with pytest.raises(UserError, match=r"thesis.tex"):
            made.remove_recording("recording")
        assert (path / "thesis.tex").exists()


def test_a_full_device_is_one_sentence(capsys, monkeypatch):
    from rfdetr_foundationpose.cli import doctor

    monkeypatch.setattr(doctor, "findings", lambda *_, **__: [])
    code, text = run_cli(capsys, "doctor", "--json", "/dev/full")
    assert code == 2
    assert "No space left on device" in text and "Traceback" not in text


class Interrupting:
    """Calls through, and sends Ctrl-C to this process with the n-th call."""

    def __init__(self, inner, at: int) -> None:
        self.inner, self.at, self.calls = inner, at, 0

    def __get__(self, instance, owner):
        return lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return self.inner(*args, **kwargs)


def test_replay_keeps_the_frames_before_an_interrupt(bag, tmp_path, capsys, monkeypatch):
    from rfdetr_foundationpose.pipeline import Pipeline

    monkeypatch.setattr(Pipeline, "process", Interrupting(Pipeline.process, 2))
    words = ["--set", "detector.source=mask-topic", "--set", "pose.register_schedule=8,4", "--device", "cpu"]
    code, text = run_cli(capsys, "replay", str(bag), *words, "--out", str(tmp_path / "out"))
    assert code == 130, text
    assert "kept 2 of 4 frames" in text
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["frames_published"] == result["frames_received"] == 2
    rows = (tmp_path / "out" / "poses.csv").read_text().splitlines()
    assert len(rows) == 1 + result["poses"]


def test_evaluate_keeps_the_scenes_before_an_interrupt(weights, tmp_path, capsys, monkeypatch):
    from rfdetr_foundationpose.evaluate import pose_attempts

    def attempts(*_):
        for i in range(5):
            if i == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield [Attempt(str(i), 0, "mug", "register", 1.0, refusal="no depth")]

    monkeypatch.setattr(pose_attempts, "synth_attempts", attempts)
    words = ["--scenes", "5", "--weights", str(weights), "--device", "cpu", "--out", str(tmp_path / "out")]
    code, text = run_cli(capsys, "evaluate", "synth", *words)
    assert code == 143, text
    assert "kept 3 of 5 scenes" in text
    assert len(json.loads((tmp_path / "out" / "result.json").read_text())["attempts"]) == 3


def test_bench_keeps_the_stages_before_an_interrupt(weights, tmp_path, capsys, monkeypatch):
    from rfdetr_foundationpose.evaluate.bench_rows import EstimatorRow

    monkeypatch.setattr(EstimatorRow, "track", Interrupting(EstimatorRow.track, 4))
    words = ["--weights", str(weights), "--size", "160x120", "--schedule", "4,2", "--no-detector", "--device", "cpu"]
    words += ["--backends", "eager", "--repeat-track", "5", "--out", str(tmp_path)]
    code, text = run_cli(capsys, "bench", *words)
    assert code == 130, text
    assert "interrupted: what was measured is kept" in text
    stages = json.loads((tmp_path / "bench.json").read_text())["rows"]["eager"]["stages"]
    assert stages["preprocess"]["count"] == 5 and stages["track"]["count"] == 2


def test_generated_frames_before_an_interrupt_are_a_recording(tmp_path, capsys, monkeypatch):
    from rfdetr_foundationpose.replay.recording import RecordingWriter, read_recording

    monkeypatch.setattr(RecordingWriter, "write", Interrupting(RecordingWriter.write, 2))
    out = tmp_path / "bag"
    words = ["--frames", "6", "--size", "96x72", "--objects", "mug", "--distractors", "0", "--device", "cpu"]
    code, text = run_cli(capsys, "generate", "recording", *words, "--out", str(out))
    assert code == 130, text
    assert f"kept 2 of 6 frames in {out}" in text
    assert len(list(read_recording(out))) == 2


def test_an_interrupt_elsewhere_is_a_word(capsys, monkeypatch):
    def load(self):
        def command() -> None:
            raise KeyboardInterrupt

        return command

    monkeypatch.setattr(Command, "load", load)
    code, text = run_cli(capsys, "doctor")
    assert code == 130 and text == "rfdetr-foundationpose doctor: interrupted"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_belongs_to_others_is_said(tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o500)
    code, text = run_cli(capsys, "evaluate", "schedules", "--out", str(theirs / "out"), "--device", "cpu")
    assert code == 2 and f"--out {theirs / 'out'} cannot be written: Permission denied" in text
    weights = tmp_path / "weights.safetensors"
    weights.touch(mode=0)
    code, text = run_cli(capsys, "validate", "detector", "--weights", str(weights), "--device", "cpu")
    assert code == 2 and f"{weights} cannot be read: Permission denied" in text


def test_a_full_disk_names_where_the_run_writes(tmp_path, capsys, monkeypatch):
    from rfdetr_foundationpose.evaluate import schedule_compare

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(schedule_compare, "compare_schedules", full)
    out = tmp_path / "a" / "out"
    code, text = run_cli(capsys, "evaluate", "schedules", "--out", str(out), "--device", "cpu")
    assert code == 2
    assert text.endswith(f"evaluate schedules: {out}: No space left on device")
    assert list(tmp_path.iterdir()) == []
