"""``evaluate bop``: register the objects of a data set in BOP layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import open_console, progress_bar
from .evaluate_poses import finish, tools_of
from .options import Device, JsonFile, Out, PoseWeights, Seed, Settings

if TYPE_CHECKING:
    from ..evaluate.attempts import Attempt


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
) -> None:
    """A data set in BOP layout: register every visible instance."""
    from ..evaluate.pose_attempts import bop_attempts
    from ..replay.bop import BopDataset

    console = open_console()
    dataset = BopDataset(data, split)
    tools = tools_of(dataset.specs, device, weights, setting)
    attempts: list[Attempt] = []
    with progress_bar(console) as progress:
        task = progress.add_task("evaluate", total=frames)
        of_images = bop_attempts(tools, dataset, seed, faulty_masks=faulty_masks, min_visibility=min_visibility)
        for count, of_image in enumerate(of_images, 1):
            attempts += of_image
            progress.update(task, completed=count)
            if count == frames:
                break
    finish(console, attempts, out, json_file, {**tools.about, "data": data.name, "split": split})
