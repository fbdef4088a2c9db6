"""``evaluate synth``: register and track objects in generated scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import open_console, progress_bar
from .evaluate_poses import finish, tools_of
from .options import Device, JsonFile, Objects, ObjectsFileOrRandom, Out, PoseWeights, Seed, Settings, named

if TYPE_CHECKING:
    from ..evaluate.attempts import Attempt


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
) -> None:
    """Generated scenes: register one object in each from a faulty mask, then track it."""
    from ..evaluate.pose_attempts import synth_attempts
    from ..synth.specs import specs_or_random

    console = open_console()
    with specs_or_random(objects_file, range(seed, seed + scenes)) as specs, progress_bar(console) as progress:
        tools = tools_of(named(specs, objects), device, weights, setting)
        task = progress.add_task("evaluate", total=scenes)
        attempts: list[Attempt] = []
        for of_scene in synth_attempts(tools, scenes, track, seed):
            attempts += of_scene
            progress.update(task, advance=1)
    source = "random" if objects_file is None else str(objects_file)
    finish(console, attempts, out, json_file, {**tools.about, "objects": source, "scenes": scenes, "seed": seed})
