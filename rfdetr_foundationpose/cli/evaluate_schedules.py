"""``evaluate schedules``: what pruning costs in accuracy and buys in time, on hundreds of generated scenes; and drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..interrupts import Interruptible
from ..tables import number, plain_table
from .console import kept, open_console, progress_bar, sayer
from .options import (
    Device,
    JsonFile,
    ObjectsFileOrRandom,
    Out,
    PoseWeights,
    RandomObjects,
    Seed,
    Settings,
    Size,
    parse_size,
)
from .outputs import Overwrite, claim
from .settings import read_settings


def schedules(
    scenes: Annotated[int, typer.Option(min=1, help="Scenes; one object is registered in each.")] = 500,
    schedules: Annotated[
        str, typer.Option(help="Values of pose.register_schedule: commas between them, '-' between their counts.")
    ] = "full,auto",
    objects_file: ObjectsFileOrRandom = None,
    random_objects: RandomObjects = 48,
    kind: Annotated[
        str, typer.Option(help="Scenes: 'table', or 'crowded': things that touch, of families that no training draws.")
    ] = "table",
    size: Size = "640x480",
    max_loss: Annotated[
        float | None, typer.Option(min=0, help="Exit 1 if ADD-S recall falls more points below the first schedule's.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    weights: PoseWeights = "default",
    setting: Settings = None,
    out: Out = Path("out/schedules"),
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Schedules of registration against each other, on the same masks of the same generated scenes."""
    from ..config import from_flat
    from ..device import resolve_device
    from ..evaluate.attempts import attempt_row
    from ..evaluate.schedule_compare import CompareSettings, compare_schedules, too_lossy
    from ..process import prepare_process

    console = open_console()
    say = sayer(console)
    asked = CompareSettings(
        parse_schedules(schedules), scenes, random_objects, parse_size(size), seed, objects_file, kind
    )
    config = read_settings(None, setting or [], None, from_flat({"device": device, "pose.weights": weights}))
    prepare_process(resolve_device(config.device))
    names = () if json_file else ("result.json",)
    outputs = claim("evaluate schedules", out, names, json_file, overwrite=overwrite)
    with progress_bar(console) as progress, Interruptible() as stop:
        task = progress.add_task("scenes", total=scenes)
        result = compare_schedules(config, asked, lambda done, _: progress.update(task, completed=done), stop.stop)
    console.print(_table(result))
    if result["captures_while_measuring"]:
        say(
            f"{result['captures_while_measuring']} graphs were captured while measuring: the times are not to be trusted"
        )
    attempts = {name: [attempt_row(a) for a in of] for name, of in result["attempts"].items()}
    path = outputs.write({**result, "attempts": attempts})
    kept(stop, result["scenes"], scenes, "scenes", path)
    say(f"written: {path}")
    if max_loss is not None and (lossy := too_lossy(result, max_loss)):
        say(f"ADD-S recall more than {max_loss:g} points below that of {result['against']}: {' '.join(lossy)}")
        raise typer.Exit(1)


def parse_schedules(text: str) -> tuple[str, ...]:
    """ "full,auto,252-64-16" -> ("full", "auto", "252,64,16"), as pose.register_schedule takes them."""
    return tuple(part.strip().replace("-", ",") for part in text.split(","))


def _table(result: Mapping[str, Any]) -> Table:
    """A column for each schedule: there are few of them and many figures."""
    first = result["against"]
    title = f"{result['scenes']} scenes, {result['device']}, {result['pose_backend']}"
    table = plain_table(title, "", *result["schedules"])

    def row(label: str, digits: int, *path: str) -> None:
        table.add_row(label, *(number(_at(f, path), digits) for f in result["schedules"].values()))

    def against(label: str, criterion: str, key: str, form: str) -> None:
        rows = result["differences"]
        table.add_row(label, *("" if n == first else f"{rows[n][criterion][key]:{form}}" for n in result["schedules"]))

    for percentile in ("p50", "p95"):
        row(f"ms {percentile}, {result['hypotheses_timed']} hypotheses", 1, "milliseconds", percentile)
    table.add_section()
    for criterion, title in (("adds", "ADD-S"), ("add", "ADD")):
        row(f"{title} recall at 0.1 d", 3, f"{criterion}_recall_0.1d")
        if len(result["schedules"]) > 1:
            against("  points", criterion, "points", "+.1f")
            against("  right only here", criterion, "only_other", "d")
            against(f"  right only in {first}", criterion, "only_first", "d")
            against("  p of the difference", criterion, "p", ".3f")
    table.add_section()
    for key, title in (("adds_mm", "ADD-S mm"), ("translation_error_mm", "mm"), ("rotation_error_deg", "deg")):
        for part in ("mean", "p50"):
            row(f"{title} {part}", 1, key, part)
    row("refused", 0, "refused")
    table.add_section()
    drift = result["drift"]
    for key, title in (("translation_error_mm", "mm"), ("rotation_error_deg", "deg")):
        figures = [number(drift[key][p], 1) for p in ("p50", "p90")]
        table.add_row(f"drift from the truth, {title} p50, p90", ", ".join(figures))
    return table


def _at(tree: Any, path: Sequence[str]) -> float | None:
    for key in path:
        tree = tree[key]
    return None if tree is None else float(tree)
