"""``demo``: a generated recording through the real node over DDS, judged against its ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..interrupts import Interruptible, Watch
from .console import bar_after, drawing_bar, kept, open_console, progress_bar, sayer
from .options import RATE, SECONDS, TARGETS, Device, ObjectsFile, Out, Seed, Settings, named, parse_names
from .outputs import AlsoJson, Overwrite, claim
from .see import SINK_FILES, ShowRerun, WriteMcap, open_sinks, sink_files
from .settings import parse_rate, played_settings, read_settings, write_known

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..config import Config
    from ..objects import ObjectSpec
    from ..replay.recording import Recording
    from ..synth.video import VideoSettings

RECORDING, OBJECTS, NODE_LOG, POSES, RESULT = "recording", "objects.yaml", "node.log", "poses.csv", "result.json"
# These settings decide more than what the node does: what is recorded, and what is played to it.
NOT_SETTINGS = {"device": "--device", "detector.source": "--detection", "objects_file": "--objects-file"}


class DetectionSource(str, Enum):
    AUTO = "auto"
    RF_DETR = "rf-detr"
    MASK_TOPIC = "mask-topic"


def demo(
    json_file: AlsoJson = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Frames to play; default: 10 seconds of them.")] = None,
    out: Out = Path("out/demo"),
    objects_file: ObjectsFile = None,
    objects: Annotated[
        str,
        typer.Option(help=f"Names in the objects file; default: all, of the demo's objects {' and '.join(TARGETS)}."),
    ] = "",
    device: Device = "auto",
    seed: Seed = 5,
    rate: Annotated[
        str, typer.Option(help="Playback speed, or auto: real time, slower where the node is slower.")
    ] = "auto",
    fps: Annotated[float, typer.Option(min=1, max=120, help="Frames a second of the recording [Hz].")] = RATE,
    setting: Settings = None,
    detection: Annotated[
        DetectionSource, typer.Option(help="auto: RF-DETR where its weights know the objects, else the true masks.")
    ] = DetectionSource.AUTO,
    mcap: WriteMcap = False,
    rerun: ShowRerun = None,
    overwrite: Overwrite = False,
) -> None:
    """Generate a recording, play it into the node, compare its poses with the truth."""
    from ..config import to_flat
    from ..device import resolve_device
    from ..objects import load_objects
    from ..replay.live import LiveOptions, ended_in_order
    from ..replay.node_process import NodeProcess, NodeStart, free_domain_id
    from ..replay.outputs import OUTPUT_FILES, write_outputs
    from ..replay.playback import Playback
    from ..replay.report import result_lines, result_tables
    from ..replay.result import write_json, write_poses_csv
    from ..replay.session import run_session
    from ..resources import default_objects_file
    from ..synth.video import VideoSettings

    console = open_console()
    say = sayer(console)
    speed = parse_rate(rate)
    file = objects_file or default_objects_file()
    listed = load_objects(file)
    targets = parse_names(objects) or (tuple(s.name for s in listed) if objects_file else TARGETS)
    on_table = named(listed, ",".join(targets))
    known = (out / OBJECTS).resolve()
    config = node_settings(setting or [], known, device, detection, on_table)
    place = resolve_device(device)
    outputs = claim(
        "demo", out, (*OUTPUT_FILES, *SINK_FILES, RECORDING, OBJECTS, NODE_LOG), json_file, overwrite=overwrite
    )
    specs = write_known(file, listed, targets, known, everything=False)
    sinks = open_sinks(out, specs, mcap, rerun, "demo")
    if config.detector.source == "mask-topic" and detection is DetectionSource.AUTO:
        say(
            "the weights of RF-DETR do not know these objects, so the recording's masks stand in for it; train it by "
            "'rfdetr-foundationpose train detector'"
        )
    parameters = to_flat(config)
    with (
        progress_bar(console) as progress,
        Interruptible() as stop,
        ended_in_order(),
        # It loads its networks while the recording is made.
        NodeProcess(parameters, out / NODE_LOG, free_domain_id()) as process,
    ):
        path = outputs.remove_recording(RECORDING)
        length = frames or round(SECONDS * fps)
        settings = VideoSettings(frames=length, rate=fps, seed=seed, targets=targets)
        recording = _record(path, settings, file, str(place), progress, stop, process.check)
        if stop.requested:
            kept(stop, len(recording), length, "generated frames", path)
        advance = bar_after(progress, "start", "play", len(recording))
        playback = Playback(recording, specs, frames)
        session = run_session(
            playback,
            NodeStart(parameters, out / NODE_LOG, process=process),
            LiveOptions(rate=speed),
            publish_masks=config.input.use_mask_topics or config.detector.source == "mask-topic",
            watch=Watch(lambda done, _: advance(done), stop.stop),
        )
        process.stop()
        result = outputs.stamped({**session.result, "seed": seed, "recording": str(recording.path)})
        played = len(session.run.sent)
        # All that took long is on disk before pictures are drawn.
        write_json(out / RESULT, result)
        write_poses_csv(out / POSES, session.samples)
        if json_file is not None:
            write_json(json_file, result)
        files: list[Path] = []
        if not stop.requested:
            with stop.ends_here():
                files = write_outputs(
                    out,
                    replace(session.outcome, result=result),
                    replace(playback, frames=played),
                    title="rfdetr-foundationpose demo",
                    advance=stop.checked(drawing_bar(progress, played)),
                    sinks=sinks,
                )
    for table in result_tables(result, session.samples):
        console.print(table)
    for line in result_lines(result):
        say(line)
    kept(stop, played, len(recording), "frames", out)
    say("Look at: " + ", ".join(str(f) for f in [*files, *sink_files(out, mcap, rerun)]))


def choose_source(detection: DetectionSource, weights: str, specs: Sequence[ObjectSpec]) -> str:
    """ "rf-detr", or "mask-topic" where the weights are known not to know every object.

    weights: as detector.weights.
    """
    if detection is not DetectionSource.AUTO:
        return detection.value
    from ..detect.checkpoint import SHIPPED, stored_classes
    from ..resources import models_dir

    path = models_dir() / SHIPPED if weights == "default" else Path(weights).expanduser()
    if weights == "default" and not path.is_file():
        return "mask-topic"
    classes = stored_classes(path)
    return "rf-detr" if classes is None or {s.label for s in specs} <= set(classes) else "mask-topic"


def node_settings(
    changes: list[str], objects_file: Path, device: str, detection: DetectionSource, specs: Sequence[ObjectSpec]
) -> Config:
    """Settings of the node under test, with the user's changes (NAME=VALUE). Raises ConfigError, also for what an option
    of the demo says."""
    from ..config import ConfigError, from_flat

    for change in changes:
        option = NOT_SETTINGS.get(change.partition("=")[0].strip())
        if option is not None:
            raise ConfigError(f"--set {change}: use {option}")
    own = from_flat({"objects_file": str(objects_file), "device": device}, played_settings())
    config = read_settings(None, changes, None, own)
    return from_flat({"detector.source": choose_source(detection, config.detector.weights, specs)}, config)


def _record(
    path: Path,
    settings: VideoSettings,
    objects_file: Path,
    device: str,
    progress: Progress,
    stop: Interruptible,
    check: Callable[[], None],
) -> Recording:
    """The recording: every frame is a function of the seed and its index alone. check: called after each frame."""
    from ..replay.recording import Recording
    from ..synth.generate import generate_recording, load_scene_objects

    task = progress.add_task("generate", total=settings.frames)

    def advance(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)
        check()

    generate_recording(
        path,
        load_scene_objects(objects_file),
        settings,
        device=device,
        watch=Watch(advance, stop.stop),
    )
    return Recording(path)
