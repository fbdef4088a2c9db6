"""``train refiner`` and ``train scorer``: the default weights from generated pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[
    Path, typer.Option(help="Folder of weights, checkpoint and metrics; an existing checkpoint is resumed.")
]
Minutes = Annotated[float, typer.Option(min=0.01, help="Minutes of the whole schedule.")]
StopAfter = Annotated[float, typer.Option(min=0.01, help="End this call after so many minutes; the next one resumes.")]
Width = Annotated[float, typer.Option(min=0.05, max=1.0, help="Network width; 1.0 is the official architecture.")]
Batch = Annotated[int, typer.Option(min=2, help="Pairs in a training step.")]
Objects = Annotated[int, typer.Option(min=1, help="Generated objects.")]
Rate = Annotated[float, typer.Option(min=1e-7, max=1.0, help="Peak learning rate.")]
Device = Annotated[str, typer.Option(help="cuda, cuda:0 or cpu.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of objects, pairs and initial weights.")]
Compile = Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")]
DEFAULT_OUT = Path("out/train")


def refiner(
    out: Out = DEFAULT_OUT,
    minutes: Minutes = 10.0,
    stop_after: StopAfter = 10.0,
    width: Width = 0.5,
    batch: Batch = 512,
    objects: Objects = 1000,
    learning_rate: Rate = 6e-4,
    device: Device = "cuda",
    seed: Seed = 0,
    compile_network: Compile = False,
) -> None:
    """Train the pose refiner on generated pairs."""
    from ..synth.train_pose import TrainSettings, train

    settings = TrainSettings(
        role="refiner",
        out=out,
        minutes=minutes,
        stop_after=stop_after,
        width=width,
        batch=batch,
        objects=objects,
        learning_rate=learning_rate,
        device=device,
        seed=seed,
        compile=compile_network,
    )
    train(settings, typer.echo)


def scorer(
    out: Out = DEFAULT_OUT,
    minutes: Minutes = 10.0,
    stop_after: StopAfter = 10.0,
    width: Width = 0.5,
    batch: Batch = 512,
    hypotheses: Annotated[int, typer.Option(min=2, help="Hypotheses ranked together.")] = 32,
    objects: Objects = 1000,
    learning_rate: Rate = 6e-4,
    device: Device = "cuda",
    seed: Seed = 0,
    compile_network: Compile = False,
) -> None:
    """Train the pose scorer on generated hypotheses."""
    from ..synth.train_pose import TrainSettings, train

    settings = TrainSettings(
        role="scorer",
        out=out,
        minutes=minutes,
        stop_after=stop_after,
        width=width,
        batch=batch,
        hypotheses=hypotheses,
        objects=objects,
        learning_rate=learning_rate,
        device=device,
        seed=seed,
        compile=compile_network,
    )
    train(settings, typer.echo)
