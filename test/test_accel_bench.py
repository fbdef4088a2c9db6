"""``bench`` from the command line on the CPU: what is measured, what is not and why."""

from __future__ import annotations

import json

import pytest
import torch

from rfdetr_foundationpose.cli.bench_common import official_crops
from rfdetr_foundationpose.cli.options import parse_size
from rfdetr_foundationpose.config import Config
from rfdetr_foundationpose.evaluate.bench_rows import EstimatorRow
from rfdetr_foundationpose.evaluate.bench_scene import smallest_objects
from rfdetr_foundationpose.evaluate.bench_stages import build_row
from rfdetr_foundationpose.evaluate.bench_timing import Stats, interleave
from rfdetr_foundationpose.evaluate.networks import LoadedNetworks, load_networks
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.types import CameraIntrinsics
from support.cli_runs import run_cli


def run(capsys, *arguments: str) -> tuple[int, str]:
    return run_cli(capsys, "bench", "--device", "cpu", *arguments)


@pytest.mark.slow
def test_one_run_one_table(weights, tmp_path, capsys):
    arguments = ["--weights", str(weights), "--size", "160x120", "--schedule", "4,2", "--no-detector"]
    few = ["--repeat-track", "2", "--repeat-register", "2", "--tracked", "2", "--out", str(tmp_path)]
    code, text = run(capsys, *arguments, *few, "--backends", "eager,traced,cuda_graph,tensorrt")
    assert code == 0, text
    result = json.loads((tmp_path / "bench.json").read_text())
    rows = result["rows"]
    assert list(rows) == ["eager", "traced", "cuda_graph", "tensorrt"]
    assert len(result["objects"]) == 2
    for name in ("eager", "traced"):
        assert rows[name]["ran"] == name and rows[name]["warm_up_s"] > 0
        for stage, count in (("preprocess", 2), ("track", 2), ("register", 2)):
            stats = rows[name]["stages"][stage]
            assert stats["count"] == count
            assert 0 < stats["p50"] <= stats["p95"] <= stats["max"] and stats["avg"] > 0
    difference = rows["traced"]["track_difference"]
    assert difference["mm"]["max"] < 0.05 and difference["deg"]["max"] < 0.05
    for name in ("cuda_graph", "tensorrt"):
        assert "CUDA device" in rows[name]["reason"] and rows[name]["stages"] == {}
        assert f"{name}: not available" in text
    assert result["environment"]["torch"] and result["weights"].startswith("refiner.safetensors")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_networks_alone(weights, tmp_path, capsys):
    arguments = ["--weights", str(weights), "--backends", "eager,half,cuda_graph", "--batches", "1,3"]
    options = ["--device", "cpu", "--repeat", "5", "--out", str(tmp_path)]
    code, text = run_cli(capsys, "bench", "networks", *arguments, *options)
    assert code == 0, text
    tree = json.loads((tmp_path / "networks.json").read_text())["networks"]
    assert set(tree) == {"refiner", "scorer"}
    for rows in tree.values():
        assert "CUDA" in rows["cuda_graph"]["reason"]
        assert set(rows["half"]["batches"]) == {"1", "3"}
        assert rows["half"]["batches"]["3"]["count"] == 5
        assert rows["eager"]["batches"]["3"]["difference"] == 0
        assert rows["half"]["batches"]["3"]["difference"] < 0.1


def test_a_backend_that_runs_out_of_memory_leaves_the_others_their_rows(monkeypatch):
    class Large(EstimatorRow):
        def __init__(self, *arguments) -> None:
            pass

        def warm_up(self, camera) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5.00 GiB")

    monkeypatch.setattr("rfdetr_foundationpose.evaluate.bench_stages.EstimatorRow", Large)
    camera = CameraIntrinsics(100.0, 100.0, 80.0, 60.0, 160, 120)
    built = build_row("eager", [], {}, Config(), torch.device("cpu"), camera, [])
    assert built.row is None
    assert "5.00 GiB" in built.reason


@pytest.mark.parametrize(
    ("official", "setting", "expected"),
    [(True, "auto", ["scorer"]), (False, "auto", []), (False, "official", ["refiner", "scorer"]), (True, "direct", [])],
)
def test_a_row_samples_its_crops_as_the_setting_says(official, setting, expected):
    """As the node with these weights does: what is measured and compared is what runs."""
    modules = {"refiner": RefineNet(0.125).eval(), "scorer": ScoreNet(0.125).eval()}
    networks = LoadedNetworks(modules, dict.fromkeys(modules, "random"), {"refiner": False, "scorer": official})
    config = Config.from_dict({"pose.crop_sampling": setting, "device": "cpu"})
    row = EstimatorRow("eager", smallest_objects(1)[1], networks, config, torch.device("cpu"))
    assert list(row.estimator._networks.official_crops) == expected
    shown = official_crops(networks, config)
    assert shown == (f", official crops for {' and '.join(expected)}" if expected else "")


def test_official_weights_get_official_crops(weights):
    assert load_networks(str(weights), False).official == {"refiner": False, "scorer": False}
    assert load_networks("default", True).official == {"refiner": True, "scorer": True}, "as the weights of that size"


def test_bad_arguments_are_named(capsys):
    code, text = run(capsys, "--backends", "eager,warp")
    assert code == 2 and "warp is none of reference" in text
    code, text = run(capsys, "--size", "720p", "--official-size")
    assert code == 2 and "WIDTHxHEIGHT" in text
    assert parse_size("1280x720") == (720, 1280)


def test_interleaving_is_fair():
    order: list[str] = []
    calls = {name: (lambda i, n=name: order.append(f"{n}{i}") or float(i)) for name in "abc"}
    samples = interleave(calls, 3)
    assert order == ["a0", "b0", "c0", "b1", "c1", "a1", "c2", "a2", "b2"]
    assert samples == {name: [0.0, 1.0, 2.0] for name in "abc"}


def test_statistics():
    stats = Stats.of([4.0, 1.0, 2.0, 3.0])
    assert (stats.count, stats.avg, stats.p50, stats.max) == (4, 2.5, 2.5, 4.0)
    with pytest.raises(ValueError, match="no samples"):
        Stats.of([])
