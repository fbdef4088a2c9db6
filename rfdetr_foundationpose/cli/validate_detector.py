"""``validate detector``: hold a faster way to run RF-DETR against its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..backends import DETECTOR
from ..config import DetectorConfig
from .console import open_console
from .options import Device, ObjectsFile, Seed


def validate(
    images: Annotated[int, typer.Option(min=1, help="Generated images to compare on.")] = 200,
    backend: Annotated[
        str, typer.Option(help=f"The way to run RF-DETR that is checked: {', '.join(DETECTOR.choices)}.")
    ] = "auto",
    weights: Annotated[str, typer.Option(help="'default', 'published', or a checkpoint path.")] = "default",
    variant: Annotated[str, typer.Option(help="RF-DETR variant where the weights do not name one.")] = "nano",
    objects_file: ObjectsFile = None,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Score above which a detection counts.")
    ] = DetectorConfig.threshold,
    device: Device = "auto",
    seed: Seed = 2_000_003,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the result there.")] = None,
) -> None:
    """Hold a faster way to run RF-DETR against FP32 predict(). Exits with 1 when they differ too much."""
    from ..device import resolve_device
    from ..evaluate.detector_validate import validate_detector
    from ..objects import load_objects
    from ..process import prepare_process
    from ..replay.result import write_json
    from ..resources import default_objects_file

    if backend not in DETECTOR.choices:
        raise typer.BadParameter(f"--backend {backend} is unknown; use one of {', '.join(DETECTOR.choices)}")
    open_console()
    result = validate_detector(
        load_objects(objects_file or default_objects_file()),
        backend=backend,
        weights=weights,
        variant=variant,
        threshold=threshold,
        images=images,
        device=prepare_process(resolve_device(device)),
        seed=seed,
    )
    if json_file is not None:
        write_json(json_file, result.as_dict())
    typer.echo(result.table())
    raise typer.Exit(0 if result.passed else 1)
