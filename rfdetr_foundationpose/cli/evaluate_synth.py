"""``evaluate synth``: register and track objects in generated scenes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .console import progress_bar, sayer
from .evaluate_poses import finish, tools_of
from .options import Device, JsonFile, PoseWeights, Seed, Settings

if TYPE_CHECKING:
    from ..evaluate.attempts import Attempt


def synth(
    scenes: Annotated[int, typer.Option(min=1, help="Scenes, each of its own seed.")] = 10,
    track: Annotated[int, typer.Option(min=0, help="Frames tracked after each registration.")] = 0,
    objects: Annotated[str, typer.Option(help="random: objects never trained on; demo: the demo's.")] = "random",
    seed: Seed = 10_000,
    device: Device = "auto",
    weights: PoseWeights = "default",
    setting: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of outputs.")] = Path("out/evaluate"),
    json_file: JsonFile = None,
) -> None:
    """Generated scenes: register one object in each from a faulty mask, then track it."""
    from ..evaluate.pose_attempts import synth_attempts
    from ..objects import load_objects
    from ..resources import default_objects_file
    from ..synth.specs import random_specs

    if objects not in ("random", "demo"):
        raise typer.BadParameter(f"--objects={objects} must be random or demo")
    console = Console()
    with tempfile.TemporaryDirectory() as folder, progress_bar(console) as progress:
        specs = (
            random_specs(Path(folder), range(seed, seed + scenes))
            if objects == "random"
            else load_objects(default_objects_file())
        )
        tools = tools_of(specs, device, weights, setting, sayer(console))
        task = progress.add_task("evaluate", total=scenes)
        attempts: list[Attempt] = []
        for of_scene in synth_attempts(tools, scenes, track, seed):
            attempts += of_scene
            progress.update(task, advance=1)
    finish(console, attempts, out, json_file, {**tools.about, "objects": objects, "scenes": scenes, "seed": seed})
