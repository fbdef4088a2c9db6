"""``evaluate synth``: register and track objects in generated scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import open_console
from .evaluate_poses import build_tools, run
from .options import Device, JsonFile, Objects, ObjectsFileOrRandom, Out, PoseWeights, Seed, Settings, named
from .outputs import Overwrite, claim


def synth(
    scenes: Annotated[int, typer.Option(min=1, help="Scenes, each of its own seed.")] = 10,
    track: Annotated[int, typer.Option(min=0, help="Frames tracked after each registration.")] = 0,
    objects_file: ObjectsFileOrRandom = None,
    objects: Objects = "",
    seed: Seed = 10_000,
    device: Device = "auto",
    weights: PoseWeights = "default",
    setting: Settings = None,
    out: Out = Path("out/evaluate"),
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Generated scenes: register one object in each from a faulty mask, then track it."""
    from ..evaluate.pose_attempts import synth_attempts
    from ..synth.specs import specs_or_random

    console = open_console()
    with specs_or_random(objects_file, range(seed, seed + scenes)) as specs:
        tools = build_tools(named(specs, objects), device, weights, setting)
    outputs = claim("evaluate synth", out, () if json_file else ("result.json",), json_file, overwrite=overwrite)
    about = {"objects": str(objects_file or "random"), "scenes": scenes, "seed": seed}
    run(console, outputs, tools, about, synth_attempts(tools, scenes, track, seed), scenes, "scenes")
