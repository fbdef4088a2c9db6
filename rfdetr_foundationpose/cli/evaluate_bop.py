"""``evaluate bop``: register the objects of a data set in BOP layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..tables import number, plain_table
from .console import open_console, sayer
from .evaluate_poses import build_tools, run
from .options import Device, JsonFile, Out, PoseWeights, Seed, Settings
from .outputs import Overwrite, claim

if TYPE_CHECKING:
    from ..evaluate.attempts import Attempt


def bop(
    data: Annotated[Path, typer.Argument(help="Data set folder, which holds models/ and the split.")],
    split: Annotated[
        str | None, typer.Option(help="Folder of the scenes, e.g. test_primesense; default: test, or the only one.")
    ] = None,
    sensor: Annotated[
        str | None, typer.Option(help="Of a data set with several, e.g. cam1; default: all that have depth.")
    ] = None,
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
    """A data set in BOP layout: register every visible instance; ADD-S and the BOP challenge's average recall."""
    from ..evaluate.bop_scores import BopScores, results_files, write_results
    from ..evaluate.pose_attempts import bop_attempts
    from ..replay.bop import BopDataset

    console = open_console()
    say = sayer(console)
    dataset = BopDataset(data, split, sensor)
    for note in dataset.notes:
        say(note)
    tools = build_tools(dataset.specs, device, weights, setting)
    scores = BopScores(dataset, tools.device)
    names = (*results_files(dataset).values(), *(() if json_file else ("result.json",)))
    outputs = claim("evaluate bop", out, names, json_file, overwrite=overwrite)
    made: list[Attempt] = []

    def pieces() -> Iterator[list[Attempt]]:
        for piece in bop_attempts(
            tools, dataset, seed, faulty_masks=faulty_masks, min_visibility=min_visibility, scores=scores
        ):
            made.extend(piece)
            yield piece

    def figures() -> dict[str, Any]:
        return {"left_out": dict(dataset.left_out.counts), "bop": scores.figures()}

    total = min(frames or len(dataset), len(dataset))
    about = {"data": data.resolve().name, "split": dataset.split}
    try:
        run(console, outputs, tools, about, pieces(), total, "images", figures)
    finally:
        for sentence in dataset.left_out.sentences():
            say(sentence)
        if made:
            _print_scores(scores.figures(), console)
            say(f"BOP results: {', '.join(str(f) for f in write_results(out, dataset, made))}")


def _print_scores(figures: Mapping[str, Any], console: Console) -> None:
    table = plain_table("Average recall of the BOP challenge", "object", "instances", "AR", "VSD", "MSSD", "MSPD")
    for name, f in {**figures["by_object"], "all": figures["all"]}.items():
        cells = (number(f[key]) for key in ("ar", "ar_vsd", "ar_mssd", "ar_mspd"))
        table.add_row(name, str(f["targets"]), *cells)
    console.print(table)
