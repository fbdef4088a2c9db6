"""replay: a recording through the real pipeline, and the verdict against a baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rfdetr_foundationpose.cli.main import main
from rfdetr_foundationpose.cli.outputs import MARKER
from rfdetr_foundationpose.cli.settings import read_settings
from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.replay.outputs import OUTPUT_FILES
from rfdetr_foundationpose.resources import models_dir


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["replay", *words])
    return int(ended.value.code or 0)


def test_settings_come_from_file_then_flags(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(
        "/pose_node:\n  ros__parameters:\n    detector:\n      threshold: 0.3\n    pose:\n      track_iterations: 3\n"
    )
    config = read_settings(file, ["detector.threshold=0.7", "pose.backend=eager"], tmp_path / "objects.yaml")
    assert config.detector.threshold == 0.7
    assert config.pose.track_iterations == 3
    assert config.pose.backend == "eager"
    assert config.objects_file == str(tmp_path / "objects.yaml")
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        read_settings(None, ["detector.threshold"], None)
    with pytest.raises(ConfigError, match="did you mean"):
        read_settings(None, ["threshold=0.3"], None)
    with pytest.raises(ConfigError, match="give one of them"):
        read_settings(None, ["objects_file=a.yaml"], tmp_path / "b.yaml")


def test_bad_input_is_said_before_anything_runs(tmp_path, capsys):
    assert run(str(tmp_path / "none")) == 2
    assert "does not exist" in capsys.readouterr().err
    baseline = tmp_path / "baseline.json"
    baseline.write_text('{"something": 1}')
    assert run(str(tmp_path / "none"), "--baseline", str(baseline)) == 2
    assert "result.json" in capsys.readouterr().err
    assert run(str(tmp_path / "none"), "--set", "pose.backend=warp9") == 2
    assert "warp9" in capsys.readouterr().err


class Played(Exception):
    """Ends a replay where the node would start."""


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Runs ``replay --ros`` on a small recording; returns what the node would have been started with."""
    pytest.importorskip("rclpy")
    from rfdetr_foundationpose.replay import session
    from rfdetr_foundationpose.synth.generate import generate_recording, load_scene_objects
    from rfdetr_foundationpose.synth.video import VideoSettings

    scene = VideoSettings(frames=1, size=(48, 64), targets=("mug",), distractors=0)
    generate_recording(tmp_path / "bag", load_scene_objects(names=("mug",)), scene)

    def play(*words: str) -> tuple[dict[str, Any], bool]:
        seen = []

        def run_session(source, start, options, *, publish_masks, **_):
            seen.append((start.parameters, publish_masks))
            raise Played

        monkeypatch.setattr(session, "run_session", run_session)
        with pytest.raises(Played):
            main(["replay", str(tmp_path / "bag"), "--ros", *words])
        return seen[0]

    return play


def test_masks_are_played_to_every_node_that_listens_for_them(played):
    assert played()[1] is False
    for change in ("detector.source=mask-topic", "input.use_mask_topics=true"):
        parameters, publish_masks = played("--set", change)
        assert publish_masks, change
        name, _, value = change.partition("=")
        assert str(parameters[name]).lower() == value


def test_images_are_played_reliably_unless_the_user_says_otherwise(played, tmp_path):
    assert played()[0]["input.reliability"] == "reliable"
    assert played("--set", "input.reliability=best_effort")[0]["input.reliability"] == "best_effort"
    file = tmp_path / "settings.yaml"
    file.write_text("detector: {threshold: 0.3}\n")
    assert played("--config", str(file))[0]["input.reliability"] == "reliable"
    file.write_text("input: {reliability: best_effort}\n")
    assert played("--config", str(file))[0]["input.reliability"] == "best_effort"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_generated_recording_is_replayed_and_judged(tmp_path, capsys):
    from rfdetr_foundationpose.synth.generate import generate_recording, load_scene_objects
    from rfdetr_foundationpose.synth.video import VideoSettings

    objects = load_scene_objects(names=("cereal_box",))
    generate_recording(tmp_path / "bag", objects, VideoSettings(frames=4, targets=("cereal_box",)))
    yaml = tmp_path / "objects.yaml"
    yaml.write_text(f"objects:\n  - name: cereal_box\n    mesh: {models_dir() / 'demo' / 'cereal_box.glb'}\n")
    # Nobody is a hundred times better than the truth: this baseline makes every replay a regression.
    impossible = {"translation_error_mm": {"p50": -5.0}, "adds_recall_0.1d": 0.5}
    (tmp_path / "baseline.json").write_text(json.dumps(impossible))
    words = [str(tmp_path / "bag"), "--objects-file", str(yaml), "--out", str(tmp_path / "out")]
    words += [
        "--set",
        "detector.source=mask-topic",
        "--set",
        "device=cpu",
        "--baseline",
        str(tmp_path / "baseline.json"),
    ]
    assert run(*words) == 1
    printed = capsys.readouterr().out
    assert "regressed: translation_error_mm.p50" in printed
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["frames_published"] == result["frames_received"] == 4
    assert result["poses"] == 4
    assert result["dropped"] == 0
    assert result["detection_source"] == "mask-topic"
    assert result["translation_error_mm"]["p50"] < 20
    assert {"register", "track"} <= set(result["latency_ms"])
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} <= {*OUTPUT_FILES, MARKER}  # else a user's file might be written over
    for name in ("poses.csv", "report.html", "contact_sheet.jpg", "overlay.webm"):
        assert (Path(tmp_path) / "out" / name).is_file()
