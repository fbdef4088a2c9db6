"""What ``bench scaling`` shows: tables, sentences, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from ..tables import number, plain_table
from .growth import STEEP

COLUMNS = 3
"""Panels of the picture in a row."""


def scaling_tables(parts: Mapping[str, Any], title: str) -> list[Table]:
    """Milliseconds of each part by what grows, with the slope from the size before; and the exponents of all."""
    tables = []
    for part, tree in parts.items():
        table = plain_table(
            f"{title}: {part}", "what", tree["axis"], "ms p50", "ms p95", "samples", "slope to here", left=1
        )
        for name, series in tree["series"].items():
            slopes = [None, *series["slopes"]]
            for i, (label, ms, slope) in enumerate(zip(series["labels"], series["ms"], slopes, strict=True)):
                cells = (_ms(ms["p50"]), _ms(ms["p95"]), str(ms["count"]), number(slope, 2))
                table.add_row("" if i else name, label, *cells)
        tables.append(table)
        if keys := list(dict.fromkeys(key for fact in tree["facts"] for key in fact)):
            facts = plain_table("", tree["axis"], *keys)
            for label, fact in zip(tree["labels"], tree["facts"], strict=True):
                facts.add_row(label, *(_fact(fact.get(key)) for key in keys))
            tables.append(facts)
    grows = plain_table("cost ~ size to the power of", "part", "what", "exponent", f"steeper than {STEEP} from", left=2)
    for part, tree in parts.items():
        for i, (name, series) in enumerate(tree["series"].items()):
            knee = "–" if series["knee"] is None else _label(series, series["knee"])
            grows.add_row("" if i else part, name, number(series["exponent"], 2), knee)
    return [*tables, grows] if parts else []


def remarks(parts: Mapping[str, Any]) -> list[str]:
    """What is out of line and why, what changes on the way, and what was not measured."""
    lines = []
    for part, tree in parts.items():
        for name, series in tree["series"].items():
            for cliff in series["cliffs"]:
                at = f"{part}: {name} with {_size(series, cliff['x'], tree['axis'])}"
                why = cliff["reason"] or "nothing that we know of changes there"
                lines.append(
                    f"{at} is out of line: {_ms(cliff['cost'])} ms are {cliff['ratio']:.1f} times what its neighbours lead one "
                    f"to expect ({_ms(cliff['expected'])} ms); {why}"
                )
        lines += [f"{part}: {note}" for note in (*tree["limits"], *tree["notes"], *_transfers(tree["series"]))]
    if parts and not any(s["cliffs"] for tree in parts.values() for s in tree["series"].values()):
        lines.append("no size is out of line with its neighbours")
    return lines


def _transfers(series: Mapping[str, Any]) -> list[str]:
    """How much of a tracking step on the largest image is spent before the step itself."""
    track, stages = series.get("track"), [series[name] for name in ("upload", "depth filter") if name in series]
    if track is None or not stages or any(s["x"] != track["x"] for s in stages):
        return []
    share = sum(s["ms"][-1]["p50"] for s in stages) / track["ms"][-1]["p50"]
    what = "upload and depth filter are" if len(stages) > 1 else "upload is"
    return [f"at {track['labels'][-1]} {what} {share:.0%} of a tracking step"]


def scaling_picture(parts: Mapping[str, Any], title: str, path: Path) -> None:
    """One panel a part, logarithmic: p50, a band up to p95, a ring around what is out of line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    shown = {part: tree for part, tree in parts.items() if any(s["x"] for s in tree["series"].values())}
    if not shown:
        return
    columns = min(len(shown), COLUMNS)
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.6 * columns, 3.6 * rows + 0.4), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, (part, tree) in zip(axes.flat, shown.items(), strict=False):
        for name, series in tree["series"].items():
            p50, p95 = ([ms[key] for ms in series["ms"]] for key in ("p50", "p95"))
            power = "" if series["exponent"] is None else f", exponent {series['exponent']:.2f}"
            (line,) = axis.plot(series["x"], p50, marker="o", markersize=4, label=f"{name}{power}")
            axis.fill_between(series["x"], p50, p95, color=line.get_color(), alpha=0.2, linewidth=0)
            cliffs = series["cliffs"]
            if cliffs:
                where = ([c["x"] for c in cliffs], [c["cost"] for c in cliffs])
                axis.plot(*where, "o", markersize=12, markerfacecolor="none", markeredgecolor="red")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(tree["x"], tree["labels"], rotation=20 if part in ("images", "faces") else 0, fontsize=8)
        axis.xaxis.set_minor_locator(NullLocator())
        low, high = axis.get_ylim()
        plain = FuncFormatter(lambda ms, _: f"{ms:g}")
        if high < 30 * low:  # too few decades for their own figures
            axis.yaxis.set_minor_formatter(plain)
            axis.tick_params(axis="y", which="minor", labelsize=7)
        else:
            axis.yaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(plain)
        axis.set_xlabel(tree["axis"])
        axis.set_ylabel("ms (p50, band to p95)")
        axis.set_title(part, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    if any(s["cliffs"] for tree in shown.values() for s in tree["series"].values()):
        title += "; red: out of line with its neighbours"
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _label(series: Mapping[str, Any], x: float) -> str:
    return str(series["labels"][series["x"].index(x)])


def _size(series: Mapping[str, Any], x: float, axis: str) -> str:
    label = _label(series, x)
    return f"an image of {label}" if axis == "image" else f"{label} {axis}"


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _fact(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"
