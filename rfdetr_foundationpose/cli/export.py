"""``export``: the pose networks as checked ONNX files. ``build-engines``: TensorRT engines of them, cached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2}
"""Largest accepted difference to torch in FP32, relative to an output's largest magnitude."""

Weights = Annotated[str, typer.Option(help="Value of pose.weights: 'default' or a directory.")]
OfficialSize = Annotated[
    bool, typer.Option("--official-size", help="Official network size with random weights, to try a machine out.")
]


def export(
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("out/onnx"),
    weights: Weights = "default",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or both.")] = "both",
    batch: Annotated[int, typer.Option(min=0, help="Fixed batch size; 0 leaves it dynamic.")] = 0,
    opset: Annotated[int, typer.Option(min=17, help="ONNX opset.")] = 17,
    official_size: OfficialSize = False,
) -> None:
    """Write refiner and scorer as ONNX; check each file and compare it with torch. Exits 1 when one differs too much."""
    from ..accel.onnx_export import OUTPUTS, compare_with_torch, export_onnx, file_digest

    console = Console()
    if precision not in ("fp32", "fp16", "both"):
        raise typer.BadParameter(f"--precision={precision} must be fp32, fp16 or both")
    networks, description = load_networks(weights, official_size, console)
    table = Table(title=f"ONNX of {description}, in {out}", title_justify="left")
    for column in ("file", "MB", "sha256", "difference to torch FP32", "verdict"):
        table.add_column(column)
    good = True
    for role, network in networks.items():
        for kind in ("fp32", "fp16") if precision == "both" else (precision,):
            name = f"{role}_{kind}{f'_b{batch}' if batch else ''}.onnx"
            path = export_onnx(
                network, out / name, outputs=OUTPUTS[role], precision=kind, batch=batch or None, opset=opset
            )
            try:
                differences = compare_with_torch(path, network)
            except ImportError:
                shown, verdict = "onnxruntime is not installed: pip install onnxruntime", "checked, not compared"
            else:
                right = all(d < TOLERANCE[kind] for d in differences.values())
                good &= right
                shown = ", ".join(f"{k} {v:.1e}" for k, v in differences.items())
                verdict = "ok" if right else f"above {TOLERANCE[kind]:.0e}"
            table.add_row(path.name, f"{path.stat().st_size / 1e6:.1f}", file_digest(path)[:12], shown, verdict)
    console.print(table)
    if not good:
        raise typer.Exit(1)


def build_engines(
    weights: Weights = "default",
    refiner: Annotated[Path | None, typer.Option(help="ONNX file instead, e.g. NVIDIA's refine_model.onnx.")] = None,
    scorer: Annotated[Path | None, typer.Option(help="ONNX file instead, e.g. NVIDIA's score_model.onnx.")] = None,
    batches: Annotated[str, typer.Option(help="Batch sizes: tracked objects, and hypotheses of registration.")] = "",
    device: Annotated[str, typer.Option(help="CUDA device.")] = "cuda",
    official_size: OfficialSize = False,
) -> None:
    """Build TensorRT engines for this GPU and cache them; those that fit already are kept. Exits 1 without TensorRT."""
    import torch

    from ..accel.base import BackendUnavailable
    from ..accel.onnx_export import OnnxFormatError, inspect_onnx
    from ..accel.runner import make_runner, runner_from_onnx

    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    sizes = parse_batches(batches)
    files = {"refiner": refiner, "scorer": scorer}
    try:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendUnavailable("no CUDA device is visible to torch")
        networks: dict[str, Any] = {}
        if None in files.values():
            networks, _ = load_networks(weights, official_size, console)
        for role, file in files.items():
            if file is None:
                make_runner(networks[role], "tensorrt", device, say, label=role, batches=sizes[role], fallback=False)
                continue
            found = inspect_onnx(file).role
            if found != role:
                raise OnnxFormatError(f"{file} is a {found}, given as --{role}")
            fixed = inspect_onnx(file).batch
            runner_from_onnx(file, "tensorrt", device, say, label=role, batches=[fixed] if fixed else sizes[role])
    except (BackendUnavailable, OnnxFormatError) as error:
        console.print(f"build-engines: {error}", markup=False, style="red")
        raise typer.Exit(1) from error
    say("engines are ready: set pose.backend to tensorrt")


def parse_batches(text: str) -> dict[str, list[int]]:
    """Batch sizes by role; empty: what the pipeline uses. Raises typer.BadParameter."""
    if not text:
        return default_batches()
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise typer.BadParameter(f"--batches={text} must be numbers, e.g. 1,2,4,252") from error
    if not sizes or sizes[0] < 1:
        raise typer.BadParameter(f"--batches={text} must be positive")
    return {"refiner": sizes, "scorer": sizes}


def default_batches() -> dict[str, list[int]]:
    """Of tracking, and of registering an object without symmetries on the default and the full schedule."""
    import torch

    from ..config import PoseConfig
    from ..pose.estimator import TRACK_BATCHES
    from ..pose.register_program import parse_schedule, scored_batches

    settings = PoseConfig()
    total = 252
    refiner, scorer = set(TRACK_BATCHES), set()
    for schedule in (settings.register_schedule, "full"):
        kept = parse_schedule(schedule, total, settings.register_iterations, torch.device("cuda"))
        refiner |= set(kept)
        scorer |= set(scored_batches(kept))
    return {"refiner": sorted(refiner), "scorer": sorted(scorer)}


def load_networks(weights: str, official_size: bool, console: Console) -> tuple[dict[str, nn.Module], str]:
    """Refiner and scorer on the CPU in eval mode, and what they are. Exits 2 when the weights cannot be loaded."""
    import torch

    from ..pose.networks import RefineNet, ScoreNet

    if official_size:
        torch.manual_seed(0)
        return {"refiner": RefineNet(1.0).eval(), "scorer": ScoreNet(1.0).eval()}, "official size, random weights"
    from ..config import from_flat
    from ..pose import checkpoints
    from ..pose.build import weights_directory

    directory = weights_directory(from_flat({"pose.weights": weights}))
    try:
        refiner, about = checkpoints.load_refiner(checkpoints.find(directory, "refiner"))
        scorer, _ = checkpoints.load_scorer(checkpoints.find(directory, "scorer"))
    except checkpoints.CheckpointError as error:
        console.print(f"{error}", markup=False, style="red")
        raise typer.Exit(2) from error
    return {"refiner": refiner, "scorer": scorer}, about.description
