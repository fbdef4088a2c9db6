"""``train detector`` and ``validate detector``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..config import BACKENDS, DetectorConfig

Objects = Annotated[str, typer.Option(help="objects.yaml of what is to be found; empty takes the demo's objects.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<index>.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of scenes and initial weights.")]


def train(
    out: Annotated[
        Path, typer.Option(help="Folder of weights, checkpoint and metrics; an existing checkpoint is resumed.")
    ] = Path("out/train"),
    objects_file: Objects = "",
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes of the whole schedule.")] = 9.0,
    stop_after: Annotated[float, typer.Option(min=0.01, help="End this call after so many minutes.")] = 60.0,
    dataset: Annotated[
        str, typer.Option(help="COCO folder (train/, valid/) to learn from instead of rendered scenes.")
    ] = "",
    start: Annotated[str, typer.Option(help="Weights to fine-tune: a checkpoint path; empty starts at random.")] = "",
    resolution: Annotated[int, typer.Option(min=64, max=1024, help="Network input, pixels; a multiple of 32.")] = 384,
    batch: Annotated[int, typer.Option(min=1, help="Images in a training step.")] = 256,
    groups: Annotated[int, typer.Option(min=1, max=13, help="Query groups that learn side by side.")] = 9,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1.0, help="Peak learning rate.")] = 4e-4,
    crossed: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the scenes in which a bar cuts an object in two.")
    ] = 0.3,
    pool: Annotated[int, typer.Option(min=1, help="Rendered scenes kept on the device.")] = 16384,
    render_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the time for new scenes.")] = 0.2,
    evaluation_scenes: Annotated[int, typer.Option(min=1, help="Held-out scenes of the final measurement.")] = 400,
    device: Device = "auto",
    seed: Seed = 0,
    compile_network: Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")] = False,
) -> None:
    """Train RF-DETR on generated scenes of the objects, or on a COCO data set; from random weights or a checkpoint."""
    from ..device import resolve_device
    from ..objects import load_objects
    from ..pose.mesh import load_object
    from ..resources import default_objects_file
    from ..train.train_detector import SMALL_NANO, TrainSettings
    from ..train.train_detector import train as run

    if resolution % 32:
        raise typer.BadParameter(f"--resolution {resolution} must be a multiple of 32")
    specs = [] if dataset else load_objects(objects_file or default_objects_file())
    settings = TrainSettings(
        out=out,
        minutes=minutes,
        stop_after=stop_after,
        config={**SMALL_NANO, "resolution": resolution, "positional_encoding_size": resolution // 16},
        start=Path(start) if start else None,
        dataset=Path(dataset) if dataset else None,
        groups=groups,
        batch=batch,
        learning_rate=learning_rate,
        device=str(resolve_device(device)),
        seed=seed,
        crossed=crossed,
        pool=pool,
        render_share=render_share,
        evaluation_scenes=evaluation_scenes,
        compile=compile_network,
    )
    try:
        run(settings, [load_object(spec) for spec in specs], typer.echo, labels=[spec.label for spec in specs])
    except ValueError as error:  # the rooms' own load errors: each says what to do
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def validate(
    images: Annotated[int, typer.Option(min=1, help="Generated images to compare on.")] = 200,
    backend: Annotated[
        str, typer.Option(help=f"The way to run RF-DETR that is checked: {', '.join(BACKENDS)}.")
    ] = "auto",
    weights: Annotated[str, typer.Option(help="'default', 'published', or a checkpoint path.")] = "default",
    variant: Annotated[str, typer.Option(help="RF-DETR variant where the weights do not name one.")] = "nano",
    objects_file: Objects = "",
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Score above which a detection counts.")
    ] = DetectorConfig.threshold,
    device: Device = "auto",
    seed: Seed = 2_000_003,
    json_file: Annotated[str, typer.Option("--json", help="Also write the result there.")] = "",
) -> None:
    """Hold a faster way to run RF-DETR against FP32 predict(). Exits with 1 when they differ too much."""
    from ..detect.detector import DetectorError
    from ..device import resolve_device
    from ..evaluate.detector_validate import validate_detector
    from ..objects import load_objects
    from ..resources import default_objects_file

    if backend not in BACKENDS:
        raise typer.BadParameter(f"--backend {backend} is unknown; use one of {', '.join(BACKENDS)}")
    try:
        result = validate_detector(
            load_objects(objects_file or default_objects_file()),
            backend=backend,
            weights=weights,
            variant=variant,
            threshold=threshold,
            images=images,
            device=resolve_device(device),
            seed=seed,
            log=typer.echo,
        )
    except DetectorError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if json_file:
        Path(json_file).write_text(json.dumps(result.as_dict(), indent=1) + "\n", encoding="utf-8")
    typer.echo(result.table())
    raise typer.Exit(0 if result.passed else 1)
