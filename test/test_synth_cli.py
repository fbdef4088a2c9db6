"""``generate``: what it writes can be read, and mistakes end in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rfdetr_foundationpose.cli.synth import app
from rfdetr_foundationpose.replay.recording import read_recording
from rfdetr_foundationpose.synth.bop import read_bop, scene_folders

SMALL = ["--size", "96x72", "--device", "cpu", "--seed", "3"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def test_recording(tmp_path: Path) -> None:
    out = tmp_path / "bag"
    code, text = run("recording", "--out", str(out), "--frames", "3", "--objects", "mug,mug", "--rate", "10", *SMALL)
    assert code == 0 and f"wrote 3 frames to {out}" in text
    frames = list(read_recording(out))
    assert [f.rgb.shape for f, _ in frames] == [(72, 96, 3)] * 3
    assert [i.name for i in frames[0][1].instances] == ["mug", "mug_1"]
    assert frames[1][0].stamp_ns - frames[0][0].stamp_ns == 100_000_000
    code, text = run("recording", "--out", str(out), "--frames", "3", *SMALL)
    assert code == 1 and "exists already" in text


def test_bop(tmp_path: Path) -> None:
    arguments = ["--scenes", "2", "--frames", "2", "--objects", "drill", "--distractors", "1", *SMALL]
    assert run("bop", "--out", str(tmp_path), *arguments)[0] == 0
    first, second = (list(read_bop(s)) for s in scene_folders(tmp_path))
    assert len(first) == len(second) == 2
    assert [i.object for i in first[0][1].instances] == ["drill"]
    assert (first[0][0].rgb != second[0][0].rgb).any()


def test_coco(tmp_path: Path) -> None:
    assert run("coco", "--out", str(tmp_path), "--train", "3", "--valid", "1", *SMALL)[0] == 0
    content = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    assert len(content["images"]) == 3
    assert {c["name"] for c in content["categories"]} >= {"mug", "soup_can"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recording", "--size", "big"], "must be WIDTHxHEIGHT"),
        (["recording", "--objects", "teapot"], "'teapot' is not in the objects file; it has cereal_box"),
        (["recording", "--storage", "zip"], "storage='zip' must be 'mcap' or 'sqlite3'"),
        (["recording", "--device", "abacus"], "not a torch device"),
        (["coco", "--objects-file", "nowhere.yaml"], "nowhere.yaml does not exist"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], message: str) -> None:
    code, text = run(*arguments, "--out", str(tmp_path / "out"))
    assert code != 0 and message in text
    assert not (tmp_path / "out").exists()
