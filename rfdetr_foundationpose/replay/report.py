"""Pictures and tables of a run: plots, contact sheet, video, HTML page, terminal tables."""

from __future__ import annotations

import html
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
    Image.fromarray(sheet).save(path)


class VideoWriter:
    """An MP4 and, small, an animated WebP that every browser plays. Use as a context manager."""

    def __init__(self, mp4: Path, webp: Path | None, fps: float, webp_width: int = 400, webp_frames: int = 60) -> None:
        self._mp4, self._webp, self._fps = mp4, webp, fps
        self._webp_width, self._webp_frames = webp_width, webp_frames
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._small: list[Image.Image] = []

    def __enter__(self) -> VideoWriter:
        return self

    def add(self, picture: Picture) -> None:
        """Append a frame (H, W, 3) uint8 RGB. Raises RuntimeError when OpenCV cannot write MP4 here."""
        h, w = picture.shape[:2]
        if self._writer is None:
            self._size = (w, h)
            self._writer = cv2.VideoWriter(str(self._mp4), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, self._size)
            if not self._writer.isOpened():
                raise RuntimeError(f"OpenCV cannot write {self._mp4}: it was built without an MPEG-4 encoder")
        if (w, h) != self._size:
            raise ValueError(f"frame is {w}x{h}, the video is {self._size[0]}x{self._size[1]}")
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if self._webp is not None:
            size = (self._webp_width, round(self._webp_width * h / w))
            self._small.append(Image.fromarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)))

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()
        if self._webp is not None and self._small:
            step = -(-len(self._small) // self._webp_frames)
            kept = self._small[::step]
            duration = round(1000 * step / self._fps)
            kept[0].save(self._webp, save_all=True, append_images=kept[1:], duration=duration, loop=0, quality=60)


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


def write_html(
    path: Path, title: str, result: Mapping[str, Any], files: Sequence[Path], rows: Sequence[Comparison] = ()
) -> None:
    """One static page beside the pictures that it shows; no scripts, no network."""
    parts = [
        "<!doctype html><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title>",
        "<style>body{font:15px system-ui;max-width:70em;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #bbb;padding:.25em .7em;text-align:right}"
        "td:first-child,th:first-child{text-align:left}.bad{background:#fcc}img,video{max-width:100%}</style>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    if rows:
        parts.append("<table><tr><th>figure<th>baseline<th>now<th>allowed</tr>")
        for row in rows:
            cells = "".join(f"<td>{_number(v, 3)}" for v in (row.baseline, row.value, row.allowed))
            parts.append(f"<tr class='{'bad' if row.regressed else ''}'><td>{html.escape(row.name)}{cells}</tr>")
        parts.append("</table>")
    parts.append("<table>")
    for key, value in result.items():
        if isinstance(value, Mapping):
            for inner, figure in value.items():
                parts.append(f"<tr><td>{html.escape(f'{key}.{inner}')}<td>{html.escape(_show(figure))}</tr>")
        else:
            parts.append(f"<tr><td>{html.escape(key)}<td>{html.escape(_show(value))}</tr>")
    parts.append("</table>")
    for file in files:
        name = html.escape(file.name)
        tag = f"<video controls src='{name}'></video>" if file.suffix == ".mp4" else f"<img src='{name}' alt='{name}'>"
        parts.append(f"<p>{tag}<br>{name}</p>")
    path.write_text("\n".join(parts) + "\n")


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_show(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_show(v) for v in value)
    return _number(value, 3) if isinstance(value, float) or value is None else str(value)


def _number(value: Any, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)
