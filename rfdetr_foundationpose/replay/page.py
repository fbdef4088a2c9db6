"""report.html of a run: one page beside the pictures that it shows; no scripts, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from .result import Comparison, PoseSample, object_rows

PICTURES = (".png", ".jpg", ".webp")
COUNTERS = (
    "frames_published",
    "frames_received",
    "frames_processed",
    "dropped",
    "poses",
    "poses_missing",
    "spurious",
    "lost",
)
MACHINE = ("device", "detection_source", "detector_weights", "detector_backend", "weights", "pose_backend")


def write_page(
    path: Path,
    title: str,
    result: Mapping[str, Any],
    samples: Sequence[PoseSample],
    shown: Sequence[Path],
    rows: Sequence[Comparison] = (),
) -> None:
    """shown: pictures and videos in the page's folder, most telling first. rows: against a baseline."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = _number
    text = files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(text).render(
        title=title,
        result=result,
        objects=object_rows(samples, result),
        videos=[f.name for f in shown if f.suffix not in PICTURES],
        pictures=[f.name for f in shown if f.suffix in PICTURES],
        rows=rows,
        confident=any(s.confidence is not None for s in samples),
        judged=any(s.error is not None for s in samples),
        latency=result.get("latency_ms") or {},
        counters=[(k.replace("_", " "), result[k]) for k in COUNTERS if k in result],
        dropped=result.get("dropped_by_reason") or {},
        machine=[(k.replace("_", " "), result[k]) for k in MACHINE if result.get(k)],
        rest=[(k, result[k]) for k in sorted(result) if k not in (*COUNTERS, *MACHINE, "latency_ms")],
    )
    path.write_text(page, encoding="utf-8")


def _number(value: Any, digits: int = 1) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_number(v, 3)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_number(v, 3) for v in value)
    return str(value)
