"""``evaluate pipeline``: detector and poses together, as the node runs them, on generated recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..interrupts import Interruptible, Watch
from ..tables import number, plain_table
from .console import CONTACT_SHEET, conclude, kept, on_what, open_console, progress_bar, sayer, verdict
from .options import (
    RATE,
    SECONDS,
    Device,
    JsonFile,
    MaxFalseTracks,
    MinRecall,
    ObjectsFile,
    Out,
    Seeds,
    Settings,
    Targets,
    parse_seeds,
    parse_targets,
)
from .outputs import Overwrite, claim
from .settings import read_settings, write_known


def pipeline(
    seeds: Seeds = "100..109",
    targets: Targets = "all",
    first_frame: Annotated[int, typer.Option(min=0, help="First frame that the pipeline gets.")] = 0,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of each recording; default: up to its end.")] = None,
    fps: Annotated[float, typer.Option(min=1, max=120, help="Frames a second, of ten seconds [Hz].")] = RATE,
    max_speed: Annotated[
        float, typer.Option(min=0.01, max=3, help="Limit of the targets' speed in the camera frame [m/s].")
    ] = 0.3,
    shutter: Annotated[
        float, typer.Option(min=0, max=0.1, help="Exposure of the colour images [s]: what moves is blurred.")
    ] = 0.0,
    jolt: Annotated[
        float, typer.Option(min=0, max=45, help="Angle by which the camera is knocked every two seconds [deg].")
    ] = 0.0,
    all_objects: Annotated[
        bool,
        typer.Option(
            "--all-objects/--only-targets", help="Whether the pipeline knows every object, or those on the table."
        ),
    ] = False,
    detector_weights: Annotated[str, typer.Option(help="Value of detector.weights.")] = "default",
    pose_weights: Annotated[str, typer.Option(help="Value of pose.weights.")] = "default",
    device: Device = "auto",
    objects_file: ObjectsFile = None,
    setting: Settings = None,
    out: Out = Path("out/evaluate-pipeline"),
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
    min_recall: MinRecall = None,
    max_false_tracks: MaxFalseTracks = None,
) -> None:
    """RF-DETR and poses, as the node runs them, on generated recordings: recall, errors, false poses, false tracks."""
    import time

    from ..config import ConfigError, from_flat
    from ..evaluate.detector_recordings import RecordingSettings
    from ..evaluate.pipeline_recordings import PipelineOutcome, evaluate_pipeline
    from ..objects import load_objects
    from ..pipeline import Pipeline
    from ..resources import default_objects_file
    from ..synth.generate import load_scene_objects

    console = open_console()
    numbers = parse_seeds(seeds)
    file = Path(objects_file or default_objects_file())
    # Always the whole recording, of which a part is played: the view that a seed gives depends on its length.
    length = round(SECONDS * fps)
    part = range(first_frame, length if frames is None else first_frame + frames)
    if shutter * fps > 1:
        raise typer.BadParameter(f"--shutter={shutter} is longer than a frame at --fps={fps:g}")
    if not part or part.stop > length:
        raise typer.BadParameter(f"--first-frame and --frames end at {part.stop}, a recording has {length} frames")
    if any(change.partition("=")[0].strip() == "objects_file" for change in setting or []):
        raise ConfigError("--set objects_file: use --objects-file")
    listed = load_objects(file)
    names = parse_targets(targets, listed)
    known = out / "objects.yaml"
    changed = {"device": device, "detector.weights": detector_weights, "pose.weights": pose_weights}
    config = read_settings(None, setting or [], known, from_flat(changed))
    models = load_scene_objects(file)
    outputs = claim(
        "evaluate pipeline", out, ("result.json", CONTACT_SHEET, known.name), json_file, overwrite=overwrite
    )
    specs = write_known(file, listed, names, known, everything=all_objects)
    # In the foreground, so that the figures do not depend on how fast the machine is.
    made = Pipeline.build(config, background=False)
    begin = time.perf_counter()

    def tree(outcome: PipelineOutcome) -> dict[str, Any]:
        status = made.status()
        return {
            "device": status.device,
            "detection_source": status.detector_source,
            "detector_weights": status.detector_weights,
            "detector_backend": status.detector_backend,
            "weights": status.pose_weights,
            "pose_backend": status.pose_backend,
            "seeds": list(numbers),
            "targets": list(names),
            "known": [s.name for s in specs],
            "start": first_frame,
            "frames": len(part),
            "rate": fps,
            "max_speed": max_speed,
            "shutter": shutter,
            "jolt": jolt,
            "seconds": time.perf_counter() - begin,
            **outcome.as_dict(),
        }

    try:
        with progress_bar(console) as progress, Interruptible() as stop:
            task = progress.add_task("evaluate")
            outcome = evaluate_pipeline(
                made,
                specs,
                models,
                RecordingSettings(numbers, names, length, fps, max_speed=max_speed, shutter=shutter, jolt=jolt),
                part,
                Watch(lambda done, total: progress.update(task, completed=done, total=total), stop.stop),
                lambda outcome: outputs.write(tree(outcome)),
            )
        figures = tree(outcome)
    finally:
        made.close()
    _print(console, figures)
    if stop.requested:
        done = sum(r.frames for r in outcome.recordings)
        kept(stop, done, len(part) * len(numbers), "frames", outputs.write(figures))
    legend = "false and flipped poses, instances of their object (yellow)"
    problems = verdict(figures, min_recall, max_false_tracks)
    conclude(console, figures, outputs, outcome.pictures, legend, problems)


def _print(console: Console, figures: dict[str, Any]) -> None:
    total = figures["all"]
    title = (
        f"frames {figures['start']} to {figures['start'] + figures['frames'] - 1}, known: {', '.join(figures['known'])}"
    )
    right = plain_table(title, "", "sought", "recall", "ADD-S", "ADD", "mm p50", "p95", "deg p50", "p95")
    heads = "poses", "false", "false\ntracks", "flipped", "dupli-\ncates", "new\nids", "refused", "lost", "s"
    tracks = plain_table("", "", *heads)
    rows = {f"seed {seed}": f for seed, f in figures["by_seed"].items()} | figures["by_object"] | {"all": total}
    for name, f in rows.items():
        shares = [number(f[key]) for key in ("recall", "adds_recall_0.1d", "add_recall_0.1d")]
        errors = [f[key][p] for key in ("translation_error_mm", "rotation_error_deg") for p in ("p50", "p95")]
        right.add_row(name, str(f["instances"]), *shares, *("–" if e is None else f"{e:.1f}" for e in errors))
        counts = ("poses", "false_poses", "false_tracks", "flipped", "duplicates", "id_changes", "refused", "lost")
        tracks.add_row(name, *(str(f.get(c, "–")) for c in counts), f"{f['seconds']:.0f}" if "seconds" in f else "–")
    console.print(right)
    console.print(tracks)
    reasons = ", ".join(f"{reason} {n}" for reason, n in total["refused_by"].items())
    lines = [
        f"registrations: {total['registrations']}, refused {total['refused']}{f' ({reasons})' if reasons else ''}",
        *_stretches("flipped", figures["flipped"]),
        *_stretches("duplicates", figures["duplicates"]),
        *_stretches("false tracks", figures["false_tracks"]),
    ]
    say = sayer(console)
    for line in lines:
        say(line)


def _stretches(title: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [f"{title}: {len(rows)}"]
    for r in rows:
        where = f" in the place of {r['instance']}" if r["instance"] else f"{on_what(r['on'])}, {r['off']:.2f} d off"
        low, high = r["confidence"]
        span = f"seed {r['seed']} frames {r['frame']} to {r['last']} ({r['frames']})"
        lines.append(f"  {span}: {r['track']}{where}, confidence {low:.2f} to {high:.2f}")
    return lines
