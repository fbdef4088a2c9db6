"""What a detector found, missed and made up in generated recordings, and the figures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .detector_matching import Box

FLOOR = 0.05
"""A row of a lower score is not looked at."""
TRACK_FRAMES = 3
"""A false detection in this many consecutive frames is a false track."""
GOAL_RECALL, GOAL_FALSE = 0.95, 0.01
"""A threshold should give at least this recall, and at most this many detections on wrong things a frame."""
SIZES = (0, 16, 32, 64, 128)
"""The classes of visible size begin here; the size is the square root of the visible pixels."""
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Wanted:
    """An instance that is to be found. score: of the row that found it, 0.0 for none. iou: of that row's box. mask_iou: of the
    mask that a registration gets, NaN where the score is below the threshold."""

    seed: int
    frame: int
    object: str
    box: Box
    pixels: int
    visibility: float
    score: float
    iou: float
    mask_iou: float


@dataclass(frozen=True)
class FalseDetection:
    """A row that found nothing. on: what it lies on: "loose" (an instance of its object: a part of it, or one found
    already, so no track starts there that would not be right), "part" (a piece of one, small enough to be taken for a
    whole one elsewhere), the name of another target, or "" for anything else."""

    seed: int
    frame: int
    object: str
    box: Box
    score: float
    on: str

    @property
    def wrong(self) -> bool:
        return self.on != "loose"


@dataclass(frozen=True)
class Outcome:
    """What was seen. frames: images looked at (those that only follow a false detection are not counted). false_tracks:
    chains of false detections on wrong things, at the thresholds. pictures: (picture, caption) of misses and false
    detections."""

    thresholds: dict[str, float]
    frames: int
    wanted: list[Wanted]
    false: list[FalseDetection]
    false_tracks: list[list[FalseDetection]]
    pictures: list[tuple[Picture, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Figures for people and programs."""
        names = sorted({w.object for w in self.wanted} | {f.object for f in self.false})
        steps = [round(0.01 * i, 2) for i in range(round(100 * FLOOR), 96)]
        sweep = [{"threshold": t, **self._at(threshold=t)} for t in steps]
        best = max(sweep, key=lambda s: s["f1"])
        return {
            "threshold": self.thresholds,
            "frames": self.frames,
            "all": self._at(),
            "by_object": {name: self._at(name) for name in names},
            "by_size": self._by_size(),
            "best_threshold": best["threshold"],
            "best_f1": best["f1"],
            "good_thresholds": _first_range([s["threshold"] for s in sweep if _good(s)]),
            "false_tracks": [
                {"seed": c[0].seed, "frame": c[0].frame, "frames": len(c), "object": c[0].object, "on": c[0].on}
                | {"score": max(f.score for f in c), "weakest": min(f.score for f in c[:TRACK_FRAMES])}
                for c in self.false_tracks
            ],
            "misses": [_row(w) for w in self.wanted if w.score < self.thresholds[w.object]],
            "false_detections": [_row(f) for f in self.false if f.score >= self.thresholds[f.object]],
            "sweep": sweep,
        }

    def _at(self, name: str | None = None, threshold: float | None = None) -> dict[str, Any]:
        """Figures of one object, or all, at one threshold, or their own."""
        at = self.thresholds if threshold is None else dict.fromkeys(self.thresholds, threshold)
        wanted = [w for w in self.wanted if name in (None, w.object)]
        hits = [w for w in wanted if w.score >= at[w.object]]
        false = [f for f in self.false if name in (None, f.object) and f.score >= at[f.object]]
        masks = [w.mask_iou for w in hits if not np.isnan(w.mask_iou)]
        return {
            "instances": len(wanted),
            "recall": len(hits) / len(wanted) if wanted else None,
            "precision": len(hits) / (len(hits) + len(false)) if hits or false else None,
            "false_detections": len(false),
            "false_per_frame": len(false) / max(self.frames, 1),
            "wrong_per_frame": sum(f.wrong for f in false) / max(self.frames, 1),
            "mean_iou": float(np.mean([w.iou for w in hits])) if hits else None,
            **{f"mask_iou_p{p}": float(np.percentile(masks, p)) if masks else None for p in (50, 10)},
            "f1": 2 * len(hits) / max(len(hits) + len(false) + len(wanted), 1),
        }

    def _by_size(self) -> list[dict[str, Any]]:
        rows = []
        for low, high in zip(SIZES, (*SIZES[1:], np.inf), strict=True):
            inside = [w for w in self.wanted if low <= np.sqrt(w.pixels) < high]
            found = sum(w.score >= self.thresholds[w.object] for w in inside)
            rows.append({"from": low, "instances": len(inside), "recall": found / len(inside) if inside else None})
        return rows


def _good(figures: Mapping[str, Any]) -> bool:
    return (figures["recall"] or 0.0) >= GOAL_RECALL and figures["wrong_per_frame"] <= GOAL_FALSE


def _first_range(thresholds: Sequence[float]) -> list[float] | None:
    """First and last of the lowest run of thresholds 0.01 apart; None when there are none."""
    if not thresholds:
        return None
    last = thresholds[0]
    for t in thresholds[1:]:
        if t - last > 0.015:
            break
        last = t
    return [thresholds[0], last]


def _row(item: Wanted | FalseDetection) -> dict[str, Any]:
    words = {k: v for k, v in vars(item).items() if k not in ("box", "iou", "mask_iou")}
    return words | {"box": [round(float(v), 1) for v in item.box]}
