"""``evaluate``: accuracy of register and track on generated scenes, a BOP folder, or real YCB-Video frames."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from ..evaluate.attempts import Attempt, Evaluator
    from ..objects import ObjectSpec

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")]
Weights = Annotated[str, typer.Option("--weights", help="Value of pose.weights.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. pose.register_schedule=full.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Where the figures go; default: result.json in --out.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the scenes and of the masks' faults.")]


def synth(
    scenes: Annotated[int, typer.Option(min=1, help="Scenes, each of its own seed.")] = 10,
    track: Annotated[int, typer.Option(min=0, help="Frames tracked after each registration.")] = 0,
    objects: Annotated[str, typer.Option(help="random: objects never trained on; demo: the demo's.")] = "random",
    seed: Seed = 10_000,
    device: Device = "auto",
    weights: Weights = "default",
    setting: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of outputs.")] = Path("out/evaluate"),
    json_file: JsonFile = None,
) -> None:
    """Generated scenes: register one object in each from a faulty mask, then track it."""
    from ..evaluate.attempts import detector_like_mask
    from ..objects import load_objects
    from ..pose.mesh import load_object
    from ..resources import default_objects_file
    from ..synth.specs import random_specs
    from ..synth.video import SceneVideo, VideoSettings

    if objects not in ("random", "demo"):
        raise typer.BadParameter(f"--objects={objects} must be random or demo")
    console = Console()
    with tempfile.TemporaryDirectory() as folder, _progress(console) as progress:
        specs = (
            random_specs(Path(folder), range(seed, seed + scenes))
            if objects == "random"
            else load_objects(default_objects_file())
        )
        evaluator, used = _evaluator(specs, device, weights, setting, console)
        task = progress.add_task("evaluate", total=scenes)
        attempts: list[Attempt] = []
        for i in range(scenes):
            spec = specs[i % len(specs)]
            settings = VideoSettings(frames=1 + track, seed=seed + i, targets=(spec.name,))
            video = SceneVideo([load_object(spec)], settings, used["device"])
            rng = np.random.default_rng(seed + i)
            frame, truth = video.frame(0)
            mask = detector_like_mask(frame.masks[spec.name], rng)
            prepared = evaluator.prepare(frame)
            scene = str(seed + i)
            true = truth.instances[0].T_cam_obj
            attempt = evaluator.register(prepared, mask, true, object=spec.name, scene=scene, index=0)
            attempts.append(attempt)
            last = attempt.T_cam_obj
            for index in range(1, 1 + track if last is not None else 1):
                frame, truth = video.frame(index)
                truths = {spec.name: truth.instances[0].T_cam_obj}
                assert last is not None
                (tracked,) = evaluator.track(
                    evaluator.prepare(frame), {spec.name: last}, truths, scene=scene, index=index
                )
                attempts.append(tracked)
                last = tracked.T_cam_obj
            progress.update(task, completed=i + 1)
    _finish(console, attempts, out, json_file, {**used, "objects": objects, "scenes": scenes, "seed": seed})


def bop(
    data: Annotated[Path, typer.Argument(help="Data set folder, which holds models/ and the split.")],
    split: Annotated[str, typer.Option(help="Folder of the scenes.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="First frames only.")] = None,
    faulty_masks: Annotated[bool, typer.Option(help="Make the visible masks as wrong as a detector's.")] = True,
    min_visibility: Annotated[float, typer.Option(min=0, max=1, help="Instances less visible are left out.")] = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    weights: Weights = "default",
    setting: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of outputs.")] = Path("out/bop"),
    json_file: JsonFile = None,
) -> None:
    """A data set in BOP layout: register every visible instance."""
    from ..config import ConfigError
    from ..evaluate.attempts import detector_like_mask
    from ..replay.bop import BopDataset

    console = Console()
    try:
        dataset = BopDataset(data, split)
    except (FileNotFoundError, ConfigError) as error:
        console.print(f"evaluate bop: {error}", markup=False, style="red", soft_wrap=True)
        raise typer.Exit(2) from error
    evaluator, used = _evaluator(dataset.specs, device, weights, setting, console)
    rng = np.random.default_rng(seed)
    attempts: list[Attempt] = []
    with _progress(console) as progress:
        task = progress.add_task("evaluate", total=limit)
        for count, (scene, image, frame, instances) in enumerate(dataset):
            if limit is not None and count >= limit:
                break
            prepared = evaluator.prepare(frame)
            for instance in instances:
                if instance.visibility is not None and instance.visibility < min_visibility:
                    continue
                mask = detector_like_mask(instance.mask, rng) if faulty_masks else instance.mask
                attempts.append(
                    evaluator.register(
                        prepared, mask, instance.T_cam_obj, object=instance.object, scene=scene, index=image
                    )
                )
            progress.update(task, completed=count + 1)
    _finish(console, attempts, out, json_file, {**used, "data": data.name, "split": split})


def ycbv(
    data: Annotated[Path, typer.Option(help="Folder of <frame>-color.png, -depth.png, -gt.json and the mesh.")],
    seed: Seed = 0,
    device: Device = "auto",
    weights: Weights = "default",
    setting: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of outputs.")] = Path("out/ycbv"),
    json_file: JsonFile = None,
) -> None:
    """Real YCB-Video frames: register the mustard bottle from its projected silhouette, made faulty."""
    from ..evaluate.attempts import detector_like_mask
    from ..evaluate.ycbv import MUSTARD, load_frames, mustard
    from ..overlay import OverlayModel, silhouette

    console = Console()
    if not data.is_dir():
        console.print(f"evaluate ycbv: {data} is not there: skipped", markup=False, style="yellow")
        return
    frames = [f for f in load_frames(data) if MUSTARD in f.truths]
    spec = mustard(data)
    evaluator, used = _evaluator([spec], device, weights, setting, console)
    model = OverlayModel.load(spec)
    attempts: list[Attempt] = []
    masks = []
    with _progress(console) as progress:
        task = progress.add_task("evaluate", total=len(frames))
        for index, real in enumerate(frames):
            truth = real.truths[MUSTARD]
            exact = silhouette(model, truth, real.frame.camera) > 0
            mask = detector_like_mask(exact, np.random.default_rng(seed + index), dilate=6)
            masks.append(mask)
            prepared = evaluator.prepare(real.frame)
            attempts.append(evaluator.register(prepared, mask, truth, object=spec.name, scene=real.name, index=index))
            progress.update(task, completed=index + 1)
    _print_attempts(console, attempts)
    _draw(out, [f.frame for f in frames], attempts, masks, spec)
    _finish(console, attempts, out, json_file, {**used, "data": data.name, "frames": len(frames)})


def _evaluator(
    specs: Sequence[ObjectSpec], device: str, weights: str, setting: list[str] | None, console: Console
) -> tuple[Evaluator, dict[str, Any]]:
    """The estimator of the settings, and what it is made of."""
    from ..config import from_flat
    from ..device import resolve_device
    from ..evaluate.attempts import Evaluator
    from ..pose.build import build_estimator
    from ..replay.metrics import ObjectGeometry
    from .replay import read_settings

    config = read_settings(None, setting or [], None, from_flat({"device": device, "pose.weights": weights}))
    place = resolve_device(config.device)
    estimator = build_estimator(
        config, specs, lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
    )
    geometries = {s.name: ObjectGeometry.from_spec(s) for s in specs}
    used = {"device": str(place), "weights": estimator.weights, "pose_backend": estimator.backend}
    return Evaluator(estimator, geometries, place), used


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _print_attempts(console: Console, attempts: Sequence[Attempt]) -> None:
    table = Table(title="Attempts", title_justify="left")
    for column in ("scene", "frame", "object", "mm", "deg", "ADD-S mm", "ADD-S / d", "confidence", "ms"):
        table.add_column(column, justify="left" if column in ("scene", "object") else "right")
    for a in attempts:
        figures = ["refused", "", "", ""]
        if a.error is not None:
            e = a.error
            figures = [f"{e.translation_mm:.1f}", f"{e.rotation_deg:.1f}", f"{e.adds_mm:.1f}", f"{e.adds_ratio:.3f}"]
        confidence = "" if a.confidence is None else f"{a.confidence:.2f}"
        table.add_row(a.scene, str(a.frame), a.object, *figures, confidence, f"{a.milliseconds:.0f}")
    console.print(table)


def _finish(
    console: Console, attempts: Sequence[Attempt], out: Path, json_file: Path | None, about: Mapping[str, Any]
) -> None:
    """Table and JSON; exits 1 when there was nothing to attempt."""
    from ..evaluate.attempts import attempt_row, summarize_attempts
    from ..replay.result import write_json

    summary = summarize_attempts(attempts)
    for step, figures in summary.items():
        table = Table(title=step, title_justify="left")
        for column in ("object", "n", "refused", "mm p50", "p95", "deg p50", "p95", "recall", "AUC", "ms p50"):
            table.add_column(column, justify="left" if column == "object" else "right")
        for name, f in {**figures["by_object"], "all": figures["all"]}.items():
            errors = [f[key][p] for key in ("translation_error_mm", "rotation_error_deg") for p in ("p50", "p95")]
            cells = ["–" if v is None else f"{v:.1f}" for v in errors]
            cells += ["–" if f[key] is None else f"{f[key]:.3f}" for key in ("adds_recall_0.1d", "adds_auc_10cm")]
            cells.append(f"{f['milliseconds']['p50']:.0f}")
            table.add_row(name, str(f["attempts"]), str(f["refused"]), *cells)
        console.print(table)
    path = json_file or out / "result.json"
    write_json(path, {**about, **summary, "attempts": [attempt_row(a) for a in attempts]})
    console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
    if not attempts:
        console.print("nothing to evaluate", style="red")
        raise typer.Exit(1)


def _draw(
    out: Path, frames: Sequence[Any], attempts: Sequence[Attempt], masks: Sequence[Any], spec: ObjectSpec
) -> None:
    """Overlay pictures, the mask given tinted, and a contact sheet of them."""
    from PIL import Image

    from ..overlay import OverlayModel, draw_overlay
    from ..replay.report import contact_sheet
    from ..types import ObjectPose, TrackState

    out.mkdir(parents=True, exist_ok=True)
    models = {spec.name: OverlayModel.load(spec)}
    pictures, captions = [], []
    for frame, attempt, mask in zip(frames, attempts, masks, strict=True):
        tinted = frame.rgb.copy()
        tinted[mask] = (tinted[mask] * 0.7 + np.array([76, 0, 76])).astype(np.uint8)
        poses = []
        if attempt.T_cam_obj is not None:
            confidence = attempt.confidence if attempt.confidence is not None else float("nan")
            visibility = attempt.visibility if attempt.visibility is not None else float("nan")
            poses = [
                ObjectPose(spec.name, 0, attempt.T_cam_obj, confidence, visibility, TrackState.TRACKING, 0, "camera")
            ]
        e = attempt.error
        caption = attempt.refusal if e is None else f"{e.translation_mm:.1f} mm {e.rotation_deg:.1f} deg"
        picture = draw_overlay(tinted, frame.camera, poses, models, text=[caption])
        Image.fromarray(picture).save(out / f"{attempt.scene}.png")
        pictures.append(picture)
        captions.append(f"{attempt.scene}: {caption}")
    if pictures:
        contact_sheet(out / "contact_sheet.png", pictures, captions, columns=3)
