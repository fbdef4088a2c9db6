"""``export``: the networks as checked ONNX files."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..interrupts import CutShort
from ..tables import plain_table
from .console import kept, open_console, progress_bar
from .options import LARGEST_BATCH, OfficialSize, PoseWeights
from .outputs import Overwrite, claim

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from ..evaluate.export_check import ExportCheck

REFINED_EVERY = 12
"""A refiner is checked on one of so many hypotheses, since it says something of each by itself; a scorer compares all."""
Scenes = Annotated[
    int,
    typer.Option(
        min=0,
        help="Rendered scenes that each file is checked on: a scorer on 252 hypotheses each, a refiner on 21; 0 checks nothing.",
    ),
]
Detector = Annotated[bool, typer.Option("--detector/--no-detector", help="RF-DETR too.")]
DetectorWeights = Annotated[str, typer.Option(help="Value of detector.weights.")]


def export(
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("out/onnx"),
    weights: PoseWeights = "default",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or both.")] = "both",
    batch: Annotated[int, typer.Option(min=0, max=LARGEST_BATCH, help="Fixed batch size; 0 leaves it dynamic.")] = 0,
    opset: Annotated[int, typer.Option(min=17, max=23, help="ONNX opset.")] = 17,
    scenes: Scenes = 1,
    detector: Detector = True,
    detector_weights: DetectorWeights = "default",
    official_size: OfficialSize = False,
    overwrite: Overwrite = False,
) -> None:
    """Write refiner, scorer and detector as ONNX and check each on rendered scenes. A file that differs is refused: exit 1."""
    import torch

    from ..engines.onnx_export import export_onnx
    from ..engines.onnx_file import OUTPUTS
    from ..evaluate.networks import load_networks
    from ..process import prepare_process

    console = open_console()
    if precision not in ("fp32", "fp16", "both"):
        raise typer.BadParameter(f"--precision={precision} must be fp32, fp16 or both")
    prepare_process(torch.device("cpu"))
    kinds = ("fp32", "fp16") if precision == "both" else (precision,)
    loaded = load_networks(weights, official_size)
    networks = loaded.modules
    names = {(role, kind): f"{role}_{kind}{f'_b{batch}' if batch else ''}.onnx" for role in networks for kind in kinds}
    names |= {("detector", kind): f"detector_{kind}.onnx" for kind in kinds} if detector else {}
    claim("export", out, tuple(names.values()), overwrite=overwrite)
    columns = ("file", "sha256", "difference to torch FP32", "verdict", "MB")
    table = plain_table(f"ONNX of {loaded.description}, in {out}", *columns, left=4)
    good = True
    with CutShort() as cut, tempfile.TemporaryDirectory(dir=out, prefix=".checking-") as scratch:
        for role, network in networks.items():
            files = [
                export_onnx(
                    network,
                    Path(scratch) / names[role, kind],
                    outputs=OUTPUTS[role],
                    precision=kind,
                    batch=batch or None,
                    opset=opset,
                )
                for kind in kinds
            ]
            checks = check_files(role, network, files, kinds, scenes, batch, ordered=not official_size)
            good &= _keep(table, out, files, checks)
        if detector:
            good &= _detector(table, out, Path(scratch), kinds, scenes, detector_weights)
    console.print(table)
    kept(cut, table.row_count, len(names), "files", out)
    if not good:
        raise typer.Exit(1)


def check_files(
    role: str, network: nn.Module, files: list[Path], kinds: tuple[str, ...], scenes: int, batch: int, *, ordered: bool
) -> list[ExportCheck | str]:
    """The result of each file's check, or why it was not checked. A refiner is asked for every REFINED_EVERY-th hypothesis."""
    from ..evaluate.export_check import FileCheck, reference_outputs
    from ..pose.example_crops import hypothesis_crops

    if scenes == 0:
        return ["not asked for"] * len(files)
    if find_spec("onnxruntime") is None:
        return ["onnxruntime is not installed: pip install onnxruntime"] * len(files)
    ordered = ordered and (not batch or batch > 20)  # of a few hypotheses one swap is a large share
    checks = [FileCheck(f, kind, ordered) for f, kind in zip(files, kinds, strict=True)]
    with progress_bar(open_console(), transient=True) as progress:
        task = progress.add_task(f"{role}: scenes", total=scenes)
        for i in range(scenes):  # one at a time: 252 crops of each side take 310 MB
            crops = hypothesis_crops(i, role, 1 if role == "scorer" else REFINED_EVERY)
            crops = crops.first(batch) if batch else crops
            expected = reference_outputs(network, crops)
            for check in checks:
                check(crops, expected)
            progress.update(task, advance=1)
    return [check.result() for check in checks]


def _keep(table: Table, out: Path, files: list[Path], checks: list[Any]) -> bool:
    """Move the files that are right to ``out``; whether all are."""
    from ..accel.digests import file_digest

    good = True
    for path, check in zip(files, checks, strict=True):
        size, digest = f"{path.stat().st_size / 1e6:.1f}", file_digest(path)[:12]
        reasons = () if isinstance(check, str) else check.reasons
        verdict = "refused: " + "; ".join(reasons) if reasons else "ok"
        if isinstance(check, str):
            verdict = "written, not compared"
        if not reasons:
            path.replace(out / path.name)
        good &= not reasons
        table.add_row(path.name, digest, str(check), verdict, size)
    return good


def _detector(table: Table, out: Path, scratch: Path, kinds: tuple[str, ...], scenes: int, weights: str) -> bool:
    import torch

    from ..detect.checkpoint import load_model
    from ..detect.onnx_detector import export_detector
    from ..evaluate.detector_export import check_detector

    loaded = load_model(weights, "nano", torch.device("cpu"))
    files = [export_detector(loaded.model, scratch / f"detector_{kind}.onnx", kind) for kind in kinds]
    checks = check_detector(loaded, files, 4 * scenes)
    return _keep(table, out, files, checks)
