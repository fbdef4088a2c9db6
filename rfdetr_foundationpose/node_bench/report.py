"""Table and picture of ``bench node``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from rich import box
from rich.table import Table

from .session import PARTS, POINTS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LABELS = {
    "dds_in": "DDS in",
    "waiting": "waiting",
    "conversion": "conversion",
    "processing": "upload, GPU",
    "publish": "publish",
    "dds_out": "DDS out",
}


def node_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """A run a row; milliseconds."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for column in ("run", "objects", "frames", "dropped", *POINTS, "image at empty subscriber p50"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for part in PARTS:
        table.add_column(f"{LABELS[part]} p50", justify="right")
    table.add_column("cores of the node", justify="right")
    for row in rows:
        parts = row.get("parts_ms") or {}
        table.add_row(
            row["run"],
            f"{row['objects_found']} of {row['objects']}",
            str(row["frames"]),
            str(row["dropped"]),
            *(_ms(row["stamp_to_pose_ms"][point]) for point in POINTS),
            _ms(row["image_age_at_empty_subscriber_ms"]["p50"]),
            *(_ms(parts[part]["p50"] if part in parts else None) for part in PARTS),
            f"{row['cpu_cores']['node']:.2f}",
        )
    return table


def node_picture(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Where the milliseconds between stamp and pose go: a bar a run, of its parts' medians; runs without parts in one piece."""
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(rows) + 1.6), layout="constrained")
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    for y, row in enumerate(rows):
        left, parts = 0.0, row.get("parts_ms") or {}
        for i, part in enumerate(PARTS):
            if part in parts and parts[part]["p50"] is not None:
                label = LABELS[part] if y == 0 else None
                axes.barh(y, parts[part]["p50"], left=left, color=colours[i], label=label)
                left += parts[part]["p50"]
        total = row["stamp_to_pose_ms"]["p50"]
        if not parts and total is not None:
            axes.barh(y, total, color="0.6")
    axes.set_yticks(range(len(rows)), [f"{row['run']}, {row['objects']} objects" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ms from the camera's stamp to the pose received, p50")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
