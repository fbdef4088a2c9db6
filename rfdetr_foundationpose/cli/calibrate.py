"""``calibrate``: fit the confidence to the weights in use, and show how well it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..interrupts import Interruptible
from ..tables import plain_table
from .console import kept, open_console, progress_bar, sayer
from .options import Device, Objects, ObjectsFileOrRandom, PoseWeights, Seed, named
from .outputs import Overwrite, claim

LEAST_SCENES = 10
"""Half of fewer say nothing about the other half."""


def calibrate(
    scenes: Annotated[int, typer.Option(min=LEAST_SCENES, help="Generated scenes, each with one object.")] = 100,
    objects_file: ObjectsFileOrRandom = None,
    objects: Objects = "",
    seed: Seed = 77,
    device: Device = "auto",
    weights: PoseWeights = "default",
    out: Annotated[Path, typer.Option(help="Folder of confidence.json, which is to be put beside the weights.")] = Path(
        "out/calibration"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Fit the confidence on half of the generated scenes and show its reliability on the other half."""
    from ..config import from_flat
    from ..device import resolve_device
    from ..evaluate.calibrate import collect, reliability
    from ..evaluate.networks import load_networks
    from ..pose import confidence
    from ..process import prepare_process
    from ..synth.specs import specs_or_random

    console = open_console()
    say = sayer(console)
    config = from_flat({"device": device, "pose.weights": weights})
    prepare_process(resolve_device(config.device))
    load_networks(weights, official_size=False)  # says now, not after objects were made, that they cannot be used
    outputs = claim("calibrate", out, (confidence.FILE_NAME,), overwrite=overwrite)
    seeds = range(seed * 10_000, seed * 10_000 + scenes)
    with (
        specs_or_random(objects_file, seeds) as specs,
        progress_bar(console) as progress,
        Interruptible() as stop,
    ):
        task = progress.add_task("track", total=scenes)
        samples = collect(
            config,
            named(specs, objects),
            scenes,
            seed,
            lambda done, _: progress.update(task, completed=done),
            stop.stop,
        )
    done = len(np.unique(samples.scene))
    if done < LEAST_SCENES:
        say(f"interrupted after {done} of {scenes} scenes, too few to fit ({LEAST_SCENES}): nothing to keep")
        raise typer.Exit(stop.status)
    fitted_on = samples.scene % 2 == 0
    half = confidence.fit(samples.features[fitted_on], samples.right[fitted_on])
    held_out, right = half.probability(samples.features[~fitted_on]), samples.right[~fitted_on]
    rows = reliability(held_out, right)
    title = f"held-out scenes: {len(right)} poses, {right.mean():.0%} right"
    table = plain_table(title, "confidence", "poses", "right", left=0)
    for row in rows:
        table.add_row(f"{row['confidence']:.2f}", f"{row['count']:.0f}", f"{row['right']:.2f}")
    console.print(table)
    brier = float(np.square(held_out - right).mean())
    error = float(sum(r["count"] * abs(r["confidence"] - r["right"]) for r in rows) / len(right))
    order = held_out[right][:, None] > held_out[~right][None]
    auc = float(order.mean()) if order.size else None
    shown = "no AUC: all poses are alike" if auc is None else f"AUC {auc:.3f}"
    console.print(f"Brier score {brier:.3f}, expected calibration error {error:.3f}, {shown}")
    flipped = held_out[samples.flipped[~fitted_on]]
    if len(flipped):
        console.print(
            f"{len(flipped)} poses lie where the object is, but flipped: mean confidence {flipped.mean():.2f}, "
            f"{(flipped > 0.5).mean():.0%} above 0.5"
        )
    final = confidence.fit(samples.features, samples.right)
    quality = {
        "scenes": done,
        "poses": len(right),
        "brier": brier,
        "calibration_error": error,
        "auc": auc,
        "flipped": {
            "poses": len(flipped),
            "confidence": float(flipped.mean()) if len(flipped) else None,
        },
        "reliability": rows,
    }
    path = outputs.write(final.to_json() | {"held_out": quality}, confidence.FILE_NAME)
    kept(stop, done, scenes, "scenes", path)
    say(f"written: {path}")
