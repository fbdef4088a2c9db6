"""``evaluate detector``: how well RF-DETR finds the objects of generated recordings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from .demo import SECONDS, TARGETS

if TYPE_CHECKING:
    from ..objects import ObjectSpec
    from ..synth.textures import Picture

RATE = 15.0


def detector(
    seeds: Annotated[str, typer.Option(help="Seeds of the recordings, e.g. 100..109 or 3,5; training sees none.")] = (
        "100..109"
    ),
    targets: Annotated[
        str, typer.Option(help="Objects on the table, repeated for several instances; all: every object.")
    ] = ",".join(TARGETS),
    frames: Annotated[int, typer.Option(min=1, help="Frames of each recording.")] = round(SECONDS * RATE),
    stride: Annotated[int, typer.Option(min=1, help="Look at every n-th frame.")] = 15,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Value of detector.threshold; default: the setting's.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Value of detector.weights.")] = "default",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")] = "auto",
    objects_file: Annotated[str, typer.Option(help="objects.yaml; empty takes the demo's objects.")] = "",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, e.g. detector.backend=half; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of outputs.")] = Path("out/evaluate-detector"),
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where the figures go; default: result.json in --out.")
    ] = None,
    min_recall: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Exit with 1 below this recall.")] = None,
    max_false_tracks: Annotated[
        int | None, typer.Option(min=0, help="Exit with 1 when there are more false tracks.")
    ] = None,
) -> None:
    """RF-DETR on generated recordings as demo makes them: recall at IoU 0.5, false detections and false tracks."""
    import time

    from ..config import ConfigError, from_flat
    from ..detect import DetectorError, build_detector
    from ..detect.classes import thresholds
    from ..detect.rfdetr_detector import RfDetrDetector
    from ..device import resolve_device
    from ..evaluate.detector_recordings import RecordingSettings, evaluate_recordings
    from ..objects import load_objects
    from ..resources import default_objects_file
    from ..synth.generate import load_scene_objects
    from .evaluate import _progress
    from .replay import read_settings

    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    numbers = parse_seeds(seeds)
    file = objects_file or default_objects_file()
    try:
        changed = {"device": device, "detector.weights": weights}
        if threshold is not None:
            changed["detector.threshold"] = threshold  # type: ignore[assignment]
        config = read_settings(None, setting or [], None, from_flat(changed))
        specs = load_objects(file)
        models = load_scene_objects(file)
        names = parse_targets(targets, specs)
        asked = [s for s in specs if s.name in names]
        place = resolve_device(config.device)
        found = build_detector(config, asked, place, say)
        if not isinstance(found, RfDetrDetector):
            raise ConfigError(f"detector.source={config.detector.source}: there is no detector to evaluate")
    except (ConfigError, DetectorError) as error:
        console.print(f"evaluate detector: {error}", markup=False, style="red", soft_wrap=True)
        raise typer.Exit(2) from error
    begin = time.perf_counter()
    with _progress(console) as progress:
        task = progress.add_task("evaluate")
        outcome = evaluate_recordings(
            found,
            models,
            RecordingSettings(seeds=numbers, targets=names, frames=frames, rate=RATE, stride=stride),
            thresholds(asked, config.detector.threshold),
            str(place),
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    figures = {
        "device": str(place),
        "weights": found.weights,
        "detector_backend": found.backend,
        "seeds": list(numbers),
        "targets": list(names),
        "stride": stride,
        "seconds": time.perf_counter() - begin,
        **outcome.as_dict(),
    }
    _print(console, figures)
    legend = "misses (yellow), false detections (red), truth (green)"
    problems = verdict(figures, min_recall, max_false_tracks)
    conclude(console, figures, out, json_file, outcome.pictures, legend, problems)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds of "100..109", "3,5" or both mixed. Raises typer.BadParameter."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\.\.(\d+))?\s*", part)
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            raise typer.BadParameter(f"--seeds={text} must be numbers or ranges, e.g. 100..109 or 3,5")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(dict.fromkeys(found))


def parse_targets(text: str, specs: Sequence[ObjectSpec]) -> tuple[str, ...]:
    """Names of "mug,drill", or of all objects for "all". Raises ConfigError for one that is not among ``specs``."""
    from ..config import ConfigError

    listed = [s.name for s in specs]
    names = tuple(listed) if text == "all" else tuple(t.strip() for t in text.split(","))
    if unknown := sorted(set(names) - set(listed)):
        raise ConfigError(f"--targets: {', '.join(unknown)} not in the objects file, which has {', '.join(listed)}")
    return names


def conclude(
    console: Console,
    figures: dict[str, Any],
    out: Path,
    json_file: Path | None,
    pictures: Sequence[tuple[Picture, str]],
    legend: str,
    problems: Sequence[str],
) -> NoReturn:
    """Write the figures and, where there are pictures, their contact sheet; exit with 1 when there are problems.

    pictures: with their captions. legend: what their colours mean.
    """
    from ..replay.report import contact_sheet
    from ..replay.result import write_json

    path = json_file or out / "result.json"
    write_json(path, figures)
    console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
    if pictures:
        out.mkdir(parents=True, exist_ok=True)
        contact_sheet(out / "contact_sheet.png", [p for p, _ in pictures], [caption for _, caption in pictures])
        console.print(f"{legend}: {out / 'contact_sheet.png'}", markup=False, highlight=False, soft_wrap=True)
    for problem in problems:
        console.print(problem, markup=False, style="red")
    raise typer.Exit(1 if problems else 0)


def verdict(figures: dict[str, Any], min_recall: float | None, max_false_tracks: int | None) -> list[str]:
    """What is not as it was asked to be."""
    problems = []
    recall, tracks = figures["all"]["recall"], len(figures["false_tracks"])
    if figures["all"]["instances"] == 0:
        problems.append("no instance was to be found, so nothing was measured")
    elif min_recall is not None and recall < min_recall:
        problems.append(f"recall {recall:.3f} is below {min_recall}")
    if max_false_tracks is not None and tracks > max_false_tracks:
        problems.append(f"{tracks} false tracks, at most {max_false_tracks} were asked for")
    return problems


def _print(console: Console, figures: dict[str, Any]) -> None:
    shown = sorted(set(figures["threshold"].values()))
    title = f"{figures['frames']} frames, thresholds {', '.join(f'{t:g}' for t in shown)}"
    table = Table(title=title, title_justify="left")
    for column in ("object", "instances", "recall", "precision", "false / frame", "on wrong things", "mean IoU"):
        table.add_column(column, justify="left" if column == "object" else "right")
    for name, f in {**figures["by_object"], "all": figures["all"]}.items():
        cells = [_number(f[key]) for key in ("recall", "precision", "false_per_frame", "wrong_per_frame", "mean_iou")]
        table.add_row(name, str(f["instances"]), *cells)
    console.print(table)
    sizes = Table(title="recall by visible size (square root of the pixels)", title_justify="left")
    for row in figures["by_size"]:
        sizes.add_column(f"from {row['from']}", justify="right")
    sizes.add_row(*(f"{_number(r['recall'])} of {r['instances']}" for r in figures["by_size"]))
    console.print(sizes)
    good = figures["good_thresholds"]
    lines = [
        f"false tracks: {len(figures['false_tracks'])}"
        + "".join(
            f"\n  seed {t['seed']} frame {t['frame']}: {t['object']}{_on(t['on'])}, "
            f"{t['frames']} frames or more, scores {t['weakest']:.2f} to {t['score']:.2f}"
            for t in figures["false_tracks"]
        ),
        f"best threshold by F1: {figures['best_threshold']:.2f} (F1 {figures['best_f1']:.3f})",
        "recall >= 0.95 with at most 0.01 detections on wrong things a frame: "
        + (f"thresholds {good[0]:.2f} to {good[1]:.2f}" if good else "at no threshold"),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _on(what: str) -> str:
    return {"": "", "part": " on a part of one"}.get(what, f" on {what}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
