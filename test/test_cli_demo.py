"""The whole slice: a generated recording through the real node over DDS, judged, reported."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

pytest.importorskip("rclpy")

from rfdetr_foundationpose.cli.demo import DetectionSource, choose_source, node_settings
from rfdetr_foundationpose.cli.main import main
from rfdetr_foundationpose.cli.settings import parse_rate
from rfdetr_foundationpose.config import from_flat, to_flat
from rfdetr_foundationpose.objects import ObjectSpec, load_objects
from rfdetr_foundationpose.resources import default_objects_file, models_dir

FRAMES = 20
ISSUE_KEYS = {
    "frames_published": int,
    "frames_received": int,
    "translation_error_mm": dict,
    "rotation_error_deg": dict,
    "adds_recall_0.1d": float,
    "latency_ms": dict,
    "dropped": int,
    "detection_source": str,
    "weights": str,
    "device": str,
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    command = [
        sys.executable,
        "-m",
        "rfdetr_foundationpose.cli.main",
        "demo",
        "--frames",
        str(FRAMES),
        "--device",
        "cpu",
    ]
    command += ["--out", str(out), "--json", str(out / "copy.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    (out / "stdout.txt").write_text(done.stdout)
    return out


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestDemo:
    def test_result_has_exactly_what_the_issue_asks_for(self, outputs):
        result = json.loads((outputs / "result.json").read_text())
        for key, kind in ISSUE_KEYS.items():
            assert isinstance(result[key], kind), key
        for key in ("translation_error_mm", "rotation_error_deg"):
            assert {"p50", "p95"} <= set(result[key])
        for stage, values in result["latency_ms"].items():
            assert set(values) == {"p50", "p95", "max"}, stage
        assert {"track", "preprocess", "publish", "end_to_end"} <= set(result["latency_ms"])
        assert json.loads((outputs / "copy.json").read_text()) == result

    def test_books_balance(self, outputs):
        result = json.loads((outputs / "result.json").read_text())
        assert result["frames_published"] == FRAMES
        assert result["frames_received"] == FRAMES
        assert 0 <= result["dropped"] < FRAMES
        assert result["frames_published"] == result["frames_processed"] + result["dropped"]
        assert sum(result["dropped_by_reason"].values()) == result["dropped"]
        assert result["detection_source"] == "rf-detr"

    def test_poses_are_right(self, outputs):
        result = json.loads((outputs / "result.json").read_text())
        assert result["translation_error_mm"]["p50"] <= 10
        assert result["rotation_error_deg"]["p50"] <= 5
        assert result["adds_recall_0.1d"] >= 0.9

    def test_csv_pictures_and_video_are_there(self, outputs):
        rows = list(csv.DictReader((outputs / "poses.csv").open()))
        result = json.loads((outputs / "result.json").read_text())
        assert len(rows) == result["poses"] > 0
        assert sum(0.01 <= float(r["confidence"] or 0) <= 1 for r in rows) >= 0.9 * len(rows)
        for name in ("contact_sheet.jpg", "errors.png", "latency.png"):
            assert np.asarray(Image.open(outputs / name).convert("L")).std() > 1
        assert (outputs / "overlay.webm").stat().st_size > 1000
        assert "contact_sheet.jpg" in (outputs / "report.html").read_text()

    def test_tables_are_printed(self, outputs):
        text = (outputs / "stdout.txt").read_text()
        for word in (
            "ADD-S mm",
            "Latency",
            "end_to_end",
            "detector: rf-detr",
            "from image to pose",
            "mug",
            "drill",
        ):
            assert word in text
        result = json.loads((outputs / "result.json").read_text())
        books = f"{FRAMES} published = {result['frames_processed']} processed + {result['dropped']} dropped"
        assert books in text


def test_rate_is_a_number_or_auto():
    assert parse_rate("auto") is None
    assert parse_rate("0.5") == 0.5
    for bad in ("0", "-1", "fast", "nan"):
        with pytest.raises(typer.BadParameter, match="--rate"):
            parse_rate(bad)


SHIPPED = load_objects(default_objects_file())


def test_the_node_gets_the_options_and_every_image(tmp_path):
    changed = {"objects_file": str(tmp_path / "objects.yaml"), "device": "cpu", "detector.source": "mask-topic"}
    expected = from_flat({**changed, "input.reliability": "reliable", "output.covariance": True})
    file = tmp_path / "objects.yaml"
    assert node_settings([], file, "cpu", DetectionSource.MASK_TOPIC, SHIPPED) == expected


def test_what_the_user_sets_reaches_the_node(tmp_path):
    changes = ["input.reliability=best_effort", "input.use_mask_topics=true", "pose.track_iterations=3"]
    values = to_flat(node_settings(changes, tmp_path / "objects.yaml", "auto", DetectionSource.RF_DETR, SHIPPED))
    assert values["input.reliability"] == "best_effort"
    assert values["input.use_mask_topics"] is True
    assert values["pose.track_iterations"] == 3


def test_masks_stand_in_for_a_detector_that_does_not_know_the_objects(tmp_path):
    own = [ObjectSpec("tea_box", tmp_path / "tea_box.obj")]
    auto = DetectionSource.AUTO
    assert choose_source(auto, "default", SHIPPED) == "rf-detr"
    assert choose_source(auto, "default", own) == "mask-topic"
    assert choose_source(auto, "default", [*SHIPPED, *own]) == "mask-topic"
    # What a file of somebody else's holds is found out when it is loaded.
    assert choose_source(auto, str(tmp_path / "mine.pth"), own) == "rf-detr"
    assert choose_source(auto, str(models_dir() / "detector.safetensors"), own) == "mask-topic"
    assert choose_source(DetectionSource.RF_DETR, "default", own) == "rf-detr"


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ("device=cpu", "use --device"),
        ("detector.source=mask-topic", "use --detection"),
        ("objects_file=mine.yaml", "use --objects-file"),
    ],
)
def test_settings_that_are_options_of_the_demo_are_refused(tmp_path, capsys, change, advice):
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", str(tmp_path / "out"), "--set", change])
    assert ended.value.code == 2
    assert advice in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
