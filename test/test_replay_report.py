"""Report files are what they claim to be; comparison finds regressions and only those."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rfdetr_foundationpose.replay.metrics import PoseError
from rfdetr_foundationpose.replay.page import write_page
from rfdetr_foundationpose.replay.report import (
    comparison_table,
    contact_sheet,
    plot_errors,
    plot_latency,
    result_lines,
    result_tables,
)
from rfdetr_foundationpose.replay.result import (
    FrameCounts,
    PoseSample,
    build_result,
    compare,
    object_rows,
    write_json,
    write_poses_csv,
)
from rfdetr_foundationpose.replay.video import VideoWriter


def samples(n: int = 5) -> list[PoseSample]:
    made = []
    for i in range(n):
        T = np.eye(4)
        T[:3, 3] = (0.1, 0.2, 0.5 + 0.01 * i)
        error = PoseError(1.0 + i, 0.5 * i, 2.0, 1.0, 0.01, 0.02)
        made.append(PoseSample(i, i * 10**8, i * 0.1, "mug", T, error, age_ms=12.0))
    return made


def result(**changes) -> dict:
    arguments = {
        "latency_ms": {"track": {"p50": 5.0, "p95": 6.0, "max": 7.0}},
        "detection_source": "mask-topic",
        "weights": "default",
        "device": "cpu",
    }
    return build_result(samples(), FrameCounts(6, 6, 5, {"too_old": 1}), **{**arguments, **changes})


def test_result_has_the_keys_of_the_issue():
    made = result()
    assert set(made["translation_error_mm"]) == set(made["rotation_error_deg"]) == {"p50", "p95"}
    assert made["translation_error_mm"]["p50"] == 3.0
    assert made["adds_recall_0.1d"] == 1.0
    assert made["latency_ms"]["track"] == {"p50": 5.0, "p95": 6.0, "max": 7.0}
    for key in ("frames_published", "frames_received", "dropped", "detection_source", "weights", "device"):
        assert key in made


def test_missing_poses_lower_the_recall_only():
    made = result(missing=5)
    assert made["adds_recall_0.1d"] == 0.5
    assert made["translation_error_mm"]["p50"] == 3.0


def test_json_is_strict_even_with_nan(tmp_path):
    path = tmp_path / "new" / "result.json"
    write_json(path, {"a": float("nan"), "b": [np.float32(1.5), np.int64(3)], "c": {"d": float("inf")}})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, 3], "c": {"d": None}}


def test_csv_reads_back(tmp_path):
    path = tmp_path / "poses.csv"
    unjudged = PoseSample(9, 900, 0.9, "box", np.eye(4))
    write_poses_csv(path, [*samples(), unjudged])
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == 6
    assert float(rows[2]["z"]) == pytest.approx(0.52)
    assert float(rows[0]["qw"]) == 1.0
    assert float(rows[4]["translation_error_mm"]) == 5.0
    assert rows[5]["age_ms"] == rows[5]["adds_mm"] == ""


def test_pictures_and_page_are_written(tmp_path):
    plot_errors(tmp_path / "errors.png", samples(), {"mug": 0.15})
    plot_latency(tmp_path / "latency.png", {"track": [(0.0, 5.0), (0.1, 6.0)], "register": []})
    pictures = [np.full((120, 160, 3), shade, np.uint8) for shade in (0, 100, 200)]
    contact_sheet(tmp_path / "sheet.png", pictures, ["a", "b", "c"], columns=2)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * (480 + 26), 1280, 3)
    assert sheet[100, 100].tolist() == [0, 0, 0]
    assert sheet[100, 700].tolist() == [100, 100, 100]
    for name in ("errors.png", "latency.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 1
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet(tmp_path / "none.png", [], [])


def test_page_has_pictures_first_and_a_row_for_each_object(tmp_path):
    unjudged = [replace(s, object="can<1>", error=None, confidence=0.9) for s in samples(2)]
    made = {**result(), "missing_by_object": {"mug": 5, "drill": 2}, "dropped_by_reason": {"stale": 1, "late": 0}}
    shown = [tmp_path / "overlay.webm", tmp_path / "errors.png"]
    write_page(tmp_path / "report.html", "run <1>", made, [*samples(), *unjudged], shown)
    page = (tmp_path / "report.html").read_text()
    assert "run &lt;1&gt;" in page and "can&lt;1&gt;" in page
    assert page.index('src="overlay.webm"') < page.index("<h2>Objects") < page.index('src="errors.png"')
    assert "<tr><td>mug<td>5<td>5<td>" in page and "<tr><td>drill<td>0<td>2<td>" in page
    assert "dropped: stale" in page and "dropped: late" not in page
    assert "regressed" not in page and "–" not in page
    write_page(tmp_path / "bare.html", "run", result(), unjudged, [], compare(result(missing=5), result()))
    bare = (tmp_path / "bare.html").read_text()
    assert "no ground truth" in bare and "rotation p50" not in bare and 'class="bad"' in bare


def test_figures_of_an_object_count_what_was_missed():
    (row,) = object_rows(samples(), {"missing_by_object": {"mug": 5}})
    assert (row["poses"], row["missing"]) == (5, 5)
    assert row["recall"] == pytest.approx(0.5)
    assert row["translation"] == [3.0, 5.0] and row["confidence"] is None


def test_video_reads_back_with_its_colours(tmp_path):
    with VideoWriter(tmp_path / "v.webm", fps=10) as video:
        for i in range(8):
            picture = np.zeros((97, 129, 3), np.uint8)
            picture[..., 0] = 200
            picture[:, : 16 * i, 2] = 200
            video.add(picture)
        with pytest.raises(ValueError, match="10x10"):
            video.add(np.zeros((10, 10, 3), np.uint8))
    with av.open(str(tmp_path / "v.webm")) as file:
        stream = file.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
        assert stream.codec_context.name == "vp9" and stream.average_rate == 10
    assert len(frames) == 8 and frames[0].shape == (96, 128, 3)
    red, _, blue = frames[0][48, 100]
    assert red > 150 > 60 > blue
    with VideoWriter(tmp_path / "none.webm", fps=10):
        pass
    assert not (tmp_path / "none.webm").exists()


def test_comparison_flags_what_got_worse():
    baseline = result()
    assert not any(row.regressed for row in compare(result(), baseline, latency=True))
    worse = result(missing=3, latency_ms={"track": {"p50": 50.0}})
    flagged = {row.name for row in compare(worse, baseline, latency=True) if row.regressed}
    assert flagged == {"adds_recall_0.1d", "latency_ms.track.p50"}
    assert "latency_ms.track.p50" not in {row.name for row in compare(worse, baseline)}


def test_a_figure_that_vanished_is_a_regression():
    gone = build_result([], FrameCounts(6, 6, 6), latency_ms={}, detection_source="rf-detr", weights="", device="cpu")
    flagged = {row.name for row in compare(gone, result()) if row.regressed}
    assert {"translation_error_mm.p50", "adds_recall_0.1d", "poses"} <= flagged


def test_a_better_result_passes():
    baseline = result()
    better = {**baseline, "translation_error_mm": {"p50": 0.1, "p95": 0.2}, "poses": 500}
    assert not any(row.regressed for row in compare(better, baseline))


def test_a_file_that_is_no_result_is_refused():
    with pytest.raises(ValueError, match=r"result\.json"):
        compare(result(), {"something": "else"})


def shown(*tables) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.export_text()


def test_tables_show_each_object_and_what_was_missed():
    text = shown(*result_tables({**result(missing=5), "missing_by_object": {"mug": 5}}, samples()))
    (row,) = [line.split() for line in text.splitlines() if line.strip().startswith("mug")]
    assert row == ["mug", "5", "5", "3.0", "5.0", "1.0", "2.0", "1.0", "0.500"]
    assert "confidence" not in text and "…" not in text
    assert "track" in text


def test_without_truth_there_are_no_dashes():
    bare = [replace(s, error=None, confidence=0.75) for s in samples()]
    text = shown(*result_tables(build(bare), bare))
    assert "no ground truth" in " ".join(result_lines(build(bare)))
    assert "recall" not in text and "–" not in text
    (row,) = [line.split() for line in text.splitlines() if line.strip().startswith("mug")]
    assert row == ["mug", "5", "0.75"]


def test_a_baseline_is_compared_in_a_table():
    text = shown(comparison_table(compare(result(missing=5), result())))
    assert "regressed" in text and "adds_recall_0.1d" in text


SIX = FrameCounts(published=6, received=6, processed=6)


def build(of: list[PoseSample], frames: FrameCounts = SIX) -> dict:
    return build_result(of, frames, detection_source="rf-detr", weights="default", device="cpu", latency_ms={})


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, {}),
        ({"processed": 4, "dropped": {"too_old": 2, "bad_rgb": 0}}, {"too_old": 2}),
        ({"received": 5, "processed": 5}, {"not_received": 1}),
        (
            {"received": 5, "processed": 3, "dropped": {"busy": 1}},
            {"busy": 1, "not_received": 1, "unfinished": 1},
        ),
        ({"processed": 5}, {"unfinished": 1}),
    ],
)
def test_published_frames_are_processed_or_dropped(changes, reasons):
    made = build(samples(), replace(SIX, **changes))
    assert made["dropped_by_reason"] == reasons
    assert made["frames_published"] == made["frames_processed"] + made["dropped"]
    line = result_lines(made)[0]
    assert line.startswith(f"frames: 6 published = {made['frames_processed']} processed + {made['dropped']} dropped")
    assert all(f"{n} {reason.replace('_', ' ')}" in line for reason, n in reasons.items())


@pytest.mark.parametrize("changes", [{"received": 9}, {"processed": 7}, {"dropped": {"too_old": 1}}, {"received": 5}])
def test_counts_that_do_not_add_up_are_no_result(changes):
    with pytest.raises(ValueError, match="do not add up"):
        build(samples(), replace(SIX, **changes))
