"""``generate``: what it writes can be read, and mistakes end in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh

from rfdetr_foundationpose.pose.mesh import load_object
from rfdetr_foundationpose.replay.bop import BopDataset
from rfdetr_foundationpose.replay.recording import read_recording
from rfdetr_foundationpose.synth.generate import load_scene_objects
from support.cli_runs import run_cli

Run = Callable[..., tuple[int, str]]

SMALL = ["--size", "96x72", "--device", "cpu", "--seed", "3"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    return lambda *arguments: run_cli(capsys, "generate", *arguments)


def test_recording(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "bag"
    code, text = run("recording", "--out", str(out), "--frames", "3", "--objects", "mug,mug", "--fps", "10", *SMALL)
    assert code == 0 and f"wrote 3 frames to {out}" in text
    frames = list(read_recording(out))
    assert [f.rgb.shape for f, _ in frames] == [(72, 96, 3)] * 3
    assert [i.name for i in frames[0][1].instances] == ["mug", "mug_1"]
    assert frames[1][0].stamp_ns - frames[0][0].stamp_ns == 100_000_000
    code, text = run("recording", "--out", str(out), "--frames", "3", *SMALL)
    assert code == 2 and "exists already" in text


def test_bop(tmp_path: Path, run: Run) -> None:
    arguments = ["--scenes", "2", "--frames", "2", "--objects", "drill", "--distractors", "1", *SMALL]
    assert run("bop", "--out", str(tmp_path), *arguments)[0] == 0
    read = list(BopDataset(tmp_path))
    assert [(scene, image) for scene, image, _, _ in read] == [(s, i) for s in ("000000", "000001") for i in (0, 1)]
    assert all([i.object for i in instances] == ["obj_000001"] for *_, instances in read)
    assert (read[0][2].rgb != read[2][2].rgb).any()


SYMMETRIES = {
    "five": ("symmetries_discrete: [{axis: [0, 0, 1], fold: 5, point: [0.03, 0.01, 0]}]", 5),
    "prism": ("symmetries_discrete: [{axis: [0, 0, 1], fold: 8}, {axis: [1, 0, 0], fold: 2}]", 16),
    "can": ("symmetries_continuous: [{axis: [0, 0.6, 0.8], point: [0.03, 0.01, 0]}]", 72),
    "rod": (
        "symmetries_continuous: [{axis: [0, 0, 1]}]\n    symmetries_discrete: [{axis: [1, 0, 0], fold: 2}, {axis: [0, 0, 1], fold: 4}]",
        144,
    ),
    "ball": ("symmetries_continuous: [{axis: [0, 0, 1]}, {axis: [1, 0, 0]}]", 72 * 72),
}


@pytest.mark.parametrize("name", SYMMETRIES)
def test_bop_models_look_the_same_when_read_again(tmp_path: Path, run: Run, name: str) -> None:
    trimesh.creation.box((0.1, 0.06, 0.04)).export(tmp_path / "box.ply")
    declared, looks = SYMMETRIES[name]
    objects = tmp_path / "objects.yaml"
    objects.write_text(f"objects:\n  - name: {name}\n    mesh: box.ply\n    {declared}\n")
    arguments = ["--objects-file", str(objects), "--frames", "1", "--distractors", "0", *SMALL]
    assert run("bop", "--out", str(tmp_path / "bop"), *arguments)[0] == 0
    (spec,) = BopDataset(tmp_path / "bop").specs
    read = load_object(spec).symmetries
    assert len(read) == looks
    (written,) = load_scene_objects(objects)
    if name != "ball":  # its looks are samples, which depend on the order of the axes
        distances = np.abs(written.symmetries[:, None] - read[None]).max(axis=(2, 3))
        assert distances.min(axis=1).max() < 1e-6
        assert distances.min(axis=0).max() < 1e-6


def test_coco(tmp_path: Path, run: Run) -> None:
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
def test_mistakes(tmp_path: Path, run: Run, arguments: list[str], message: str) -> None:
    code, text = run(*arguments, "--out", str(tmp_path / "out"))
    assert code == 2 and message in text
    assert not (tmp_path / "out").exists()
