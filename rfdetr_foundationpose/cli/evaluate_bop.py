"""``evaluate bop``: register the objects of a data set in BOP layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import open_console
from .evaluate_poses import run, tools_of
from .options import Device, JsonFile, Out, PoseWeights, Seed, Settings
from .outputs import Overwrite, claim


def bop(
    data: Annotated[Path, typer.Argument(help="Data set folder, which holds models/ and the split.")],
    split: Annotated[str, typer.Option(help="Folder of the scenes.")] = "test",
    frames: Annotated[int | None, typer.Option(min=1, help="Use the first frames only.")] = None,
    faulty_masks: Annotated[bool, typer.Option(help="Make the visible masks as wrong as a detector's.")] = True,
    min_visibility: Annotated[float, typer.Option(min=0, max=1, help="Instances less visible are left out.")] = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    weights: PoseWeights = "default",
    setting: Settings = None,
    out: Out = Path("out/bop"),
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """A data set in BOP layout: register every visible instance."""
    from ..evaluate.pose_attempts import bop_attempts
    from ..replay.bop import BopDataset

    console = open_console()
    dataset = BopDataset(data, split)
    tools = tools_of(dataset.specs, device, weights, setting)
    outputs = claim("evaluate bop", out, () if json_file else ("result.json",), json_file, overwrite=overwrite)
    attempts = bop_attempts(tools, dataset, seed, faulty_masks=faulty_masks, min_visibility=min_visibility)
    run(console, outputs, tools, {"data": data.name, "split": split}, attempts, frames, "images")
