"""docs/your-object.md, followed command by command on a tiny example."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import SimpleMaterial

from rfdetr_foundationpose.cli.main import main
from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.detect.checkpoint import save
from rfdetr_foundationpose.objects import load_objects
from support.detector_models import loaded
from support.detector_training import TINY

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-object.md"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# What makes a command of the page tiny: its first words -> more options. Nothing else of it is changed.
SMALLER = {
    "object board": "",
    "generate scan": "--frames 24 --size 512x384 --device cpu",
    "object scan": "--voxel 3 --no-symmetries --device cpu",
    "object add": "",
    "train detector": (
        "--minutes 0.02 --least-steps 1 --batch 2 --groups 2 --pool 4 --evaluation-scenes 1 --device cpu"
    ),
    "evaluate detector": "--seeds 7 --frames 2 --stride 1 --device cpu",
    "evaluate pipeline": "--seeds 7 --frames 2 --fps 1 --device cpu --set pose.register_schedule=12",
    "generate recording": "--frames 3 --size 320x240 --distractors 0 --device cpu",
    "replay out/bag": "--frames 2 --device cpu --set pose.register_schedule=12",
}
NOT_HERE = ("object scan scan", "object scan --camera")  # need a camera; the page has a generated recording besides
MAY_FIND_NOTHING = ("replay out/bag", "evaluate pipeline")
"""An untrained detector finds nothing, and a box anywhere shows no object: they exit with 1 and say so."""


def commands() -> list[list[str]]:
    """Those of this program, in the page's order; what is recorded comes before what reads it."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("rfdetr-foundationpose ")]
    found = [shlex.split(line, comments=True)[1:] for line in lines]
    found = [words for words in found if " ".join(words[:3]) not in NOT_HERE]
    first = [words for words in found if words[:2] == ["generate", "recording"]]
    add = next(i for i, words in enumerate(found) if words[:2] == ["object", "add"])
    rest = [words for words in found if words not in first]
    return [*rest[: add + 1], *first, *rest[add + 1 :]]


def bracket(path: Path) -> None:
    """An L of 60 x 40 x 50 mm with a print, in millimetres, as OBJ with its material."""
    parts = [trimesh.creation.box((60, 40, 10)), trimesh.creation.box((10, 40, 40))]
    parts[1].apply_translation((-25, 0, 25))
    mesh = trimesh.util.concatenate(parts).subdivide().subdivide()
    uv = (np.asarray(mesh.vertices)[:, [0, 2]] - mesh.bounds[0][[0, 2]]) / np.ptp(mesh.bounds, axis=0)[[0, 2]]
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    mesh.visual = TextureVisuals(uv=uv, material=SimpleMaterial(image=Image.fromarray(picture).resize((512, 512))))
    path.parent.mkdir()
    mesh.export(path)


def test_every_command_of_the_page_runs_and_each_finds_what_the_one_before_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bracket(Path("meshes/bracket.obj"))
    made = loaded(**{**TINY, "group_detr": 1})
    save(
        Path("start.safetensors"),
        library.network(made.model),
        variant="nano",
        config={**TINY, "group_detr": 1},
        class_names=["mug", "can", "drill"],
    )
    run = commands()
    assert len(run) >= 9
    for words in run:
        name = " ".join(words[:2])
        more = shlex.split(SMALLER[name])
        if name == "train detector" and "--start" not in words:
            more += ["--start", "start.safetensors"]
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        printed = capsys.readouterr()
        allowed = (0, 1) if name in MAY_FIND_NOTHING else (0,)
        assert int(ended.value.code or 0) in allowed, f"{words}\n{printed.out}\n{printed.err}"
    (spec,) = load_objects("objects.yaml")
    assert (spec.name, spec.scale) == ("bracket", 0.001)
    for name in (
        *(
            "board.pdf",
            "bracket.sides.png",
            "out/bracket/samples.png",
            "out/bracket/results.png",
            "out/bag/metadata.yaml",
        ),
        *("out/replay/report.html", "out/meshes/scanned_mug.glb", "out/evaluate-detector/result.json"),
    ):
        assert Path(name).is_file(), name
    trained = [json.loads(Path(f"out/{name}/metrics.json").read_text()) for name in ("bracket", "bracket_masks")]
    assert [(t["classes"], t["masks"]) for t in trained] == [(["bracket"], "yes"), (["bracket"], "only")]


@pytest.mark.parametrize("page", ["your-object.md", "see.md", "install.md"])
def test_pictures_and_pages_that_the_page_names_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (PAGE.parent / page).read_text()):
        assert (PAGE.parent / target).is_file(), target
