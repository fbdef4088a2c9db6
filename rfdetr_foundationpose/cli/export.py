"""``export``: the pose networks as checked ONNX files. ``build-engines``: TensorRT engines of them, cached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import open_console, plain_table, sayer
from .options import LARGEST_BATCH, OfficialSize, PoseWeights, parse_numbers
from .outputs import Overwrite, claim

TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2}
"""Largest accepted difference to torch in FP32, relative to an output's largest magnitude."""


def export(
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("out/onnx"),
    weights: PoseWeights = "default",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or both.")] = "both",
    batch: Annotated[int, typer.Option(min=0, max=LARGEST_BATCH, help="Fixed batch size; 0 leaves it dynamic.")] = 0,
    opset: Annotated[int, typer.Option(min=17, max=23, help="ONNX opset.")] = 17,
    official_size: OfficialSize = False,
    overwrite: Overwrite = False,
) -> None:
    """Write refiner and scorer as ONNX; check each file and compare it with torch. Exits 1 when one differs too much."""
    from ..accel.onnx_export import OUTPUTS, compare_with_torch, export_onnx, file_digest
    from ..evaluate.networks import load_networks

    console = open_console()
    if precision not in ("fp32", "fp16", "both"):
        raise typer.BadParameter(f"--precision={precision} must be fp32, fp16 or both")
    networks, description = load_networks(weights, official_size)
    kinds = ("fp32", "fp16") if precision == "both" else (precision,)
    names = {(role, kind): f"{role}_{kind}{f'_b{batch}' if batch else ''}.onnx" for role in networks for kind in kinds}
    claim("export", out, tuple(names.values()), overwrite=overwrite)
    columns = ("file", "sha256", "difference to torch FP32", "verdict", "MB")
    table = plain_table(f"ONNX of {description}, in {out}", *columns, left=4)
    good = True
    for role, network in networks.items():
        for kind in kinds:
            path = export_onnx(
                network,
                out / names[role, kind],
                outputs=OUTPUTS[role],
                precision=kind,
                batch=batch or None,
                opset=opset,
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
            table.add_row(path.name, file_digest(path)[:12], shown, verdict, f"{path.stat().st_size / 1e6:.1f}")
    console.print(table)
    if not good:
        raise typer.Exit(1)


def build_engines(
    weights: PoseWeights = "default",
    refiner: Annotated[
        Path | None, typer.Option("--refiner-onnx", help="ONNX file instead, e.g. NVIDIA's refine_model.onnx.")
    ] = None,
    scorer: Annotated[
        Path | None, typer.Option("--scorer-onnx", help="ONNX file instead, e.g. NVIDIA's score_model.onnx.")
    ] = None,
    batches: Annotated[str, typer.Option(help="Batch sizes: tracked objects, and hypotheses of registration.")] = "",
    device: Annotated[str, typer.Option(help="CUDA device.")] = "cuda",
    official_size: OfficialSize = False,
) -> None:
    """Build TensorRT engines for this GPU and cache them; those that fit already are kept. Exits 1 without TensorRT."""
    import torch

    from ..accel.base import BackendUnavailable, RunnerContext
    from ..accel.onnx_export import OnnxFormatError, inspect_onnx
    from ..accel.onnx_runners import runner_from_onnx
    from ..accel.runner import make_runner
    from ..evaluate.networks import load_networks

    say = sayer(open_console())
    sizes = parse_batches(batches)
    files = {"refiner": refiner, "scorer": scorer}
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendUnavailable("no CUDA device is visible to torch")
    networks: dict[str, Any] = {}
    if None in files.values():
        networks, _ = load_networks(weights, official_size)
    for role, file in files.items():
        if file is None:
            make_runner(
                networks[role], "tensorrt", RunnerContext(device, label=role), batches=sizes[role], fallback=False
            )
            continue
        found = inspect_onnx(file)
        if found.role != role:
            raise OnnxFormatError(f"{file} is a {found.role}, given as --{role}-onnx")
        wanted = [found.batch] if found.batch else sizes[role]
        runner_from_onnx(file, "tensorrt", RunnerContext(device, label=role), batches=wanted)
    say("engines are ready: set pose.backend to tensorrt")


def parse_batches(text: str) -> dict[str, list[int]]:
    """Batch sizes by role; empty: what the pipeline uses. Raises typer.BadParameter."""
    if not text:
        return default_batches()
    sizes = parse_numbers(text, "--batches")
    return {"refiner": sizes, "scorer": sizes}


def default_batches() -> dict[str, list[int]]:
    """Of tracking, and of registering an object without symmetries on the default and the full schedule."""
    import torch

    from ..config import PoseConfig
    from ..pose.estimator import TRACK_BATCHES
    from ..pose.register_program import pruning_counts, scored_batches

    settings = PoseConfig()
    total = 252
    refiner, scorer = set(TRACK_BATCHES), set()
    for schedule in (settings.register_schedule, "full"):
        kept = pruning_counts(schedule, total, settings.register_iterations, torch.device("cuda"))
        refiner |= set(kept)
        scorer |= set(scored_batches(kept))
    return {"refiner": sorted(refiner), "scorer": sorted(scorer)}
