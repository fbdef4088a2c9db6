"""``demo``: a generated recording through the real node over DDS, judged against its ground truth."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from ..config import Config
    from ..objects import ObjectSpec
    from ..replay.recording import Recording

SECONDS = 10.0
# One that is moved by hand and one that stands; on a CPU every further object costs seconds of registration, and one
# that is known but not in view costs a detector run on every frame, so the node is told of these two only.
TARGETS = ("mug", "drill")
# Settings that decide more than the node does: what is recorded, and what is played to it.
NOT_SETTINGS = {
    "device": "use --device",
    "detector.source": "use --detection",
    "objects_file": "the demo has objects of its own; use 'generate recording --objects-file' and 'replay --ros --objects'",
}


class DetectionSource(str, Enum):
    AUTO = "auto"
    RF_DETR = "rf-detr"
    MASK_TOPIC = "mask-topic"


def demo(
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write result.json to this file.")] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Frames to play; default: 10 seconds of them.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of all outputs.")] = Path("out/demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scene; the same seed gives the same recording.")] = 5,
    rate: Annotated[
        str, typer.Option(help="Playback speed, or auto: real time, slower where the node is slower.")
    ] = "auto",
    camera_rate: Annotated[float, typer.Option(min=1, max=120, help="Frames per second of the recording.")] = 15.0,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One setting of the node, e.g. pose.weights=DIR; may be repeated.")
    ] = None,
    detection: Annotated[
        DetectionSource, typer.Option(help="auto: RF-DETR where its weights exist.")
    ] = DetectionSource.AUTO,
) -> None:
    """Generate a recording, play it into the node, compare its poses with the truth. Exits 1 when no pose came."""
    from ..config import ConfigError, to_flat
    from ..objects import load_objects
    from ..replay.live import LiveOptions, NoPose
    from ..replay.node_process import NodeDied
    from ..replay.outputs import write_outputs
    from ..replay.report import result_tables
    from ..replay.result import write_json
    from ..replay.session import run_session
    from ..resources import default_objects_file

    console = Console()
    speed = parse_rate(rate)
    source = choose_source(detection)
    objects_file = (out / "objects.yaml").resolve()
    try:
        config = node_settings(setting or [], objects_file, device, source)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    shipped = default_objects_file()
    specs = write_known(shipped, load_objects(shipped), TARGETS, objects_file, everything=False)
    with _progress(console) as progress:
        recording = _record(out / "recording", seed, frames, camera_rate, device, progress)
        task = progress.add_task("play", total=len(recording), visible=False)
        try:
            session = run_session(
                recording,
                specs,
                to_flat(config),
                out / "node.log",
                LiveOptions(rate=speed),
                count=frames,
                publish_masks=config.input.use_mask_topics or source == "mask-topic",
                say=lambda sentence: console.print(sentence, markup=False, highlight=False, soft_wrap=True),
                advance=lambda done, total: progress.update(task, completed=done, total=total, visible=True),
            )
        except (NoPose, NodeDied, ConfigError) as error:
            console.print(f"demo failed: {error}", markup=False, style="red", soft_wrap=True)
            raise typer.Exit(1) from error
        result = {**session.result, "seed": seed, "recording": str(recording.path)}
        drawing = progress.add_task("draw", total=len(session.run.sent))
        files = write_outputs(
            out,
            result,
            session.samples,
            session.series,
            recording,
            specs,
            title="rfdetr-foundationpose demo",
            count=len(session.run.sent),
            advance=lambda done: progress.update(drawing, completed=done),
        )
    for table in result_tables(result):
        console.print(table)
    if json_file is not None:
        write_json(json_file, result)
    console.print("Look at: " + ", ".join(str(f) for f in files), markup=False, highlight=False, soft_wrap=True)


def parse_rate(rate: str) -> float | None:
    """None for "auto". Raises typer.BadParameter for anything but a positive number."""
    if rate == "auto":
        return None
    try:
        value = float(rate)
    except ValueError:
        value = float("nan")
    if not 0.001 <= value <= 1000:
        raise typer.BadParameter(f"--rate={rate} must be auto or a number in [0.001, 1000]")
    return value


def choose_source(detection: DetectionSource) -> str:
    """rf-detr or mask-topic."""
    if detection is not DetectionSource.AUTO:
        return detection.value
    from ..detect.checkpoint import SHIPPED
    from ..resources import models_dir

    return "rf-detr" if (models_dir() / SHIPPED).is_file() else "mask-topic"


def write_known(
    file: Path, listed: Sequence[ObjectSpec], targets: Sequence[str], path: Path, *, everything: bool
) -> list[ObjectSpec]:
    """To ``path``: the objects.yaml of the pipeline, with room for as many instances as are on the table; returns it read.

    listed: the entries of ``file``. everything: those that are no targets too.
    """
    import yaml

    from ..objects import load_objects

    counts = Counter(targets)
    entries = [
        {**entry, "mesh": str(spec.mesh), "max_instances": max(spec.max_instances, counts[spec.name])}
        for entry, spec in zip(yaml.safe_load(file.expanduser().read_text())["objects"], listed, strict=True)
        if everything or counts[spec.name]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"objects": entries}, sort_keys=False))
    return load_objects(path)


def node_settings(changes: list[str], objects_file: Path, device: str, source: str) -> Config:
    """Settings of the node under test, with the user's changes (NAME=VALUE). Raises ConfigError, also for what an option
    of the demo says."""
    from ..config import ConfigError, from_flat
    from .replay import played_settings, read_settings

    for change in changes:
        advice = NOT_SETTINGS.get(change.partition("=")[0].strip())
        if advice is not None:
            raise ConfigError(f"--set {change}: {advice}")
    own = {"objects_file": str(objects_file), "device": device, "detector.source": source}
    return read_settings(None, changes, None, from_flat(own, played_settings()))


def _record(
    path: Path, seed: int, frames: int | None, camera_rate: float, device: str, progress: Progress
) -> Recording:
    """The recording: every frame is a function of the seed and its index alone."""
    from ..device import resolve_device
    from ..replay.recording import Recording
    from ..synth.generate import generate_recording, load_scene_objects
    from ..synth.video import VideoSettings

    if path.exists():
        shutil.rmtree(path)
    settings = VideoSettings(
        frames=frames or round(SECONDS * camera_rate), rate=camera_rate, seed=seed, targets=TARGETS
    )
    task = progress.add_task("generate", total=settings.frames)
    generate_recording(
        path,
        load_scene_objects(),
        settings,
        device=str(resolve_device(device)),
        progress=lambda done, total: progress.update(task, completed=done, total=total),
    )
    return Recording(path)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
