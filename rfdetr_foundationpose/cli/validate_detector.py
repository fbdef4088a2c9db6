"""``validate detector``: hold a faster way to run RF-DETR against its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..backends import DETECTOR
from ..config import DetectorConfig
from ..interrupts import Interruptible
from .console import kept, open_console
from .options import Device, ObjectsFile, Seed
from .outputs import AlsoJson, Overwrite, claim


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
    json_file: AlsoJson = None,
    overwrite: Overwrite = False,
) -> None:
    """Hold a faster way to run RF-DETR against FP32 predict(). Exits with 1 when they differ too much."""
    from ..config import DetectorConfig
    from ..device import resolve_device
    from ..evaluate.detector_validate import validate_detector
    from ..objects import load_objects
    from ..process import prepare_process
    from ..resources import default_objects_file

    open_console()
    if backend not in DETECTOR.choices:
        raise typer.BadParameter(f"--backend {backend} is unknown; use one of {', '.join(DETECTOR.choices)}")
    specs = load_objects(objects_file or default_objects_file())
    outputs = claim("validate detector", json_file=json_file, overwrite=overwrite)
    with Interruptible() as stop:
        result = validate_detector(
            specs,
            DetectorConfig(weights=weights, variant=variant, backend=backend, threshold=threshold),
            prepare_process(resolve_device(device)),
            images=images,
            seed=seed,
            stop=stop.stop,
        )
    if json_file is not None:
        outputs.write(result.as_dict())
    typer.echo(result.table())
    kept(stop, result.images, images, "images", json_file or Path("the table above"))
    raise typer.Exit(0 if result.passed else 1)
