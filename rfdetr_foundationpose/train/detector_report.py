"""Pictures of a detector's training: results.png and samples.png."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..replay.report import contact_sheet

LOSSES = {"class": "class loss", "l1": "box loss (L1)", "giou": "box loss (GIoU)"}
MASK_LOSSES = {"mask_ce": "mask loss (cross-entropy)", "mask_dice": "mask loss (dice)"}
MEASURED = (
    (("recall", "crossed_recall"), "recall at score 0.5, IoU 0.5"),
    (("precision", "crossed_precision"), "precision at score 0.5, IoU 0.5"),
    (("map_50", "map_50_95"), "mAP"),
)
MEASURED_MASKS = (
    (("mask_iou_p50", "mask_iou_p10", "crossed_mask_iou_p50"), "IoU of masks"),
    (("mask_map_50", "mask_map_50_95"), "mAP of masks"),
)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of detector.jsonl; a line cut off by a crash is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def plot_training(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Losses, and what was measured on held-out scenes, over minutes of training."""
    steps = [line for line in lines if "class" in line]
    measured = [
        (line["minutes"], line.get("interim") or line.get("evaluation")) for line in lines if "class" not in line
    ]
    masks = any("mask_ce" in line for line in steps)
    losses = {**LOSSES, **(MASK_LOSSES if masks else {})}
    figure = Figure(figsize=(4 * len(losses), 6.5), layout="constrained")
    axes = figure.subplots(2, len(losses))
    for axis, (key, title) in zip(axes[0], losses.items(), strict=True):
        drawn = [line for line in steps if key in line]
        axis.plot([line["minutes"] for line in drawn], [line[key] for line in drawn], lw=1.2)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
    for axis, (keys, title) in zip(axes[1], (*MEASURED, *(MEASURED_MASKS if masks else ())), strict=True):
        for key in keys:
            points = [(minute, found[key]) for minute, found in measured if found and key in found]
            if points:
                axis.plot(*zip(*points, strict=True), ".-", label=key.replace("_", " "))
        axis.set_title(title)
        axis.set_ylim(0, 1.02)
        if axis.lines:
            axis.legend(loc="lower right")
    for axis in axes.flat:
        axis.set_xlabel("minutes of training")
        axis.grid(alpha=0.3)
    FigureCanvasAgg(figure).print_png(str(path))


def samples_picture(path: Path, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Held-out scenes with what the detector found; none gives no file."""
    if pictures:
        contact_sheet(
            path, pictures, [f"held-out scene {i}: green right, red false, yellow missed" for i in range(len(pictures))]
        )
