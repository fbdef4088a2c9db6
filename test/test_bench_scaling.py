"""``bench scaling``: what it says of series with a known growth, and that the command measures every part and keeps it."""

from __future__ import annotations

import json

import pytest
import typer

from rfdetr_foundationpose.cli.bench_common import keeping
from rfdetr_foundationpose.evaluate.bench_rows import EstimatorRow
from rfdetr_foundationpose.evaluate.bench_scaling import Points, part_tree
from rfdetr_foundationpose.evaluate.growth import Limit, growth
from rfdetr_foundationpose.evaluate.scaling_report import remarks
from rfdetr_foundationpose.meshes.decimation import MOST_FACES
from rfdetr_foundationpose.replay.result import write_json
from rfdetr_foundationpose.synth.counted_mesh import counted_ring
from support.cli_runs import run_cli

FEW = ["--device", "cpu", "--backends", "eager", "--size", "160x120", "--schedule", "4,2", "--samples", "2"]
SIZES = [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize("power", [-0.5, 0.0, 0.3, 1.0, 2.0])
def test_a_power_law_is_found(power):
    found = growth(SIZES, [3.0 * x**power for x in SIZES])
    assert found.exponent == pytest.approx(power)
    assert found.slopes == pytest.approx([power] * 4)
    assert found.knee == (1.0 if power > 0.5 else None)
    assert found.cliffs == ()


def test_the_knee_is_where_it_becomes_steep_for_good():
    assert growth(SIZES, [1.0, 1.0, 1.0, 2.0, 4.0]).knee == 4.0
    assert growth(SIZES, [1.0, 1.9, 1.9, 3.6, 7.0]).knee == 4.0, "not at 1, after which it is flat again"
    assert growth(SIZES, [1.0, 2.0, 4.0, 8.0, 8.0]).knee is None
    assert growth([5.0], [1.0]).knee is None


@pytest.mark.parametrize(
    ("costs", "at", "ratio"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], None, 0),
        ([1.0, 2.0, 4.0, 8.0, 16.0], None, 0),
        ([1.0, 1.0, 1.0, 1.0, 2.0], None, 0),  # the beginning of a linear growth
        ([1.0, 1.0, 3.0, 1.0, 1.0], 4.0, 3.0),  # a bump
        ([1.0, 1.0, 4.0, 4.0, 4.0], 4.0, 2.0),  # a step: halfway by its neighbours
        ([1.0, 1.0, 1.0, 1.0, 6.0], 16.0, 3.0),  # at the end: more than in proportion
        ([5.0, 1.0, 1.0, 1.0, 1.0], 1.0, 5.0),  # at the beginning: more than the larger one
    ],
)
def test_a_cliff_is_a_point_out_of_line(costs, at, ratio):
    cliffs = growth(SIZES, costs).cliffs
    assert [c.x for c in cliffs] == ([] if at is None else [at])
    if cliffs:
        assert cliffs[0].ratio == pytest.approx(ratio)
        assert cliffs[0].reason == ""


def test_a_cliff_names_the_limit_that_lies_below_it_and_no_other():
    costs = [1.0, 1.0, 4.0, 4.0, 4.0]
    limits = [Limit(2.0, "turns of 2"), Limit(8.0, "turns of 8")]
    (cliff,) = growth(SIZES, costs, limits).cliffs
    assert cliff.reason == "turns of 2"
    points = Points("objects", SIZES, [f"{x:g}" for x in SIZES], {}, limits)
    tree = {"objects": part_tree(points, {"track": [[ms] for ms in costs]})}
    lines = remarks(tree)
    assert lines[0] == (
        "objects: track with 4 objects is out of line: 4.00 ms are 2.0 times what its neighbours lead one to expect (2.00 ms); "
        "turns of 2"
    )
    assert lines[1:] == ["objects: turns of 2", "objects: turns of 8"]
    unknown = {"objects": part_tree(Points("objects", SIZES, points.labels, {}), {"track": [[ms] for ms in costs]})}
    assert "nothing that we know of changes there" in remarks(unknown)[0]


def test_what_of_a_step_on_the_largest_image_is_not_the_step_is_said():
    points = Points("image", [0.3, 12.6], ["640x480", "4096x3072"], {}, unit="megapixels")
    stages = {"track": [[2.0], [10.0]], "upload": [[0.1], [6.0]], "depth filter": [[0.1], [1.0]]}
    tree = {"images": part_tree(points, stages)}
    assert "images: at 4096x3072 upload and depth filter are 70% of a tracking step" in remarks(tree)
    tree["images"]["series"].pop("depth filter")
    assert "images: at 4096x3072 upload is 60% of a tracking step" in remarks(tree)
    interrupted = {"images": part_tree(points, {**stages, "upload": [[0.1], []]})}
    assert not [line for line in remarks(interrupted) if "upload" in line]


def test_wrong_series_are_refused():
    for sizes, costs in (([], []), ([1.0], [1.0, 2.0]), ([2.0, 1.0], [1.0, 1.0]), ([0.0, 1.0], [1.0, 1.0])):
        with pytest.raises(ValueError, match="sizes"):
            growth(sizes, costs)


@pytest.mark.parametrize("wanted", [36, 1000, 10_000, 100_000])
def test_a_ring_has_the_faces_that_it_was_asked_for(wanted):
    mesh = counted_ring(wanted)
    assert len(mesh.faces) == pytest.approx(wanted, rel=0.02)
    assert mesh.is_watertight and mesh.volume > 0


def test_every_part_is_measured(weights, tmp_path, capsys):
    lists = [
        "--counts",
        "1,3",
        "--waiting",
        "1,2",
        "--faces",
        "500,1000",
        "--sizes",
        "160x120,200x150",
        "--cameras",
        "1,2",
    ]
    code, text = run_cli(capsys, "bench", "scaling", *FEW, *lists, "--weights", str(weights), "--out", str(tmp_path))
    assert code == 0, text
    tree = json.loads((tmp_path / "scaling.json").read_text())
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert tree["environment"]["torch"] and "eager" in tree["title"]
    series = {part: set(found["series"]) for part, found in tree["parts"].items()}
    assert series == {
        "objects": {"track"},
        "register": {"until the first", "until all", "one by itself"},
        "faces": {"track", "register"},
        "images": {"track", "register", "upload"},
        "cameras": {"track, first camera", "track, last camera"},
    }
    for part, found in tree["parts"].items():
        for name, s in found["series"].items():
            assert len(s["x"]) == len(s["labels"]) == len(s["ms"]) == 2, (part, name)
            assert s["exponent"] == pytest.approx(s["slopes"][0])
            assert all(0 < ms["p50"] <= ms["p95"] for ms in s["ms"])
            assert s["ms"][0]["count"] == (1 if "register" in (part, name) else 2)
    ends = tree["parts"]["register"]["series"]
    first, everything = (ends[name]["ms"] for name in ("until the first", "until all"))
    assert everything[0]["p50"] == first[0]["p50"], "of one, the first is all"
    assert everything[1]["p50"] > first[1]["p50"]
    assert tree["parts"]["faces"]["facts"][1]["faces drawn"] == tree["parts"]["faces"]["x"][1]
    assert tree["parts"]["images"]["x"] == [0.0192, 0.03] and tree["parts"]["images"]["unit"] == "megapixels"
    for words in ("slope to here", "exponent", "steeper than 0.5 from", "faces drawn"):
        assert words in text


@pytest.mark.gpu
def test_on_a_gpu_with_graphs_filter_and_memory(weights, tmp_path, capsys):
    words = ["--device", "cuda", "--backends", "cuda_graph", "--size", "320x240", "--samples", "10"]
    words += ["--counts", "1,3,9", "--waiting", "1,3", "--faces", "1000,60000,300000", "--sizes", "320x240,640x480"]
    code, text = run_cli(
        capsys, "bench", "scaling", *words, "--cameras", "1,2", "--weights", str(weights), "--out", str(tmp_path)
    )
    assert code == 0, text
    parts = json.loads((tmp_path / "scaling.json").read_text())["parts"]
    assert set(parts["images"]["series"]) == {"track", "register", "upload", "depth filter"}
    assert [len(s["x"]) for found in parts.values() for s in found["series"].values()] == [
        *(3, 2, 2, 2, 3, 3),
        *(2, 2, 2, 2, 2, 2),
    ]
    drawn = [fact["faces drawn"] for fact in parts["faces"]["facts"]]
    assert drawn[0] < drawn[1] < drawn[2] <= MOST_FACES * 1.01
    assert all(fact["memory MB"] > 0 for fact in parts["cameras"]["facts"])
    assert not [note for found in parts.values() for note in found["notes"] if "not measured" in note]


def test_ctrl_c_keeps_the_parts_and_the_samples_that_there_are(weights, tmp_path, capsys, monkeypatch):
    measured, calls = EstimatorRow.track, []

    def track(row, frame, last):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measured(row, frame, last)

    monkeypatch.setattr(EstimatorRow, "track", track)
    lists = ["--parts", "objects,images", "--counts", "1,2", "--sizes", "160x120,200x150"]
    code, text = run_cli(capsys, "bench", "scaling", *FEW, *lists, "--weights", str(weights), "--out", str(tmp_path))
    assert code == 130 and "what was measured is kept in" in text
    parts = json.loads((tmp_path / "scaling.json").read_text())["parts"]
    assert [ms["count"] for ms in parts["objects"]["series"]["track"]["ms"]] == [2, 2]
    assert [ms["count"] for ms in parts["images"]["series"]["track"]["ms"]] == [1]
    assert "slope to here" in text


def test_a_file_of_an_earlier_run_is_not_what_was_kept(tmp_path, said):
    path = tmp_path / "scaling.json"
    path.write_text("{}")
    for written in (False, True):
        with pytest.raises(typer.Exit), keeping(path):
            if written:
                write_json(path, {})
            raise KeyboardInterrupt
    assert said == ["interrupted before a figure", f"interrupted: what was measured is kept in {path}"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--parts", "objects,meshes"], "--parts: meshes is none of objects, register, faces, images, cameras"),
        (["--parts", ","], "--parts must name one or more of"),
        (["--counts", "0,1"], "--counts=0,1 must be whole numbers from 1 to 100"),
        (["--faces", "1e6"], "--faces=1e6 must be whole numbers from 36 to 5000000"),
        (["--faces", "12"], "--faces=12 must be whole numbers from 36"),
        (["--cameras", "two"], "--cameras=two must be whole numbers from 1 to 16"),
        (["--waiting", "-1"], "--waiting=-1 must be whole numbers from 1"),
        (["--sizes", "640"], "must be WIDTHxHEIGHT"),
        (["--sizes", "640x480,480x640"], "two of them have equally many pixels"),
        (["--size", "64x48"], "both sides are to be 96 pixels or more"),
        (["--backends", "eager,half"], "--backends=eager,half must be one"),
        (["--backends", "fast"], "fast is none of"),
    ],
)
def test_wrong_options_are_one_sentence(options, sentence, tmp_path, capsys):
    code, text = run_cli(capsys, "bench", "scaling", "--device", "cpu", *options, "--out", str(tmp_path / "out"))
    assert code == 2
    assert sentence in " ".join(text.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_mesh_that_is_thinned_out_says_so():
    points = Points("faces", [1000.0, 1e6], ["1,000", "1,000,000"], {}, [Limit(MOST_FACES, "thinned out")])
    assert part_tree(points, {"track": [[1.0], [2.0]]})["limits"] == ["thinned out"]
