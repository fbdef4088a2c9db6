"""``validate pose``: hold a faster way to run the pose networks against FP32 eager, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..evaluate.compare import MAX_DEG, MAX_MM
from ..interrupts import Interruptible
from ..tables import plain_table
from .console import kept, open_console, progress_bar
from .options import Device, ObjectsFile, PoseWeights, Seed, Settings, Size, parse_size
from .outputs import AlsoJson, Overwrite, claim
from .settings import read_settings


def pose(
    source: Annotated[Path | None, typer.Argument(help="Recording, or a folder in BOP layout.")] = None,
    backend: Annotated[str, typer.Option(help="The backend to check.")] = "auto",
    reference: Annotated[str, typer.Option(help="The backend that it is held against.")] = "eager",
    synth: Annotated[int, typer.Option(min=0, help="Instead of a source: frames of a plain generated scene.")] = 0,
    size: Size = "1280x720",
    split: Annotated[str, typer.Option(help="Split of a BOP folder.")] = "test",
    objects_file: ObjectsFile = None,
    weights: PoseWeights = "default",
    setting: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    frames: Annotated[int | None, typer.Option(min=1, help="Use the first frames only.")] = None,
    register_every: Annotated[int, typer.Option(min=1, help="Compare registrations every n-th frame.")] = 10,
    max_mm: Annotated[float, typer.Option(min=0, help="Accepted p95 of translation differences [mm].")] = MAX_MM,
    max_deg: Annotated[float, typer.Option(min=0, help="Accepted p95 of rotation differences [deg].")] = MAX_DEG,
    json_file: AlsoJson = None,
    overwrite: Overwrite = False,
) -> None:
    """Hold a faster way to run the pose networks against FP32 eager. Exits 1 when it differs too much, 2 when it cannot run."""

    from ..config import from_flat
    from ..device import resolve_device
    from ..evaluate.bench_rows import EstimatorRow
    from ..evaluate.networks import load_networks
    from ..evaluate.validate_pose import Comparison, Tap, open_source
    from ..pose.mesh import load_object
    from ..process import prepare_process

    console = open_console()
    if (source is None) == (synth == 0):
        raise typer.BadParameter("name a recording or BOP folder, or --synth N")
    asked = from_flat({"device": device, "pose.weights": weights})
    config = read_settings(None, setting or [], objects_file, asked)
    place = prepare_process(resolve_device(config.device), tf32=False)  # the reference is to be FP32
    specs, views, total = open_source(source, split, synth, parse_size(size), config, place, seed)
    loaded = load_networks(config.pose.weights, False)
    models = [load_object(spec) for spec in specs]
    rows = [EstimatorRow(r, models, loaded, config, place, tap) for r, tap in ((reference, Tap), (backend, None))]
    outputs = claim("validate pose", json_file=json_file, overwrite=overwrite)
    comparison = Comparison(rows[0], rows[1], config)
    count = min(total, frames or total)
    with progress_bar(console, transient=True) as progress, Interruptible() as stop:
        task = progress.add_task("validate", total=count)
        for index, view in enumerate(views):
            if index >= count or stop.requested:
                break
            comparison.feed(view, register_again=index % register_every == 0)
            progress.update(task, advance=1)
    result = comparison.result(max_mm, max_deg)
    result |= {"reference": rows[0].ran, "backend": rows[1].ran, "weights": loaded.description, "device": str(place)}
    if json_file is not None:
        outputs.write(result)
    show(console, result)
    kept(stop, result["frames"], count, "frames", json_file or Path("the table above"))
    if not result["passed"]:
        raise typer.Exit(1)


def show(console: Console, result: Mapping[str, Any]) -> None:
    """Table and verdict."""
    title = f"{result['backend']} against {result['reference']}, {result['device']}"
    columns = ("", "compared", "mm p50", "mm p95", "mm max", "deg p50", "deg p95", "deg max")
    table = plain_table(title, *columns)
    for name in ("track", "track_step", "register"):
        part = result[name]
        cells = [f"{part[u][p]:.4f}" for u in ("mm", "deg") for p in ("p50", "p95", "max")] if part["count"] else []
        table.add_row(name.replace("_", ", one "), str(part["count"]), *cells)
    console.print(table)
    order = result["score_order"]
    if order["compared"]:
        console.print(
            f"score order: another winner in {order['winner_changed']} of {order['compared']} registrations, "
            f"{order['pairs_swapped_mean']:.2%} of pairs swapped"
        )
    console.print(
        f"lost: {result['lost']['other']} (reference {result['lost']['reference']}) in {result['frames']} frames"
    )
    if result["passed"]:
        limits = result["limits"]
        console.print(f"within {limits['mm']} mm and {limits['deg']} deg (p95)", style="green")
    else:
        console.print("; ".join(result["reasons"]), markup=False, style="red")
