"""train detector and validate detector from the command line."""

from __future__ import annotations

import json

import pytest
import torch

from rfdetr_foundationpose.cli.main import main
from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.detect.checkpoint import save
from support.detector_models import NAMES, loaded

DEMO = ["cereal_box", "mug", "drill"]
# Many rows, so that none is cut off: predict() gives some to the no-object column.
CONFIG = {
    "resolution": 128,
    "positional_encoding_size": 8,
    "out_feature_indexes": [1, 2],
    "dec_layers": 1,
    "num_queries": 20,
    "num_select": 80,
    "hidden_dim": 64,
    "group_detr": 1,
}


@pytest.fixture
def objects_file(tmp_path):
    from rfdetr_foundationpose.resources import models_dir

    lines = ["objects:"]
    for name, label in zip(DEMO, NAMES, strict=True):
        lines += [f"  - name: {name}", f"    mesh: {models_dir() / 'demo' / (name + '.glb')}", f"    label: {label}"]
    path = tmp_path / "objects.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "mine.safetensors"
    save(path, library.network(loaded(**CONFIG).model), variant="nano", config=CONFIG, class_names=NAMES)
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return int(ended.value.code or 0)


def test_validate_passes_the_hot_path_and_writes_json(objects_file, weights, tmp_path, capsys):
    out = tmp_path / "result.json"
    common = ["--objects-file", str(objects_file), "--device", "cpu", "--images", "2", "--json", str(out)]
    code = run("validate", "detector", "--weights", str(weights), "--backend", "eager", *common)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "verdict           PASS" in printed and "FP32 eager, predictor" in printed
    result = json.loads(out.read_text())
    assert result["passed"] and result["images"] == 2 and result["detections"] > 0


def test_validate_fails_when_nothing_is_there_to_compare(objects_file, weights, capsys):
    common = ["--objects-file", str(objects_file), "--device", "cpu", "--images", "1", "--threshold", "1.0"]
    assert run("validate", "detector", "--weights", str(weights), "--backend", "eager", *common) == 1
    assert "FAIL: nothing was detected" in capsys.readouterr().out


def test_validate_explains_missing_weights(objects_file, capsys):
    common = ["--objects-file", str(objects_file), "--device", "cpu"]
    assert run("validate", "detector", "--weights", "nowhere.pth", *common) == 2
    assert "nowhere.pth do not exist" in capsys.readouterr().err


def tiny_training(out, objects_file, *more: str) -> tuple[str, ...]:
    return (
        *("train", "detector", "--out", str(out), "--objects-file", str(objects_file), "--device", "cpu"),
        *("--resolution", "96", "--batch", "2", "--groups", "1", "--pool", "4", "--evaluation-scenes", "1", *more),
    )


def test_train_writes_weights_of_the_objects_labels(objects_file, weights, tmp_path, capsys):
    from rfdetr_foundationpose.detect.checkpoint import load_file

    out = tmp_path / "train"
    assert (
        run(*tiny_training(out, objects_file, "--minutes", "0.02", "--start", str(weights), "--least-steps", "1")) == 0
    )
    found = load_file(out / "detector.safetensors", "nano", torch.device("cpu"))
    assert list(found.class_names.values()) == NAMES
    printed = capsys.readouterr().out
    assert "starting from mine.safetensors" in printed and "held-out scenes" in printed
    assert f"detector.weights:={(out / 'detector.safetensors').resolve()}" in printed.replace("\n", "")


def test_train_writes_no_weights_of_a_handful_of_steps(objects_file, weights, tmp_path, capsys):
    out = tmp_path / "train"
    assert run(*tiny_training(out, objects_file, "--minutes", "0.01", "--start", str(weights))) == 2
    assert "at least 100 are needed" in capsys.readouterr().err
    assert not (out / "detector.safetensors").exists() and not (out / "metrics.json").exists()


def test_train_refuses_a_resolution_that_does_not_divide(capsys):
    assert run("train", "detector", "--resolution", "100") == 2
    assert "multiple of 32" in capsys.readouterr().err
