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

from .bench_timing import STAGES


def environment(device: torch.device) -> dict[str, Any]:
    """What a figure depends on."""
    found: dict[str, Any] = {"python": platform.python_version(), "device": str(device), "cpu": platform.machine()}
    for package in ("torch", "warp-lang", "onnxruntime", "onnxruntime-gpu", "tensorrt", "rfdetr"):
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


def stage_table(result: dict[str, Any]) -> Table:
    """Rows are backends, columns stages; a cell is avg, p50, p95, max in ms. The difference is that of tracked poses."""
    shown = [s for s in STAGES if any(s in row["stages"] for row in result["rows"].values())]
    table = Table(title=f"{result['title']}: avg, p50, p95, max in ms", title_justify="left", show_lines=True)
    table.add_column("backend", no_wrap=True)
    for stage in shown:
        table.add_column(stage, justify="right")
    for column in ("memory MB", "warm-up s", "differs p95"):
        table.add_column(column, justify="right")
    unavailable: list[str] = []
    for name, row in result["rows"].items():
        if row.get("reason"):
            unavailable.append(f"{name}: {row['reason']}")
            continue
        cells = [_cell(row["stages"].get(stage)) for stage in shown]
        memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
        table.add_row(name, *cells, memory, f"{row['warm_up_s']:.1f}", _difference(row.get("track_difference")))
    table.caption = "Not available: " + "; ".join(unavailable) if unavailable else None
    table.caption_justify = "left"
    return table


def _cell(stats: dict[str, Any] | None, separator: str = "\n") -> str:
    if stats is None:
        return ""
    if "reason" in stats:
        return str(stats["reason"])
    return separator.join(_number(stats[k]) for k in ("avg", "p50", "p95", "max"))


def _number(ms: float) -> str:
    return f"{ms:.2f}" if ms < 100 else f"{ms:.0f}"


def _difference(found: dict[str, Any] | None, separator: str = "\n") -> str:
    if not found:
        return ""
    return f"{found['mm']['p95']:.3f} mm{separator}{found['deg']['p95']:.3f}°"


def compact_lines(result: dict[str, Any]) -> list[str]:
    """The table as plain lines, for logs."""
    lines = [f"# {result['title']}"]
    for name, row in result["rows"].items():
        if row.get("reason"):
            lines.append(f"{name}: not available: {row['reason']}")
            continue
        stages = "; ".join(f"{stage} {_cell(stats, ' / ')}" for stage, stats in row["stages"].items())
        memory = "" if row["memory_mb"] is None else f"; {row['memory_mb']:.0f} MB"
        difference = _difference(row.get("track_difference"), ", ")
        lines.append(f"{name}: {stages}{memory}; warm-up {row['warm_up_s']:.1f} s; differs {difference or '-'}")
    if "device_memory_used_mb" in result:
        lines.append(f"device memory used with all of these loaded: {result['device_memory_used_mb']:.0f} MB")
    for key, value in result["speedup"].items():
        lines.append(f"speed-up over reference, {key}: " + ", ".join(f"{n} {v:.1f}x" for n, v in value.items()))
    return lines


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
