"""What ``evaluate synth``, ``evaluate bop`` and ``evaluate ycbv`` share: the estimator, tables, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from .console import number, sayer
from .settings import read_settings

if TYPE_CHECKING:
    from ..evaluate.attempts import Attempt
    from ..evaluate.pose_attempts import Tools
    from ..objects import ObjectSpec


def tools_of(specs: Sequence[ObjectSpec], device: str, weights: str, setting: list[str] | None) -> Tools:
    """The estimator of the options and what judges it. Raises ConfigError, CheckpointError, MeshError."""
    from ..config import from_flat
    from ..evaluate.pose_attempts import make_tools

    config = read_settings(None, setting or [], None, from_flat({"device": device, "pose.weights": weights}))
    return make_tools(config, specs)


def print_attempts(console: Console, attempts: Sequence[Attempt]) -> None:
    """One row each."""
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


def finish(
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
            cells = [number(v, 1) for v in errors]
            cells += [number(f[key]) for key in ("adds_recall_0.1d", "adds_auc_10cm")]
            cells.append(f"{f['milliseconds']['p50']:.0f}")
            table.add_row(name, str(f["attempts"]), str(f["refused"]), *cells)
        console.print(table)
    path = json_file or out / "result.json"
    write_json(path, {**about, **summary, "attempts": [attempt_row(a) for a in attempts]})
    sayer(console)(f"written: {path}")
    if not attempts:
        console.print("nothing to evaluate", style="red")
        raise typer.Exit(1)
