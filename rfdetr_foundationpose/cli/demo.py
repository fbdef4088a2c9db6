"""``demo``: a generated recording through the real node over DDS, judged against its ground truth."""

from __future__ import annotations

import shutil
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import open_console, progress_bar, sayer
from .options import RATE, SECONDS, TARGETS, Device
from .see import ShowRerun, WriteMcap, open_sinks, sink_files
from .settings import parse_rate, played_settings, read_settings, write_known

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..config import Config
    from ..replay.recording import Recording

# Settings that decide more than the node does: what is recorded, and what is played to it.
NOT_SETTINGS = {
    "device": "use --device",
    "detector.source": "use --detection",
    "objects_file": "the demo has objects of its own; use 'generate recording --objects-file' and 'replay --ros --objects-file'",
}


class DetectionSource(str, Enum):
    AUTO = "auto"
    RF_DETR = "rf-detr"
    MASK_TOPIC = "mask-topic"


def demo(
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write result.json to this file.")] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Frames to play; default: 10 seconds of them.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of all outputs.")] = Path("out/demo"),
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scene; the same seed gives the same recording.")] = 5,
    rate: Annotated[
        str, typer.Option(help="Playback speed, or auto: real time, slower where the node is slower.")
    ] = "auto",
    camera_rate: Annotated[float, typer.Option(min=1, max=120, help="Frames a second of the recording.")] = RATE,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One setting of the node, e.g. pose.weights=DIR; may be repeated.")
    ] = None,
    detection: Annotated[
        DetectionSource, typer.Option(help="auto: RF-DETR where its weights exist.")
    ] = DetectionSource.AUTO,
    mcap: WriteMcap = False,
    rerun: ShowRerun = None,
) -> None:
    """Generate a recording, play it into the node, compare its poses with the truth. Exits 1 when no pose came."""
    from ..config import to_flat
    from ..objects import load_objects
    from ..replay.live import LiveOptions
    from ..replay.outputs import write_outputs
    from ..replay.report import result_tables
    from ..replay.result import write_json
    from ..replay.session import run_session
    from ..resources import default_objects_file

    console = open_console()
    say = sayer(console)
    speed = parse_rate(rate)
    source = choose_source(detection)
    objects_file = (out / "objects.yaml").resolve()
    config = node_settings(setting or [], objects_file, device, source)
    shipped = default_objects_file()
    specs = write_known(shipped, load_objects(shipped), TARGETS, objects_file, everything=False)
    sinks = open_sinks(out, specs, mcap, rerun, "demo")
    with progress_bar(console) as progress:
        recording = _record(out / "recording", seed, frames, camera_rate, device, progress)
        task = progress.add_task("play", total=len(recording), visible=False)
        session = run_session(
            recording,
            specs,
            to_flat(config),
            out / "node.log",
            LiveOptions(rate=speed),
            count=frames,
            publish_masks=config.input.use_mask_topics or source == "mask-topic",
            advance=lambda done, total: progress.update(task, completed=done, total=total, visible=True),
        )
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
            sinks=sinks,
            stamp_of=session.stamp_of,
        )
    for table in result_tables(result):
        console.print(table)
    if json_file is not None:
        write_json(json_file, result)
    say("Look at: " + ", ".join(str(f) for f in [*files, *sink_files(out, mcap, rerun)]))


def choose_source(detection: DetectionSource) -> str:
    """rf-detr or mask-topic."""
    if detection is not DetectionSource.AUTO:
        return detection.value
    from ..detect.checkpoint import SHIPPED
    from ..resources import models_dir

    return "rf-detr" if (models_dir() / SHIPPED).is_file() else "mask-topic"


def node_settings(changes: list[str], objects_file: Path, device: str, source: str) -> Config:
    """Settings of the node under test, with the user's changes (NAME=VALUE). Raises ConfigError, also for what an option
    of the demo says."""
    from ..config import ConfigError, from_flat

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
    from ..process import prepare_process
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
        device=str(prepare_process(resolve_device(device))),
        progress=lambda done, total: progress.update(task, completed=done, total=total),
    )
    return Recording(path)
