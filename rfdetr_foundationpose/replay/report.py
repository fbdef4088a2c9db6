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

from ..tables import number, plain_table
from .metrics import ADDS_THRESHOLD
from .result import Comparison, PoseSample, object_rows

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


def result_tables(result: Mapping[str, Any], samples: Sequence[PoseSample]) -> list[Table]:
    """Figures of each object and latency by stage, for the terminal; errors only where a truth is known, of ADD-S the median."""
    rows = object_rows(samples, result)
    judged = any(s.error is not None for s in samples) or bool(result.get("poses_missing"))
    confident = any(row["confidence"] is not None for row in rows)
    heads = ["object", "poses"]
    heads += ["missed", "mm p50", "p95", "deg p50", "p95", "ADD-S mm", "recall"] if judged else []
    objects = plain_table("Poses", *heads, *["confidence"] * confident)
    for row in rows:
        cells = [row["name"], str(row["poses"])]
        if judged:
            errors = [*row["translation"], *row["rotation"], row["adds"][0]]
            cells += [str(row["missing"]), *(number(v, 1) for v in errors), number(row["recall"])]
        objects.add_row(*cells, *[number(row["confidence"], 2)] * confident)
    latency = plain_table("Latency", "stage", "ms p50", "p95", "max")
    for stage, values in (result.get("latency_ms") or {}).items():
        latency.add_row(stage, *(number(values.get(k), 2) for k in ("p50", "p95", "max")))
    return [table for table in (objects, latency) if table.row_count]


def result_lines(result: Mapping[str, Any]) -> list[str]:
    """What a run was, in sentences whose numbers add up."""
    reasons = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in result["dropped_by_reason"].items())
    frames = f"frames: {result['frames_published']} published = {result['frames_processed']} processed"
    lines = [f"{frames} + {result['dropped']} dropped" + (f" ({reasons})" if reasons else "")]
    poses = f"poses: {result['poses']}"
    if result.get("adds_recall_0.1d") is not None:
        poses += f", {result['poses_missing']} missed, {result.get('spurious', 0)} of objects that are not there"
    else:
        poses += " (the recording has no ground truth of these objects, so nothing says how right they are)"
    lines.append(f"{poses}; tracks lost {result.get('lost', 0)} times")
    detector = ", ".join(str(result[k]) for k in ("detector_weights", "detector_backend") if result.get(k))
    lines.append(f"detector: {result['detection_source']}" + (f", {detector}" if detector else ""))
    lines.append(f"pose: {result['weights']}, {result.get('pose_backend', '')}".rstrip(", "))
    lines.append(f"device: {result['device']}")
    if "startup_seconds" in result:
        lines.append(
            f"node: waited {result['startup_seconds']:.1f} s until it was ready, {result['first_pose_seconds']:.1f} s for first poses; "
            f"{result['pacing']}"
        )
    return lines


def comparison_table(rows: Sequence[Comparison]) -> Table:
    """Figures against a baseline."""
    table = plain_table("Against the baseline", "figure", "verdict", "baseline", "now", "allowed", left=2)
    for row in rows:
        verdict = "[red]regressed[/red]" if row.regressed else "[green]ok[/green]"
        table.add_row(row.name, verdict, *(number(v) for v in (row.baseline, row.value, row.allowed)))
    return table
