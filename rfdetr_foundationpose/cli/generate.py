"""``generate``: recordings and data sets with ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import open_console, progress_bar
from .options import Device, Objects, ObjectsFile, Seed, Size, parse_names, parse_size

if TYPE_CHECKING:
    from ..synth.video import VideoSettings

Out = Annotated[Path, typer.Option(help="Folder to write; must not exist for a recording.")]
Speed = Annotated[float, typer.Option(min=0.001, help="Largest speed of a target in the camera frame [m/s].")]
Turn = Annotated[float, typer.Option(min=0.1, help="Largest turning rate of a target in the camera frame [deg/s].")]


def recording(
    out: Out = Path("out/recording"),
    frames: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 300,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames a second [Hz].")] = 30.0,
    size: Size = "640x480",
    seed: Seed = 0,
    objects: Objects = "",
    objects_file: ObjectsFile = None,
    max_speed: Speed = 0.30,
    max_turn: Turn = 60.0,
    distractors: Annotated[int, typer.Option(min=0, help="Other objects on the table.")] = 5,
    compressed: Annotated[str, typer.Option(help="jpeg or png: compressed image topics; empty: raw.")] = "",
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
    device: Device = "auto",
) -> None:
    """A rosbag2 recording of a moving camera over a table with moving objects, ground truth included."""
    from ..device import resolve_device
    from ..process import prepare_process
    from ..synth.generate import generate_recording, load_scene_objects

    settings = _settings(frames, rate, size, seed, objects, max_speed, max_turn, distractors)
    with progress_bar(open_console()) as progress:
        task = progress.add_task("recording", total=frames)
        generate_recording(
            out,
            load_scene_objects(objects_file, settings.targets),
            settings,
            device=str(prepare_process(resolve_device(device))),
            compressed=compressed or None,
            storage=storage,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    typer.echo(f"wrote {frames} frames to {out}")


def bop(
    out: Out = Path("out/bop"),
    scenes: Annotated[int, typer.Option(min=1, help="Number of scenes; each has its own seed.")] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Images a scene.")] = 100,
    size: Size = "640x480",
    seed: Seed = 0,
    objects: Objects = "",
    objects_file: ObjectsFile = None,
    distractors: Annotated[int, typer.Option(min=0, help="Other objects on the table.")] = 5,
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
    with progress_bar(open_console()) as progress:
        models = load_scene_objects(objects_file, settings.targets)
        ids = write_models(out, models)
        task = progress.add_task("bop", total=scenes * frames)
        for i in range(scenes):
            scene = replace(settings, seed=seed + i)
            write_scene(
                out / split / f"{i:06d}",
                generate_frames(models, scene, device=str(prepare_process(resolve_device(device)))),
                ids,
                lambda done, i=i: progress.update(task, completed=i * frames + done),  # type: ignore[misc]
            )
    typer.echo(f"wrote {scenes} scenes of {frames} images to {out}")


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
    with progress_bar(open_console()) as progress:
        models = load_scene_objects(objects_file, parse_names(objects))
        task = progress.add_task("coco", total=train + valid)
        sampler = SceneSampler(models, prepare_process(resolve_device(device)), height_width, seed)
        write_coco(
            out,
            sampler,
            {"train": train, "valid": valid},
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    typer.echo(f"wrote {train} training and {valid} validation images to {out}")


def objects(
    out: Out = Path("models/demo"),
    objects_file: Annotated[Path | None, typer.Option(help="Also write an objects.yaml that lists them.")] = None,
) -> None:
    """The demo's object meshes as GLB files."""
    from ..synth.demo_objects import write_demo_objects

    for path in write_demo_objects(out, objects_file):
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
