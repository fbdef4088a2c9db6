"""``generate``: recordings and data sets with ground truth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from ..synth.video import VideoSettings

app = typer.Typer(help="Generate objects, recordings and data sets with ground truth.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Folder to write; must not exist for a recording.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same data.")]
Size = Annotated[str, typer.Option(help="Image size, WIDTHxHEIGHT in pixels.")]
Objects = Annotated[str, typer.Option(help="Names in the objects file, comma separated; repeat a name for instances.")]
ObjectsFile = Annotated[Path | None, typer.Option(help="objects.yaml; default: the demo's objects.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")]
Speed = Annotated[float, typer.Option(min=0.001, help="Largest speed of a target in the camera frame [m/s].")]
Turn = Annotated[float, typer.Option(min=0.1, help="Largest turning rate of a target in the camera frame [deg/s].")]


@app.command()
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
    from ..synth.generate import generate_recording, load_scene_objects

    settings = _settings(frames, rate, size, seed, objects, max_speed, max_turn, distractors)
    with _errors(), _progress() as progress:
        task = progress.add_task("recording", total=frames)
        generate_recording(
            out,
            load_scene_objects(objects_file, settings.targets),
            settings,
            device=str(resolve_device(device)),
            compressed=compressed or None,
            storage=storage,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    typer.echo(f"wrote {frames} frames to {out}")


@app.command()
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
    from ..synth.bop import write_models, write_scene
    from ..synth.generate import generate_frames, load_scene_objects

    settings = _settings(frames, 30.0, size, seed, objects, 0.30, 60.0, distractors)
    with _errors(), _progress() as progress:
        models = load_scene_objects(objects_file, settings.targets)
        ids = write_models(out, models)
        task = progress.add_task("bop", total=scenes * frames)
        for i in range(scenes):
            scene = replace(settings, seed=seed + i)
            write_scene(
                out / split / f"{i:06d}",
                generate_frames(models, scene, device=str(resolve_device(device))),
                ids,
                lambda done, i=i: progress.update(task, completed=i * frames + done),  # type: ignore[misc]
            )
    typer.echo(f"wrote {scenes} scenes of {frames} images to {out}")


@app.command()
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
    from ..synth.coco import write_coco
    from ..synth.generate import load_scene_objects
    from ..synth.scene import SceneSampler

    height_width = parse_size(size)
    with _errors(), _progress() as progress:
        models = load_scene_objects(objects_file, _names(objects))
        task = progress.add_task("coco", total=train + valid)
        sampler = SceneSampler(models, resolve_device(device), height_width, seed)
        write_coco(
            out,
            sampler,
            {"train": train, "valid": valid},
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    typer.echo(f"wrote {train} training and {valid} validation images to {out}")


@app.command(name="objects")
def demo_meshes(
    out: Out = Path("models/demo"),
    objects_file: Annotated[Path | None, typer.Option(help="Also write an objects.yaml that lists them.")] = None,
) -> None:
    """The demo's object meshes as GLB files."""
    from ..synth.demo_objects import write_demo_objects

    for path in write_demo_objects(out, objects_file):
        typer.echo(f"wrote {path}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_size(text: str) -> tuple[int, int]:
    """ "640x480" -> (480, 640). Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise typer.BadParameter(f"size {text!r} must be WIDTHxHEIGHT, e.g. 640x480")
    return int(match.group(2)), int(match.group(1))


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
            targets=_names(objects),
            max_speed=max_speed,
            max_turn=max_turn,
            distractors=distractors,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@contextmanager
def _errors() -> Iterator[None]:
    """Errors that a user can act on become one line and exit code 1."""
    from ..config import ConfigError
    from ..pose.mesh import MeshError

    try:
        yield
    except (ConfigError, MeshError, ValueError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
