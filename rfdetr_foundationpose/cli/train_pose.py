"""``train refiner`` and ``train scorer``."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..device import resolve_device
from ..interrupts import Interruptible
from ..pose.checkpoints import find
from ..resources import models_dir
from ..train.pair_scenes import SceneEffects
from ..train.pair_sensors import SensorEffects
from ..train.train_pose import TrainSettings, train
from .console import kept, open_console
from .outputs import Overwrite, claim

Out = Annotated[Path, typer.Option(help="Folder of weights and metrics; a training resumes from the weights there.")]
Minutes = Annotated[float, typer.Option(help="Budget of the whole schedule, over all calls.")]
StopAfter = Annotated[float, typer.Option(help="Minutes after which this call saves and ends.")]
Width = Annotated[float, typer.Option(help="Network width; 1 is the official architecture.")]
Batch = Annotated[int, typer.Option(help="Pairs a step, of each device.")]
Objects = Annotated[int, typer.Option("--random-objects", help="Random objects held at a time, on each device.")]
Refresh = Annotated[float, typer.Option(help="Seconds after which an eighth of them is replaced by new ones.")]
Workers = Annotated[int, typer.Option(help="Processes that make objects, for each device.")]
Rate = Annotated[float, typer.Option(help="Highest learning rate; 0 takes the role's own.")]
Device = Annotated[str, typer.Option(help="Compute device; under torchrun each process takes its own.")]
Seed = Annotated[int, typer.Option(help="Seed of objects and pairs.")]
Compile = Annotated[
    float,
    typer.Option(
        "--compile-seconds", help="Seconds that torch.compile may take before it is given up; 0: no compiling."
    ),
]
Start = Annotated[
    str,
    typer.Option(
        help="Weights to begin from where --out has none: 'none', 'default' or a file. Half as wide ones are widened."
    ),
]
Without = Annotated[
    str, typer.Option(help="Effects of scenes and sensors to leave out, with commas: crowd, hand, shift, ... or 'all'.")
]


def refiner(
    out: Out = Path("out/train"),
    minutes: Minutes = 10.0,
    stop_after: StopAfter = 10.0,
    width: Width = 0.5,
    batch: Batch = 512,
    objects: Objects = 2048,
    refresh: Refresh = 20.0,
    workers: Workers = 4,
    learning_rate: Rate = 0.0,
    device: Device = "cuda",
    seed: Seed = 0,
    compile: Compile = 0.0,
    weights: Start = "none",
    without: Without = "",
    overwrite: Overwrite = False,
) -> None:
    """Train the pose refiner on generated pairs; with torchrun on several devices."""
    _train("refiner", **locals())


def first_pass(
    out: Out = Path("out/train"),
    minutes: Minutes = 10.0,
    stop_after: StopAfter = 10.0,
    width: Width = 0.5,
    batch: Batch = 2048,
    objects: Objects = 2048,
    refresh: Refresh = 20.0,
    workers: Workers = 4,
    learning_rate: Rate = 0.0,
    device: Device = "cuda",
    seed: Seed = 0,
    compile: Compile = 0.0,
    weights: Start = "default",
    without: Without = "",
    overwrite: Overwrite = False,
) -> None:
    """Train the refiner of small crops that moves all hypotheses of a registration once; by default it begins from the refiner."""
    _train("first_pass", **locals())


def scorer(
    out: Out = Path("out/train"),
    minutes: Minutes = 10.0,
    stop_after: StopAfter = 10.0,
    width: Width = 0.5,
    batch: Batch = 512,
    hypotheses: Annotated[int, typer.Option(help="Hypotheses of one observation that are ranked together.")] = 32,
    objects: Objects = 2048,
    refresh: Refresh = 20.0,
    workers: Workers = 4,
    learning_rate: Rate = 0.0,
    device: Device = "cuda",
    seed: Seed = 0,
    compile: Compile = 0.0,
    weights: Start = "none",
    without: Without = "",
    overwrite: Overwrite = False,
    refiner: Annotated[
        str, typer.Option(help="Weights that refine hypotheses before they are ranked: 'none', 'default' or a file.")
    ] = "default",
) -> None:
    """Train the pose scorer on generated hypotheses; with torchrun on several devices."""
    _train("scorer", **locals())


def _train(
    role: str, *, out: Path, weights: str, without: str, overwrite: bool, refiner: str = "none", **settings: Any
) -> None:
    """settings: the options that are called as they are in TrainSettings."""
    scene, sensor = _effects(without)
    asked = TrainSettings(
        role,
        out,
        start=_weights(weights, "scorer" if role == "scorer" else "refiner"),
        refiner=_weights(refiner, "refiner"),
        scene=scene,
        sensor=sensor,
        **settings,
    )
    resolve_device(asked.device)
    claim(f"train {role}", out, (f"{role}.safetensors", f"{role}.jsonl"), overwrite=overwrite)
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun one process speaks for all
        open_console()
    stop = Interruptible()
    metrics = train(asked, stop)
    kept(stop, int(metrics.get("step", 0)), None, "steps", out)


def _weights(value: str, role: str) -> Path | None:
    if value == "none":
        return None
    if value == "default":
        return find(models_dir() / "pose", role)
    if not Path(value).is_file():
        raise typer.BadParameter(f"{value} is no file; name weights, 'default' or 'none'")
    return Path(value)


def _effects(without: str) -> tuple[SceneEffects, SensorEffects]:
    """Raises typer.BadParameter for a name that is none."""
    scene, sensor = SceneEffects(), SensorEffects()
    known: dict[str, object] = {f.name: kind for kind in (scene, sensor) for f in fields(kind)}
    names = [name.strip() for name in without.split(",") if name.strip()]
    if names == ["all"]:
        names = list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"--without {unknown[0]}: no such effect; there are {', '.join(known)} and all")
    off = [{name: 0.0 for name in names if known[name] is kind} for kind in (scene, sensor)]
    return replace(scene, **off[0]), replace(sensor, **off[1])
