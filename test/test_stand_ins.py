"""Pointers of Git LFS, web pages and empty files under the names of meshes, weights, recordings and data sets."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch

from rfdetr_foundationpose.detect.checkpoint import load_file
from rfdetr_foundationpose.errors import UserError
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pose.checkpoints import read
from rfdetr_foundationpose.pose.mesh import read_object
from rfdetr_foundationpose.replay.recording import Recording
from rfdetr_foundationpose.train.coco_files import read_dataset

READERS = {
    "a.obj": lambda path: read_object(ObjectSpec("a", path)),
    "a.pth": lambda path: load_file(path, "nano", torch.device("cpu")),
    "a.safetensors": lambda path: load_file(path, "nano", torch.device("cpu")),
    "model_best.pth": read,
    "refiner.safetensors": read,
    "a.mcap": Recording,
    "a.db3": Recording,
    "a.bag": Recording,
    "a.json": read_dataset,
}
CONTENTS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "Git LFS pointer.*git lfs pull",
    b"\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning": "web page.*download the file itself",
    b"": "is empty",
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", CONTENTS, ids=["lfs", "page", "empty"])
def test_what_lies_in_the_place_of_a_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=CONTENTS[content]) as found:
        READERS[name](tmp_path / name)
    assert name in str(found.value)


@pytest.mark.parametrize(
    "name, words",
    [
        ("a.mkv", "ROS driver"),
        ("a.svo2", "ROS driver"),
        ("a.mp4", "no depth"),
        ("a.zip", "unpack it"),
        ("a.txt", "neither as MCAP"),
    ],
)
def test_recordings_of_other_programs_are_named(tmp_path, name, words):
    (tmp_path / name).write_bytes(json.dumps({"some": "bytes"}).encode())
    with pytest.raises(UserError, match=words):
        Recording(tmp_path / name)


def test_weights_of_other_programs_are_named(tmp_path, monkeypatch):
    """As ultralytics saves them: the network itself, pickled."""
    module = types.ModuleType("ultralytics.nn.tasks")
    for name in ("ultralytics", "ultralytics.nn"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "ultralytics.nn.tasks", module)
    module.DetectionModel = type("DetectionModel", (torch.nn.Module,), {"__module__": "ultralytics.nn.tasks"})
    torch.save({"model": module.DetectionModel(), "train_args": {}}, tmp_path / "yolo.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "layer.pt")
    monkeypatch.undo()
    for name, words in (
        ("yolo.pt", "YOLO model of ultralytics; publish its masks"),
        ("layer.pt", "objects of torch.nn.modules"),
    ):
        with pytest.raises(UserError, match=words) as found:
            READERS["a.pth"](tmp_path / name)
        assert "trust" not in str(found.value)
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08" * 40)
    with pytest.raises(UserError, match="ONNX files and engines are made of these: build-engines"):
        READERS["a.pth"](tmp_path / "a.onnx")
