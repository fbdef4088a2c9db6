"""Figures of a replay as result.json has them, for comparisons."""

from __future__ import annotations

from typing import Any

FIGURES: dict[str, Any] = {
    "translation_error_mm": {"p50": 3.0, "p95": 5.0},
    "rotation_error_deg": {"p50": 1.0, "p95": 2.0},
    "adds_recall_0.1d": 1.0,
    "poses": 5,
    "lost": 0,
    "recording_id": {"digest": "a", "topics": ["/rgb", "/depth", "/info"], "frames": 10},
}
