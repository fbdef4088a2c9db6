"""evaluate detector: the shipped weights on a few frames of a generated recording, and how rows are judged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer

from rfdetr_foundationpose.cli.console import verdict
from rfdetr_foundationpose.cli.options import parse_seeds
from rfdetr_foundationpose.evaluate.detector_matching import match
from rfdetr_foundationpose.evaluate.detector_outcome import FalseDetection, Outcome, Wanted
from rfdetr_foundationpose.resources import models_dir
from support.cli_runs import run_cli

A, B, C = (np.array([x, 0.0, x + 10.0, 10.0]) for x in (0.0, 100.0, 200.0))


def run(capsys, tmp_path, *arguments: str) -> tuple[int, str, dict]:
    path = tmp_path / "figures.json"
    common = ["--device", "cpu", "--seeds", "100", "--out", str(tmp_path / "out"), "--json", str(path)]
    code, said = run_cli(capsys, "evaluate", "detector", *common, *arguments)
    return code, said, json.loads(path.read_text()) if path.exists() else {}


def test_shipped_detector_on_a_recording(capsys, tmp_path):
    few = ("--targets", "mug,drill", "--frames", "31", "--stride", "15")
    code, said, figures = run(capsys, tmp_path, *few, "--max-false-tracks", "3")
    assert code == 0, said
    assert figures["frames"] == 3 and figures["targets"] == ["mug", "drill"]
    assert figures["threshold"] == {"mug": 0.5, "drill": 0.5}
    total = figures["all"]
    assert 4 <= total["instances"] <= 6 and total["recall"] >= 0.5
    assert sum(o["instances"] for o in figures["by_object"].values()) == total["instances"]
    assert sum(s["instances"] for s in figures["by_size"]) == total["instances"]
    # Masks by depth are those of the drill's handle and what stands behind it: far from its outline.
    assert figures["masks"] == "box-depth" and 0.3 < total["mask_iou_p10"] <= total["mask_iou_p50"] < 0.95
    assert len(figures["misses"]) == round(total["instances"] * (1 - total["recall"]))
    own = next(s for s in figures["sweep"] if s["threshold"] == 0.5)
    assert own["recall"] == total["recall"] and own["false_detections"] == total["false_detections"]


def test_nothing_found_fails_the_bar_and_is_shown(capsys, tmp_path):
    arguments = ("--frames", "1", "--threshold", "1.0", "--targets", "all", "--min-recall", "0.5")
    code, said, figures = run(capsys, tmp_path, *arguments)
    assert code == 1 and "recall 0.000 is below 0.5" in said
    assert figures["all"]["recall"] == 0.0 and len(figures["by_object"]) == 5
    assert (tmp_path / "out" / "contact_sheet.png").stat().st_size > 10_000


def test_a_detector_that_takes_one_object_for_another_makes_false_tracks(capsys, tmp_path):
    lines = ["objects:"]
    for name, label in (("mug", "drill"), ("drill", "mug")):
        lines += [f"  - name: {name}", f"    mesh: {models_dir() / 'demo' / (name + '.glb')}", f"    label: {label}"]
    file = tmp_path / "objects.yaml"
    file.write_text("\n".join(lines) + "\n")
    arguments = ("--objects-file", str(file), "--frames", "3", "--stride", "3", "--max-false-tracks", "0")
    code, said, figures = run(capsys, tmp_path, *arguments)
    assert code == 1 and "false tracks, at most 0" in said
    assert {(t["object"], t["on"], t["frames"]) for t in figures["false_tracks"]} & {
        ("mug", "drill", 3),
        ("drill", "mug", 3),
    }
    assert figures["frames"] == 1 and figures["all"]["recall"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--targets", "mug,robot"), "robot not in the objects file"),
        (("--weights", "nowhere.pth"), "nowhere.pth do not exist"),
        (("--set", "detector.source=mask-topic"), "no detector to evaluate"),
        (("--seeds", "9..3"), "must be numbers or ranges"),
    ],
)
def test_wrong_arguments_are_explained(capsys, tmp_path, arguments, said):
    code, printed, _ = run(capsys, tmp_path, *arguments)
    assert code == 2 and said in printed


def test_seeds_are_numbers_and_ranges():
    assert parse_seeds("3, 5,100..102,5") == (3, 5, 100, 101, 102)
    with pytest.raises(typer.BadParameter):
        parse_seeds("a")


def test_rows_are_matched_best_first_and_false_ones_say_what_they_lie_on():
    boxes, names, counted = np.stack([A, B, C]), ["mug", "drill", "mug"], [True, True, False]
    rows = [
        ("mug", A, 0.9),
        ("mug", A + [0, 0, 0, 1], 0.8),  # found already
        ("mug", C, 0.7),  # too hidden to be asked for: neither right nor false
        ("mug", B, 0.6),
        ("drill", B + [0, 0, 12, 0], 0.5),  # less than half of it is the drill
        ("drill", B, 0.4),
        ("drill", A + 500, 0.3),
    ]
    found, false = match(rows, names, boxes, counted)
    assert found == {0: (0.9, 1.0, 0), 1: (0.4, 1.0, 5)}
    assert [(name, score, on) for name, _, score, on in false] == [
        ("mug", 0.8, "loose"),
        ("mug", 0.6, "drill"),
        ("drill", 0.5, "loose"),
        ("drill", 0.3, ""),
    ]
    assert match(rows[:1], [], np.zeros((0, 4)), []) == ({}, [("mug", rows[0][1], 0.9, "")])


def test_a_piece_of_a_thing_is_told_from_a_wrong_thing():
    """It counts as false either way; the whole drill is 100 pixels wide, and a melon hides its middle."""
    drill = np.zeros((40, 220), bool)
    drill[10:30, 100:120] = drill[10:30, 180:200] = True
    boxes, names = np.array([[100.0, 10.0, 200.0, 30.0]]), ["drill"]
    piece, melon, beside = ([180.0, 10.0, 200.0, 30.0], [125.0, 10.0, 145.0, 30.0], [190.0, 10.0, 210.0, 30.0])
    rows = [
        (name, np.array(b), 0.9) for name, b in (("drill", piece), ("mug", piece), ("drill", melon), ("drill", beside))
    ]
    _, false = match(rows, names, boxes, [True], [drill])
    assert [on for *_, on in false] == ["part", "", "", ""]
    detections = [FalseDetection(1, 0, name, box, score, on) for name, box, score, on in false]
    assert all(d.wrong for d in detections)
    assert [on for *_, on in match(rows, names, boxes, [True])[1]] == [""] * 4


def outcome(found: list[float], false: list[float], loose: tuple[float, ...] = ()) -> Outcome:
    threshold = 0.5
    wanted = [Wanted(1, i, "mug", A, 400, 1.0, score, 0.8, 0.7) for i, score in enumerate(found)]
    rows = [FalseDetection(1, i, "mug", B, score, "") for i, score in enumerate(false)]
    rows += [FalseDetection(1, i, "mug", B, score, "loose") for i, score in enumerate(loose)]
    return Outcome({"mug": threshold}, 100, wanted, rows, [])


def test_thresholds_that_reach_both_goals_are_one_range():
    figures = outcome([0.6] * 19 + [0.0], [0.8, 0.3, 0.3, 0.2]).as_dict()
    assert figures["all"]["recall"] == 0.95 and figures["all"]["false_detections"] == 1
    assert figures["all"]["false_per_frame"] == 0.01
    assert figures["good_thresholds"] == [0.31, 0.6]
    assert 0.31 <= figures["best_threshold"] <= 0.6
    assert outcome([0.6], [0.8] * 3).as_dict()["good_thresholds"] is None
    loose = outcome([0.6], [], loose=(0.8, 0.8, 0.8)).as_dict()
    assert loose["good_thresholds"] == [0.05, 0.6]
    assert (loose["all"]["false_per_frame"], loose["all"]["wrong_per_frame"]) == (0.03, 0.0)


def test_sizes_are_classed_by_the_root_of_the_pixels():
    rows = {r["from"]: r for r in outcome([0.9, 0.1], []).as_dict()["by_size"]}
    assert rows[16] == {"from": 16, "instances": 2, "recall": 0.5}
    assert rows[64] == {"from": 64, "instances": 0, "recall": None}


def test_verdict_needs_something_to_measure():
    assert verdict(outcome([], []).as_dict(), None, None) == ["no instance was to be found, so nothing was measured"]
    assert verdict(outcome([0.9], []).as_dict(), 1.0, 0) == []
