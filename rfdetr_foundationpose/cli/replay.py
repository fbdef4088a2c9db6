"""``replay``: a recording through the pipeline or the node, with a verdict against a stored result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..interrupts import Interruptible, Watch
from .console import bar_after, drawing_bar, kept, open_console, progress_bar, sayer
from .options import ObjectsFile, Settings
from .outputs import AlsoJson, Outputs, Overwrite, claim
from .see import SINK_FILES, ShowRerun, WriteMcap, open_sinks, sink_files
from .settings import parse_rate, played_settings, read_settings
from .starts import InitBoxes, InitMasks, parse_starts

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..config import Config
    from ..detect.starts import Start
    from ..replay.playback import Playback
    from ..replay.result import Comparison, RunOutcome

NODE_LOG, POSES, RESULT = "node.log", "poses.csv", "result.json"


def replay(
    recording: Annotated[Path, typer.Argument(help="rosbag2 directory, .mcap, .db3, ROS 1 .bag, or folder of images.")],
    out: Annotated[Path, typer.Option(help="Folder of all outputs.")] = Path("out/replay"),
    objects_file: ObjectsFile = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:<index>; default: the settings'.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of settings, or a ROS parameter file.")] = None,
    setting: Settings = None,
    ros: Annotated[
        bool, typer.Option("--ros", help="Through the node over DDS instead of the pipeline itself.")
    ] = False,
    rate: Annotated[str, typer.Option(help="With --ros: playback speed, or auto.")] = "auto",
    frames: Annotated[int | None, typer.Option(min=1, help="Use the first frames only.")] = None,
    rgb: Annotated[str | None, typer.Option(help="Colour topic; default: found by name and type.")] = None,
    depth: Annotated[str | None, typer.Option(help="Depth topic.")] = None,
    camera_info: Annotated[
        str | None, typer.Option(help="CameraInfo topic, or a file of intrinsics (cam_K.txt, ...).")
    ] = None,
    mcap: WriteMcap = False,
    rerun: ShowRerun = None,
    init_mask: InitMasks = None,
    init_box: InitBoxes = None,
    baseline: Annotated[Path | None, typer.Option(help="result.json to compare with; exits 1 on a regression.")] = None,
    check_latency: Annotated[
        bool, typer.Option("--check-latency", help="Compare stage latencies too; same machine only.")
    ] = False,
    json_file: AlsoJson = None,
    overwrite: Overwrite = False,
) -> None:
    """Run a recording through pipeline or node; write poses, errors and pictures; compare with a baseline."""
    from ..config import from_flat
    from ..device import resolve_device
    from ..objects import load_objects
    from ..replay.outputs import OUTPUT_FILES, write_outputs
    from ..replay.playback import Playback
    from ..replay.recording import Recording
    from ..replay.report import comparison_table, result_lines, result_tables
    from ..replay.result import compare, read_baseline, write_json, write_poses_csv
    from ..resources import default_objects_file

    console = open_console()
    say = sayer(console)
    speed = parse_rate(rate)
    base = played_settings() if ros else None
    if init_mask or init_box:
        if ros:
            raise typer.BadParameter("--init-mask and --init-box are without --ros; the node takes ~/init_box/<object>")
        base = from_flat({"detector.source": "none"})
    settings = read_settings(config, setting or [], objects_file, base)
    if device is not None:
        settings = from_flat({"device": device}, settings)
    resolve_device(settings.device)
    specs = load_objects(settings.objects_file or default_objects_file())
    starts = parse_starts(init_mask or [], init_box or [], specs)
    stored = None if baseline is None else read_baseline(baseline)
    tape = Recording(
        recording,
        rgb=rgb,
        depth=depth,
        camera_info=camera_info,
        depth_unit=settings.input.depth_unit,
        rectify=settings.input.rectify,
    )
    say(tape.reason)
    tape.check()
    told = tape.problems
    for problem in told:
        say(problem)
    identity = tape.identity(frames)
    if baseline is not None:
        stored = read_baseline(baseline, identity, judged=bool(tape.truths))
        if "recording_id" not in stored:
            say(f"--baseline {baseline} does not say of which recording it is: compared as if it were of this one")
    outputs = claim("replay", out, (*OUTPUT_FILES, *SINK_FILES, NODE_LOG), json_file, overwrite=overwrite)
    sinks = open_sinks(out, specs, mcap, rerun, f"replay of {recording.name}")
    rows: list[Comparison] = []
    files: list[Path] = []
    with progress_bar(console) as progress, Interruptible() as stop:
        job = Job(Playback(tape, specs, frames), settings, starts, outputs, speed, progress, stop)
        outcome = through_node(job) if ros else through_pipeline(job)
        samples = outcome.samples
        result = outputs.stamped({**outcome.result, "recording": str(recording), "recording_id": identity})
        if stored is not None and not stop.requested:
            rows = compare(result, stored, latency=check_latency)
        # All that took long is on disk before pictures are drawn.
        write_json(out / RESULT, result)
        write_poses_csv(out / POSES, samples)
        if json_file is not None:
            write_json(json_file, result)
        if not stop.requested:
            with stop.ends_here():
                files = write_outputs(
                    out,
                    dataclasses.replace(outcome, result=result),
                    job.playback,
                    title=f"replay of {recording.name}",
                    rows=rows,
                    advance=stop.checked(drawing_bar(progress, job.playback.total)),
                    sinks=sinks,
                )
    for problem in (*tape.problems, *tape.tally.sentences()):
        if problem not in told:
            say(problem)
    for table in result_tables(result, samples):
        console.print(table)
    for line in result_lines(result):
        say(line)
    if rows:
        console.print(comparison_table(rows))
    kept(stop, result["frames_published"], job.playback.total, "frames", out)
    say("Look at: " + ", ".join(str(f) for f in [*files, *sink_files(out, mcap, rerun)]))
    regressed = [row.name for row in rows if row.regressed]
    if regressed:
        console.print(f"regressed: {', '.join(regressed)}", style="red")
    if regressed or not samples:
        if not samples:
            console.print("no pose came out", style="red")
        raise typer.Exit(1)


@dataclass(frozen=True)
class Job:
    """What is run, and who hears of it. rate: of playback, for the node."""

    playback: Playback
    config: Config
    starts: Sequence[Start]
    outputs: Outputs
    rate: float | None
    progress: Progress
    stop: Interruptible

    @property
    def out(self) -> Path:
        assert self.outputs.folder is not None
        return self.outputs.folder


def through_pipeline(job: Job) -> RunOutcome:
    """Every frame, as fast as it goes; poses are on disk as they come."""
    from ..pipeline import Pipeline
    from ..replay.judge import Judge
    from ..replay.offline import run_offline
    from ..replay.result import FrameCounts, PosesCsv, RunOutcome, build_result

    judge = Judge.of(job.playback.specs)
    # In the foreground: every frame is answered, so two runs of one recording give the same poses.
    pipeline = Pipeline.build(job.config, background=False)
    for start in job.starts:
        pipeline.start_at(start)
    advance = bar_after(job.progress, "warm up", "replay", job.playback.total)
    watch = Watch(lambda done, _: advance(done), job.stop.stop)
    try:
        with PosesCsv(job.out / POSES) as file:
            run = run_offline(pipeline, job.playback, judge, watch, file.add)
        status = pipeline.status()
    finally:
        pipeline.close()
    say = sayer(job.progress.console)
    for event in run.events:
        say(event)
    result = build_result(
        run.samples,
        FrameCounts(run.published, run.published, run.processed, run.dropped),
        latency_ms=run.latency_ms,
        detection_source=status.detector_source,
        weights=status.pose_weights,
        device=status.device,
        missing=judge.missing,
        missing_by_object=judge.missing_by_object,
        spurious=judge.spurious,
        lost=status.counters.get("lost", 0),
        depth_unmatched=job.playback.recording.tally.depth_unmatched,
        frames_distorted=job.playback.recording.tally.distorted,
        detector_weights=status.detector_weights,
        detector_backend=status.detector_backend,
        pose_backend=status.pose_backend,
        seconds=run.seconds,
    )
    return RunOutcome(result, run.samples, run.series)


def through_node(job: Job) -> RunOutcome:
    """Over DDS, as a camera would; ends early, or before the first frame, when the user wants so."""
    from ..config import to_flat
    from ..replay.live import LiveOptions
    from ..replay.node_process import NodeStart
    from ..replay.session import run_session
    from ..resources import default_objects_file

    parameters = to_flat(job.config)
    parameters["objects_file"] = str(Path(job.config.objects_file or default_objects_file()).resolve())
    advance = bar_after(job.progress, "start", "play", job.playback.total)
    session = run_session(
        job.playback,
        NodeStart(parameters, job.out / NODE_LOG),
        LiveOptions(rate=job.rate),
        publish_masks=job.config.input.use_mask_topics or job.config.detector.source == "mask-topic",
        watch=Watch(lambda done, _: advance(done), job.stop.stop),
    )
    return session.outcome
