"""What ``evaluate synth``, ``evaluate bop`` and ``evaluate ycbv`` share: the estimator, tables, JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from ..interrupts import Interruptible
from ..tables import number, plain_table
from .console import kept, progress_bar, sayer
from .outputs import Outputs
from .settings import read_settings

if TYPE_CHECKING:
    from ..evaluate.attempts import Attempt
    from ..evaluate.pose_attempts import Tools
    from ..objects import ObjectSpec


def build_tools(specs: Sequence[ObjectSpec], device: str, weights: str, setting: list[str] | None) -> Tools:
    """The estimator of the options and what judges it. Raises ConfigError, CheckpointError, MeshError."""
    from ..config import from_flat
    from ..evaluate.pose_attempts import make_tools

    config = read_settings(None, setting or [], None, from_flat({"device": device, "pose.weights": weights}))
    return make_tools(config, specs)


def print_attempts(console: Console, attempts: Sequence[Attempt]) -> None:
    """One row each."""
    columns = ("scene", "object", "frame", "mm", "deg", "ADD / d", "ADD-S / d", "confidence", "ms")
    table = plain_table("Attempts", *columns, left=2)
    for a in attempts:
        figures = ["refused", "", "", ""]
        if a.error is not None:
            e = a.error
            figures = [f"{e.translation_mm:.1f}", f"{e.rotation_deg:.1f}", f"{e.add_ratio:.3f}", f"{e.adds_ratio:.3f}"]
        confidence = "" if a.confidence is None else f"{a.confidence:.2f}"
        table.add_row(a.scene, a.object, str(a.frame), *figures, confidence, f"{a.milliseconds:.0f}")
    console.print(table)


SAVE_SECONDS = 10.0
"""The attempts so far are written to disk each time that so many seconds have passed."""


def run(
    console: Console,
    outputs: Outputs,
    tools: Tools,
    about: Mapping[str, Any],
    pieces: Iterable[Sequence[Attempt]],
    total: int | None,
    what: str,
    figures: Callable[[], Mapping[str, Any]] = dict,
) -> list[Attempt]:
    """Make the attempts of all pieces (``total`` of them, which are called ``what``) and write them as they come.

    figures: what else is to be written of the attempts so far. On an interrupt those that were made are shown and kept, and the command ends with its exit code.
    """
    say = sayer(console)
    attempts: list[Attempt] = []
    done, saved = 0, time.monotonic()
    with progress_bar(console) as progress, Interruptible() as stop:
        task = progress.add_task("evaluate", total=total)
        for piece in pieces:
            attempts += piece
            done += 1
            progress.update(task, completed=done)
            if stop.requested or done == total:
                break
            if time.monotonic() - saved > SAVE_SECONDS:
                saved = time.monotonic()
                outputs.write(_tree(tools, {**about, **figures()}, attempts))
    show(console, attempts)
    path = outputs.write(_tree(tools, {**about, **figures()}, attempts))
    kept(stop, done, total, what, path)
    say(f"written: {path}")
    if not attempts:
        console.print("nothing to evaluate", style="red")
        raise typer.Exit(1)
    return attempts


def _tree(tools: Tools, about: Mapping[str, Any], attempts: Sequence[Attempt]) -> dict[str, Any]:
    from ..evaluate.attempts import attempt_row, summarize_attempts

    rows = [attempt_row(a) for a in attempts]
    return {**tools.about, **about, **summarize_attempts(attempts), "attempts": rows}


def show(console: Console, attempts: Sequence[Attempt]) -> None:
    """A table of register, and one of track. ADD and ADD-S: share of poses within 0.1 of the diameter."""
    from ..evaluate.attempts import summarize_attempts

    for step, figures in summarize_attempts(attempts).items():
        table = plain_table(
            step, "object", "n", "refused", "mm p50", "p95", "deg p50", "p95", "ADD", "ADD-S", "AUC", "ms p50"
        )
        for name, f in {**figures["by_object"], "all": figures["all"]}.items():
            errors = [f[key][p] for key in ("translation_error_mm", "rotation_error_deg") for p in ("p50", "p95")]
            cells = [number(v, 1) for v in errors]
            cells += [number(f[key]) for key in ("add_recall_0.1d", "adds_recall_0.1d", "adds_auc_10cm")]
            cells.append(f"{f['milliseconds']['p50']:.0f}")
            table.add_row(name, str(f["attempts"]), str(f["refused"]), *cells)
        console.print(table)
