"""``train detector``: train RF-DETR on generated scenes or on a COCO data set."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..interrupts import status_of
from .console import open_console
from .options import Device, ObjectsFile, Seed
from .outputs import Overwrite, claim


class Masks(str, Enum):
    """Whether masks are learned; see TrainSettings."""

    auto = "auto"
    yes = "yes"
    no = "no"
    only = "only"


def train(
    out: Annotated[
        Path, typer.Option(help="Folder of weights, state, metrics and pictures; a training found there goes on.")
    ] = Path("out/train"),
    objects_file: ObjectsFile = None,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Minutes of training, over all calls; rendering and evaluation come on top.")
    ] = 9.0,
    stop_after: Annotated[
        float, typer.Option(min=0.0, help="Save and end this call after so many minutes; 0: when --minutes are done.")
    ] = 0.0,
    dataset: Annotated[
        str, typer.Option(help="COCO folder (train/, valid/) to learn from instead of rendered scenes.")
    ] = "",
    start: Annotated[
        str, typer.Option(help="'default' (shipped weights), 'published' (RF-DETR's), 'random', or a checkpoint path.")
    ] = "default",
    variant: Annotated[str, typer.Option(help="RF-DETR variant of a --start that does not name one.")] = "nano",
    resolution: Annotated[
        int, typer.Option(min=0, max=1024, help="Network input in pixels, a multiple of 32; 0: as the start has it.")
    ] = 0,
    batch: Annotated[
        int, typer.Option(min=0, help="Images in a training step; 0: what the device's memory holds, 8 on a CPU.")
    ] = 0,
    masks: Annotated[
        Masks,
        typer.Option(
            help="Learn masks beside boxes. auto: where the data has outlines, as rendered scenes do; only: masks alone, for a "
            "--start that finds the objects' boxes, which stay as they are.",
        ),
    ] = Masks.auto,
    groups: Annotated[int, typer.Option(min=1, max=13, help="Query groups that learn side by side.")] = 9,
    learning_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Peak learning rate; 0: chosen by start and batch.")
    ] = 0.0,
    crossed: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the scenes in which a bar cuts an object in two.")
    ] = 0.3,
    pool: Annotated[int, typer.Option(min=0, help="Rendered scenes kept on the device; 0: what its memory holds.")] = 0,
    render_share: Annotated[
        float, typer.Option(min=0.0, max=4.0, help="Seconds of rendering new scenes to a second of training.")
    ] = 0.25,
    evaluation_scenes: Annotated[
        int, typer.Option(min=0, help="Held-out scenes of the final measurement; 0: 400 on a GPU, 60 on a CPU.")
    ] = 0,
    least_steps: Annotated[int, typer.Option(min=1, help="Weights of fewer steps are not written.")] = 100,
    device: Device = "auto",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    compile_network: Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")] = False,
) -> None:
    """Train RF-DETR to find the objects of an objects.yaml, on rendered scenes of them, or on a COCO data set."""
    from ..device import resolve_device
    from ..objects import load_objects
    from ..pose.mesh import load_object
    from ..process import prepare_process
    from ..resources import default_objects_file
    from ..train.detector_trainer import TrainSettings
    from ..train.train_detector import OUTPUT_FILES, WEIGHTS
    from ..train.train_detector import train as run

    if resolution % 32:
        raise typer.BadParameter(f"--resolution {resolution} must be a multiple of 32")
    specs = [] if dataset else load_objects(objects_file or default_objects_file())
    settings = TrainSettings(
        out=out,
        minutes=minutes,
        stop_after=stop_after or 1e6,
        start=start,
        variant=variant,
        resolution=resolution,
        dataset=Path(dataset) if dataset else None,
        masks=masks.value,
        groups=groups,
        batch=batch,
        learning_rate=learning_rate,
        device=str(prepare_process(resolve_device(device))),
        seed=seed,
        crossed=crossed,
        pool=pool,
        render_share=render_share,
        evaluation_scenes=evaluation_scenes,
        compile=compile_network,
        least_steps=least_steps,
    )
    console = open_console()
    claim("train detector", out, OUTPUT_FILES, overwrite=overwrite)
    metrics = run(settings, [load_object(spec) for spec in specs], console, labels=[spec.label for spec in specs])
    if metrics is None:
        raise typer.Exit(status_of(KeyboardInterrupt()))
    console.print(training_table(metrics))
    if "mask_iou_p50" in metrics:
        half, most = metrics["mask_iou_p50"], metrics["mask_iou_p10"]
        console.print(f"masks: IoU {half:.3f} p50, {most:.3f} p10", highlight=False)
    for line in (
        f"weights: {out / WEIGHTS}",
        f"look at: {out / 'samples.png'}, {out / 'results.png'}; figures: {out / 'metrics.json'}",
        f"use: pose_node --ros-args -p objects_file:={objects_file or 'objects.yaml'} -p detector.weights:={(out / WEIGHTS).resolve()}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def training_table(metrics: dict[str, Any]) -> Table:
    """Figures of the held-out scenes, a row per class."""
    table = Table(title=f"{metrics['scenes']:.0f} held-out scenes, score 0.5, IoU 0.5", title_justify="left")
    masks = "mask_map_50" in metrics
    columns: tuple[str, ...] = ("class", "instances", "recall", "precision", "AP50", "AP50-95")
    columns += ("mask AP50", "mask AP50-95") if masks else ()
    for column in columns:
        table.add_column(column, justify="left" if column == "class" else "right")
    rows = {
        **metrics["by_class"],
        "all": {
            **metrics,
            **{f"{m}ap_{k}": metrics.get(f"{m}map_{k}") for m in ("", "mask_") for k in ("50", "50_95")},
        },
    }
    keys = ("recall", "precision", "ap_50", "ap_50_95", *(("mask_ap_50", "mask_ap_50_95") if masks else ()))
    for name, found in rows.items():
        cells = [found.get(key) for key in keys]
        table.add_row(name, f"{found['instances']:.0f}", *("–" if v is None else f"{v:.3f}" for v in cells))
    return table
