"""``export`` and ``build-engines`` as a user runs them, with small weights of our own format."""

from __future__ import annotations

import onnx
import pytest
import torch

from rfdetr_foundationpose.accel.onnx_export import compare_with_torch, inspect_onnx
from rfdetr_foundationpose.pose import checkpoints
from support.cli_runs import run_cli

pytest.importorskip("onnxruntime")


def test_export_writes_four_checked_files(weights, tmp_path, capsys):
    code, text = run_cli(capsys, "export", "--weights", str(weights), "--out", str(tmp_path))
    assert code == 0, text
    names = {"refiner_fp32.onnx", "refiner_fp16.onnx", "scorer_fp32.onnx", "scorer_fp16.onnx"}
    assert {p.name for p in tmp_path.glob("*.onnx")} == names
    assert "test refiner" in text and text.count("ok") >= 4
    refiner, _ = checkpoints.load_refiner(weights / "refiner.safetensors")
    assert max(compare_with_torch(tmp_path / "refiner_fp32.onnx", refiner).values()) < 1e-4
    assert inspect_onnx(tmp_path / "scorer_fp16.onnx").batch is None


def test_export_at_a_fixed_batch(weights, tmp_path, capsys):
    arguments = [
        "--weights",
        str(weights),
        "--out",
        str(tmp_path),
        "--precision",
        "fp32",
        "--batch",
        "3",
        "--opset",
        "18",
    ]
    code, text = run_cli(capsys, "export", *arguments)
    assert code == 0, text
    assert {p.name for p in tmp_path.glob("*.onnx")} == {"refiner_fp32_b3.onnx", "scorer_fp32_b3.onnx"}
    path = tmp_path / "refiner_fp32_b3.onnx"
    assert inspect_onnx(path).batch == 3
    assert [o.version for o in onnx.load(str(path)).opset_import if o.domain == ""] == [18]


def test_export_fails_when_a_file_differs(weights, tmp_path, capsys, monkeypatch):
    from rfdetr_foundationpose.cli import export

    monkeypatch.setitem(export.TOLERANCE, "fp16", 1e-9)
    code, text = run_cli(capsys, "export", "--weights", str(weights), "--out", str(tmp_path), "--precision", "fp16")
    assert code == 1 and "above 1e-09" in text


def test_missing_weights_and_bad_arguments_are_said(tmp_path, capsys):
    code, text = run_cli(capsys, "export", "--weights", str(tmp_path), "--out", str(tmp_path / "out"))
    assert code == 2 and "no refiner weights" in text
    code, text = run_cli(capsys, "export", "--weights", str(tmp_path), "--precision", "int8")
    assert code == 2 and "must be fp32, fp16 or both" in text
    code, text = run_cli(capsys, "build-engines", "--batches", "1,two")
    assert code == 2 and "must be numbers from 1 to 4096" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_build_engines_says_why_it_cannot(weights, capsys):
    code, text = run_cli(capsys, "build-engines", "--weights", str(weights), "--batches", "1,2")
    assert code == 2
    assert "build-engines: no CUDA device is visible to torch" in text


def test_build_engines_checks_the_files_first(weights, tmp_path, capsys, monkeypatch):
    run_cli(capsys, "export", "--weights", str(weights), "--out", str(tmp_path), "--precision", "fp32")
    files = ["--refiner-onnx", str(tmp_path / "scorer_fp32.onnx"), "--scorer-onnx", str(tmp_path / "scorer_fp32.onnx")]
    code, text = run_cli(capsys, "build-engines", *files, "--batches", "2", "--device", "cpu")
    assert code == 2 and "is a scorer, given as --refiner-onnx" in text
