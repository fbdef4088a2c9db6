"""Pictures and tables of a run: plots, contact sheet, terminal tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from .metrics import ADDS_THRESHOLD
from .result import Comparison, PoseSample

Picture = NDArray[np.uint8]


def plot_errors(path: Path, samples: Sequence[PoseSample], diameters: Mapping[str, float]) -> None:
    """Translation, rotation and ADD-S over time, one line per object; the dashed line is the ADD-S threshold."""
    panels = (
        ("translation error [mm]", lambda s: s.error.translation_mm),
        ("rotation error [deg]", lambda s: s.error.rotation_deg),
        ("ADD-S [mm]", lambda s: s.error.adds_mm),
    )
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True)
    for name, rows in _by_object(s for s in samples if s.error is not None).items():
        for axis, (label, value) in zip(axes, panels, strict=True):
            line = axis.plot([s.seconds for s in rows], [value(s) for s in rows], ".-", ms=3, lw=1, label=name)
            axis.set_ylabel(label)
            if label.startswith("ADD-S") and name in diameters:
                limit = 1e3 * ADDS_THRESHOLD * diameters[name]
                axis.axhline(limit, ls="--", lw=1, color=line[0].get_color())
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    if axes[0].lines:
        figure.legend(handles=axes[0].lines, loc="outside upper center", ncols=5)
    axes[-1].set_xlabel("time in the recording [s]")
    _save(figure, path)


def plot_latency(path: Path, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Milliseconds over seconds per stage, logarithmic: stages differ by orders of magnitude."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axis = figure.subplots()
    for stage, points in series.items():
        if points:
            t, ms = zip(*points, strict=True)
            axis.plot(t, ms, ".-", ms=3, lw=1, label=stage)
    axis.set_yscale("log")
    axis.set_xlabel("time [s]")
    axis.set_ylabel("latency [ms]")
    axis.grid(alpha=0.3, which="both")
    if axis.lines:
        figure.legend(loc="outside upper center", fontsize="small", ncols=5)
    _save(figure, path)


def _by_object(samples: Iterable[PoseSample]) -> dict[str, list[PoseSample]]:
    groups: dict[str, list[PoseSample]] = {}
    for sample in samples:
        groups.setdefault(sample.object, []).append(sample)
    return groups


def _save(figure: Figure, path: Path) -> None:
    # The Agg canvas directly: pyplot would pick a window system and keep global state.
    FigureCanvasAgg(figure).print_png(str(path))


def contact_sheet(path: Path, pictures: Sequence[Picture], captions: Sequence[str], columns: int = 3) -> None:
    """Tiles of equal width with a caption each. pictures: (H, W, 3) uint8 RGB. Raises ValueError when there are none."""
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    width = 640
    tiles = []
    for picture, caption in zip(pictures, captions, strict=True):
        height = round(width * picture.shape[0] / picture.shape[1])
        tile = np.full((height + 26, width, 3), 255, np.uint8)
        tile[:height] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        cv2.putText(tile, caption, (6, height + 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        tiles.append(tile)
    tallest = max(t.shape[0] for t in tiles)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * tallest, columns * width, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * tallest, (i % columns) * width
        sheet[y : y + tile.shape[0], x : x + width] = tile
    Image.fromarray(sheet).save(path, quality=85)


def result_tables(result: Mapping[str, Any]) -> list[Table]:
    """Accuracy, latency and counters of a result.json for the terminal."""
    accuracy = Table(title="Pose error", title_justify="left")
    for column in ("", "p50", "p95"):
        accuracy.add_column(column, justify="left" if not column else "right")
    for key, label in (
        ("translation_error_mm", "translation (mm)"),
        ("rotation_error_deg", "rotation (deg)"),
        ("adds_mm", "ADD-S (mm)"),
    ):
        values = result.get(key) or {}
        accuracy.add_row(label, _number(values.get("p50")), _number(values.get("p95")))
    accuracy.add_row("ADD-S recall at 0.1 d", _number(result.get("adds_recall_0.1d"), 3), "")

    latency = Table(title="Latency (ms)", title_justify="left")
    for column in ("stage", "p50", "p95", "max"):
        latency.add_column(column, justify="left" if column == "stage" else "right")
    for stage, values in (result.get("latency_ms") or {}).items():
        latency.add_row(stage, *(_number(values.get(k)) for k in ("p50", "p95", "max")))

    run = Table(title="Run", title_justify="left", show_header=False)
    run.add_column()
    run.add_column()
    for key, value in result.items():
        if not isinstance(value, Mapping | list) and key != "adds_recall_0.1d":
            run.add_row(key.replace("_", " "), _number(value, 2) if isinstance(value, float) else str(value))
    return [accuracy, latency, run]


def comparison_table(rows: Sequence[Comparison]) -> Table:
    """Figures against a baseline."""
    table = Table(title="Against the baseline", title_justify="left")
    for column in ("figure", "baseline", "now", "allowed", "verdict"):
        table.add_column(column, justify="left" if column in ("figure", "verdict") else "right")
    for row in rows:
        verdict = "[red]regressed[/red]" if row.regressed else "[green]ok[/green]"
        table.add_row(row.name, _number(row.baseline, 3), _number(row.value, 3), _number(row.allowed, 3), verdict)
    return table


def _number(value: Any, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)
