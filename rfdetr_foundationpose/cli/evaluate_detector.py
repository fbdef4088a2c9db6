"""``evaluate detector``: how well RF-DETR finds the objects of generated recordings."""

from __future__ import annotations

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
from .settings import read_settings


def detector(
    seeds: Seeds = "100..109",
    targets: Targets = "all",
    frames: Annotated[int, typer.Option(min=1, help="Frames of each recording.")] = round(SECONDS * RATE),
    stride: Annotated[int, typer.Option(min=1, help="Look at every n-th frame.")] = 15,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Value of detector.threshold; default: the setting's.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Value of detector.weights.")] = "default",
    device: Device = "auto",
    objects_file: ObjectsFile = None,
    setting: Settings = None,
    out: Out = Path("out/evaluate-detector"),
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
    min_recall: MinRecall = None,
    max_false_tracks: MaxFalseTracks = None,
) -> None:
    """RF-DETR on generated recordings as demo makes them: recall at IoU 0.5, false detections, false tracks, and masks."""
    import time

    from ..config import ConfigError, from_flat
    from ..detect import build_detector
    from ..detect.classes import thresholds
    from ..detect.rfdetr_detector import RfDetrDetector
    from ..device import resolve_device
    from ..evaluate.detector_outcome import Outcome
    from ..evaluate.detector_recordings import RecordingSettings, evaluate_recordings
    from ..objects import load_objects
    from ..process import prepare_process
    from ..resources import default_objects_file
    from ..synth.generate import load_scene_objects

    console = open_console()
    numbers = parse_seeds(seeds)
    file = objects_file or default_objects_file()
    changed: dict[str, Any] = {"device": device, "detector.weights": weights}
    if threshold is not None:
        changed["detector.threshold"] = threshold
    config = read_settings(None, setting or [], None, from_flat(changed))
    specs = load_objects(file)
    models = load_scene_objects(file)
    names = parse_targets(targets, specs)
    asked = [s for s in specs if s.name in names]
    place = prepare_process(resolve_device(config.device))
    found = build_detector(config, asked, place)
    if not isinstance(found, RfDetrDetector):
        raise ConfigError(f"detector.source={config.detector.source}: there is no detector to evaluate")
    settings = RecordingSettings(seeds=numbers, targets=names, frames=frames, rate=RATE, stride=stride)
    outputs = claim("evaluate detector", out, ("result.json", CONTACT_SHEET), json_file, overwrite=overwrite)
    begin = time.perf_counter()

    def tree(outcome: Outcome) -> dict[str, Any]:
        return {
            "device": str(place),
            "weights": found.weights,
            "detector_backend": found.backend,
            "masks": found.mask_kind,
            "seeds": list(numbers),
            "targets": list(names),
            "stride": stride,
            "seconds": time.perf_counter() - begin,
            **outcome.as_dict(),
        }

    with progress_bar(console) as progress, Interruptible() as stop:
        task = progress.add_task("evaluate")
        outcome = evaluate_recordings(
            found,
            models,
            settings,
            thresholds(asked, config.detector.threshold),
            str(place),
            Watch(lambda done, total: progress.update(task, completed=done, total=total), stop.stop),
            lambda outcome: outputs.write(tree(outcome)),
        )
    figures = tree(outcome)
    _print(console, figures)
    if stop.requested:
        kept(stop, outcome.frames, len(numbers) * -(-frames // stride), "frames", outputs.write(figures))
    legend = "misses (yellow), false detections (red), truth (green)"
    problems = verdict(figures, min_recall, max_false_tracks)
    conclude(console, figures, outputs, outcome.pictures, legend, problems)


def _print(console: Console, figures: dict[str, Any]) -> None:
    shown = sorted(set(figures["threshold"].values()))
    title = f"{figures['frames']} frames, thresholds {', '.join(f'{t:g}' for t in shown)}, masks: {figures['masks']}"
    columns = (
        "object",
        "instances",
        "recall",
        "precision",
        "false / frame",
        "on wrong things",
        "mean IoU",
        "mask IoU p50",
        "p10",
    )
    table = plain_table(title, *columns)
    for name, f in {**figures["by_object"], "all": figures["all"]}.items():
        cells = [number(f[key]) for key in ("recall", "precision", "false_per_frame", "wrong_per_frame", "mean_iou")]
        cells += [number(f[key]) for key in ("mask_iou_p50", "mask_iou_p10")]
        table.add_row(name, str(f["instances"]), *cells)
    console.print(table)
    widths = (f"from {row['from']}" for row in figures["by_size"])
    sizes = plain_table("recall by visible size (square root of the pixels)", *widths, left=0)
    sizes.add_row(*(f"{number(r['recall'])} of {r['instances']}" for r in figures["by_size"]))
    console.print(sizes)
    good = figures["good_thresholds"]
    lines = [
        f"false tracks: {len(figures['false_tracks'])}"
        + "".join(
            f"\n  seed {t['seed']} frame {t['frame']}: {t['object']}{on_what(t['on'])}, "
            f"{t['frames']} frames or more, scores {t['weakest']:.2f} to {t['score']:.2f}"
            for t in figures["false_tracks"]
        ),
        f"best threshold by F1: {figures['best_threshold']:.2f} (F1 {figures['best_f1']:.3f})",
        "recall >= 0.95 with at most 0.01 detections on wrong things a frame: "
        + (f"thresholds {good[0]:.2f} to {good[1]:.2f}" if good else "at no threshold"),
    ]
    say = sayer(console)
    for line in lines:
        say(line)
