"""``generate``: recordings and data sets with ground truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..interrupts import Interruptible, Watch
from .console import kept, open_console, progress_bar, sayer
from .options import Device, Objects, ObjectsFile, Seed, Size, parse_names, parse_size
from .outputs import fresh

if TYPE_CHECKING:
    from ..synth.video import VideoSettings

MOST_DISTRACTORS = 200
Out = Annotated[Path, typer.Option(help="Folder to write, which must not hold anything yet.")]
Distractors = Annotated[int, typer.Option(min=0, max=MOST_DISTRACTORS, help="Other objects on the table.")]
Speed = Annotated[float, typer.Option(min=0.001, max=10.0, help="Largest speed of a target in the camera frame [m/s].")]
Turn = Annotated[
    float, typer.Option(min=0.1, max=3600.0, help="Largest turning rate of a target in the camera frame [deg/s].")
]


def recording(
    out: Out = Path("out/recording"),
    frames: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 300,
    fps: Annotated[float, typer.Option(min=0.1, max=1000.0, help="Frames a second [Hz].")] = 30.0,
    size: Size = "640x480",
    seed: Seed = 0,
    objects: Objects = "",
    objects_file: ObjectsFile = None,
    max_speed: Speed = 0.30,
    max_turn: Turn = 60.0,
    distractors: Distractors = 5,
    compressed: Annotated[str, typer.Option(help="jpeg or png: compressed image topics; empty: raw.")] = "",
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
    device: Device = "auto",
) -> None:
    """A rosbag2 recording of a moving camera over a table with moving objects, ground truth included."""
    from ..device import resolve_device
    from ..process import prepare_process
    from ..synth.generate import generate_recording, load_scene_objects

    settings = _settings(frames, fps, size, seed, objects, max_speed, max_turn, distractors)
    models = load_scene_objects(objects_file, settings.targets)
    place = prepare_process(resolve_device(device))
    fresh(out, absent=True)
    console = open_console()
    say = sayer(console)
    with progress_bar(console) as progress, Interruptible() as stop:
        task = progress.add_task("recording", total=frames)
        written = generate_recording(
            out,
            models,
            settings,
            device=str(place),
            compressed=compressed or None,
            storage=storage,
            watch=Watch(lambda done, total: progress.update(task, completed=done, total=total), stop.stop),
        )
    kept(stop, written, frames, "frames", out)
    say(f"wrote {written} frames to {out}")


def bop(
    out: Out = Path("out/bop"),
    scenes: Annotated[int, typer.Option(min=1, help="Number of scenes; each has its own seed.")] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Images a scene.")] = 100,
    size: Size = "640x480",
    seed: Seed = 0,
    objects: Objects = "",
    objects_file: ObjectsFile = None,
    distractors: Distractors = 5,
    split: Annotated[str, typer.Option(help="Name of the split folder.")] = "test",
    device: Device = "auto",
) -> None:
    """A data set in BOP layout: models in millimetres, scenes with poses and visible masks."""
    from dataclasses import replace

    from ..device import resolve_device
    from ..process import prepare_process
    from ..synth.bop import write_models, write_scene
    from ..synth.generate import generate_frames, load_scene_objects

    settings = _settings(frames, 30.0, size, seed, objects, 0.30, 60.0, distractors)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", split):
        raise typer.BadParameter(f"--split={split!r} must be the name of a folder: letters, digits, '_' and '-'")
    models = load_scene_objects(objects_file, settings.targets)
    place = prepare_process(resolve_device(device))
    fresh(out)
    console = open_console()
    say = sayer(console)
    ids = write_models(out, models)
    written = 0
    with progress_bar(console) as progress, Interruptible() as stop:
        task = progress.add_task("bop", total=scenes * frames)
        for i in range(scenes):
            written += write_scene(
                out / split / f"{i:06d}",
                generate_frames(models, replace(settings, seed=seed + i), device=str(place), stop=stop.stop),
                ids,
                lambda done, i=i: progress.update(task, completed=i * frames + done),  # type: ignore[misc]
                stop.stop,
            )
            if stop.requested:
                break
    kept(stop, written, scenes * frames, "images", out)
    say(f"wrote {scenes} scenes of {frames} images to {out}")


def coco(
    out: Out = Path("out/coco"),
    train: Annotated[int, typer.Option(min=0, help="Training images.")] = 1000,
    valid: Annotated[int, typer.Option(min=0, help="Validation images.")] = 200,
    size: Size = "640x480",
    seed: Seed = 0,
    objects: Objects = "",
    objects_file: ObjectsFile = None,
    device: Device = "auto",
) -> None:
    """A detector data set in COCO layout: random scenes, boxes and polygons."""
    from ..device import resolve_device
    from ..process import prepare_process
    from ..synth.coco import write_coco
    from ..synth.generate import load_scene_objects
    from ..synth.scene import SceneSampler

    height_width = parse_size(size)
    models = load_scene_objects(objects_file, parse_names(objects))
    sampler = SceneSampler(models, prepare_process(resolve_device(device)), height_width, seed)
    fresh(out)
    console = open_console()
    say = sayer(console)
    with progress_bar(console) as progress, Interruptible() as stop:
        task = progress.add_task("coco", total=train + valid)
        written = write_coco(
            out,
            sampler,
            {"train": train, "valid": valid},
            watch=Watch(lambda done, total: progress.update(task, completed=done, total=total), stop.stop),
        )
    kept(stop, written, train + valid, "images", out)
    say(f"wrote {train} training and {valid} validation images to {out}")


def objects(out: Out = Path("out/objects")) -> None:
    """The demo's object meshes as GLB files, and an objects.yaml that lists them."""
    from ..synth.demo_objects import write_demo_objects

    fresh(out)
    for path in (*write_demo_objects(out, out / "objects.yaml"), out / "objects.yaml"):
        typer.echo(f"wrote {path}")


def _settings(
    frames: int, rate: float, size: str, seed: int, objects: str, max_speed: float, max_turn: float, distractors: int
) -> VideoSettings:
    from ..synth.video import VideoSettings

    try:
        return VideoSettings(
            frames=frames,
            rate=rate,
            size=parse_size(size),
            seed=seed,
            targets=parse_names(objects),
            max_speed=max_speed,
            max_turn=max_turn,
            distractors=distractors,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
