"""What ``bench`` shows and writes: tables, JSON, a bar chart."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from ..tables import plain_table
from .bench_timing import STAGES

PACKAGES = (
    *("torch", "warp-lang", "onnxruntime", "onnxruntime-gpu", "rfdetr"),
    *("tensorrt", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
)


def environment(device: torch.device) -> dict[str, Any]:
    """What a figure depends on."""
    found: dict[str, Any] = {"python": platform.python_version(), "device": str(device), "cpu": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "gpu_memory_gb": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    else:
        found |= {"threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    return found


def stage_tables(result: dict[str, Any]) -> list[Table]:
    """Milliseconds by backend and stage; and what each backend takes and how far its tracked poses are from FP32 eager's."""
    times = plain_table(result["title"], "backend", "stage", "ms avg", "p50", "p95", "max", left=2)
    costs = plain_table("", "backend", "warm-up s", "memory MB", "differs by mm p95", "deg p95")
    for name, row in result["rows"].items():
        if row.get("reason"):
            continue
        shown = name
        for stage in STAGES:
            stats = row["stages"].get(stage)
            if stats is not None and "reason" not in stats:
                times.add_row(shown, stage, *(_number(stats[k]) for k in ("avg", "p50", "p95", "max")))
                shown = ""
        memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
        difference = row.get("track_difference")
        apart = ["", ""] if not difference else [f"{difference[u]['p95']:.3f}" for u in ("mm", "deg")]
        costs.add_row(name, f"{row['warm_up_s']:.1f}", memory, *apart)
    return [times, costs]


def remarks(result: dict[str, Any]) -> list[str]:
    """What does not run here and why, and how much faster than the reference the others are."""
    lines = []
    for name, row in result["rows"].items():
        if row.get("reason"):
            lines.append(f"{name}: not available: {row['reason']}")
        lines += [f"{name}: no {stage}: {s['reason']}" for stage, s in row["stages"].items() if "reason" in s]
    if "device_memory_used_mb" in result:
        lines.append(f"device memory used with all of these loaded: {result['device_memory_used_mb']:.0f} MB")
    for key, value in result["speedup"].items():
        lines.append(f"speed-up over reference, {key}: " + ", ".join(f"{n} {v:.1f}x" for n, v in value.items()))
    return lines


def _number(ms: float) -> str:
    return f"{ms:.2f}" if ms < 100 else f"{ms:.0f}"


def bar_chart(result: dict[str, Any], path: Path, stages: Sequence[str] = ("register", "track")) -> None:
    """p50 by backend with p95 whiskers, one panel a stage, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    rows = {n: r for n, r in result["rows"].items() if not r.get("reason")}
    shown = [s for s in stages if any("p50" in r["stages"].get(s, {}) for r in rows.values())]
    if not shown:
        return
    figure, axes = plt.subplots(1, len(shown), figsize=(5.5 * len(shown), 0.45 * len(rows) + 1.6), squeeze=False)
    for axis, stage in zip(axes[0], shown, strict=True):
        found = {n: r["stages"][stage] for n, r in rows.items() if "p50" in r["stages"].get(stage, {})}
        names = list(found)[::-1]
        p50 = [found[n]["p50"] for n in names]
        reach = [max(found[n]["p95"] - found[n]["p50"], 0) for n in names]
        axis.barh(names, p50, xerr=[[0] * len(names), reach], color="#4a7ab5", ecolor="#444444", capsize=3)
        for i, value in enumerate(p50):
            axis.annotate(f" {_number(value)}", (value + reach[i], i), va="center", fontsize=8)
        axis.set_xscale("log")
        low, high = min(p50), max(p + r for p, r in zip(p50, reach, strict=True))
        axis.set_xlim(10 ** np.floor(np.log10(low) - 0.01), high * 3)  # whole decades, and room for the figures
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(f"{stage}, ms (p50, whisker p95)")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(result["title"], fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
