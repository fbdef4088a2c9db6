"""Tables and picture of ``bench node``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from rich.table import Table

from ..tables import plain_table
from .parts import PARTS, POINTS, PROCESSING

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LABELS = {
    "dds_in": "DDS in",
    "waiting": "waiting",
    "conversion": "conversion",
    "processing": "processing",
    "publish": "publish",
    "dds_out": "DDS out",
}

SHORT = LABELS | {"dds_in": "in", "waiting": "wait", "conversion": "convert", "processing": "process", "dds_out": "out"}
"""For a table of 80 columns."""


def node_tables(rows: Sequence[dict[str, Any]], title: str) -> list[Table]:
    """A run a row: ages of the poses and what was dropped; where the milliseconds go, p50 of each part; and of processing, too."""
    ages = plain_table(f"{title}: from stamp to pose", "run", "objects", "dropped", *POINTS, "cores")
    parts = plain_table("its parts, p50", "run", *(SHORT[part] for part in PARTS), "image")
    parts.caption = (
        "in, out: over DDS; image: its age in an rclpy subscriber that does nothing; cores: CPU time of the node"
    )
    parts.caption_justify = "left"
    host = plain_table("of process: the host's time, p50", "run", *PROCESSING)
    host.caption = (
        "depth: its filter; launch: a tracking step but for the wait, which is gpu; detector: the wait for it, 0 in "
        "frames that it does not run on"
    )
    host.caption_justify = "left"
    for row in rows:
        found, dropped = f"{row['objects_found']} of {row['objects']}", f"{row['dropped']} of {row['frames']}"
        points = (_ms(row["stamp_to_pose_ms"][point]) for point in POINTS)
        ages.add_row(row["run"], found, dropped, *points, f"{row['cpu_cores']['node']:.2f}")
        each = row.get("parts_ms") or {}
        medians = (_ms(each[part]["p50"] if part in each else None) for part in PARTS)
        parts.add_row(row["run"], *medians, _ms(row["image_age_at_empty_subscriber_ms"]["p50"]))
        inside = row.get("processing_ms") or {}
        host.add_row(row["run"], *(_ms(inside[name]["p50"] if name in inside else None) for name in PROCESSING))
    return [ages, parts, host]


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
    axes.set_yticks(
        range(len(rows)), [f"{row['run']}, {row['objects']} object{'s' * (row['objects'] != 1)}" for row in rows]
    )
    axes.invert_yaxis()
    axes.set_xlabel("ms from the camera's stamp to the pose received, p50")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=len(PARTS), fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"
