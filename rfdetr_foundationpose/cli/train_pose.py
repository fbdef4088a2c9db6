"""``train refiner`` and ``train scorer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..pose.checkpoints import find
from ..resources import models_dir
from ..train.train_pose import TrainSettings, train

Out = Annotated[
    Path, typer.Option(help="Folder of checkpoint, metrics and weights; an interrupted training resumes there.")
]
Minutes = Annotated[float, typer.Option(help="Budget of the whole schedule, over all calls.")]
StopAfter = Annotated[float, typer.Option(help="Minutes after which this call saves and ends.")]
Width = Annotated[float, typer.Option(help="Network width; 1 is the official architecture.")]
Batch = Annotated[int, typer.Option(help="Pairs a step.")]
Objects = Annotated[int, typer.Option(help="Random objects to train on.")]
Rate = Annotated[float, typer.Option(help="Highest learning rate; 0 takes the role's own.")]
Device = Annotated[str, typer.Option(help="Compute device.")]
Seed = Annotated[int, typer.Option(help="Seed of objects and pairs.")]
Compile = Annotated[bool, typer.Option(help="Run the network through torch.compile.")]


def refiner(
    out: Out = Path("out/train"),
    minutes: Minutes = 10.0,
    stop_after: StopAfter = 10.0,
    width: Width = 0.5,
    batch: Batch = 512,
    objects: Objects = 1000,
    learning_rate: Rate = 0.0,
    device: Device = "cuda",
    seed: Seed = 0,
    compile: Compile = False,
) -> None:
    """Train the pose refiner on generated pairs."""
    settings = TrainSettings(
        "refiner",
        out,
        minutes,
        stop_after,
        width,
        batch,
        objects=objects,
        learning_rate=learning_rate,
        device=device,
        seed=seed,
        compile=compile,
    )
    train(settings, typer.echo)


def scorer(
    out: Out = Path("out/train"),
    minutes: Minutes = 10.0,
    stop_after: StopAfter = 10.0,
    width: Width = 0.5,
    batch: Batch = 512,
    hypotheses: Annotated[int, typer.Option(help="Hypotheses of one observation that are ranked together.")] = 32,
    objects: Objects = 1000,
    learning_rate: Rate = 0.0,
    device: Device = "cuda",
    seed: Seed = 0,
    compile: Compile = False,
    refine: Annotated[bool, typer.Option(help="Rank hypotheses after refinement, as registration does.")] = True,
    refiner: Annotated[str, typer.Option(help="Weights that refine: 'default' or a file.")] = "default",
) -> None:
    """Train the pose scorer on generated hypotheses."""
    weights = find(models_dir() / "pose", "refiner") if refiner == "default" else Path(refiner)
    settings = TrainSettings(
        "scorer",
        out,
        minutes,
        stop_after,
        width,
        batch,
        hypotheses,
        objects,
        learning_rate,
        device,
        seed,
        compile,
        weights if refine else None,
    )
    train(settings, typer.echo)
