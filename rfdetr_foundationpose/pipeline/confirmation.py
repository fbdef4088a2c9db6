"""Which detections are worth a registration: track confirmation, M = 2 of N = 2 detector runs for doubtful ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..types import Detection
from .extent import box_iou

if TYPE_CHECKING:
    from ..detect.detector import DetectionReport


def sure_score(object: str, report: DetectionReport, threshold: float) -> float:
    """From which score on a detection is beyond doubt: halfway from the object's threshold to 1. threshold: for objects that
    have none of their own."""
    return (1 + report.thresholds.get(object, threshold)) / 2


class TrackConfirmation:
    """Which detections are worth a registration: sure ones at once, others when two detector runs in a row show them.

    What the detector takes for an object on one frame only hardly ever is one, but may register all the same.
    """

    def __init__(self) -> None:
        self._last: list[Detection] = []

    def clear(self) -> None:
        self._last = []

    def confirmed(self, candidates: Sequence[Detection], report: DetectionReport, threshold: float) -> list[Detection]:
        """The candidates worth a registration; to be called with every detector run. threshold: for objects that have none of
        their own."""
        last, self._last = self._last, list(report.detections)

        def sure(d: Detection) -> bool:
            return d.score >= sure_score(d.object, report, threshold)

        def again(d: Detection) -> bool:
            return any(o.object == d.object and box_iou(o.box, d.box) > 0 for o in last)

        return [d for d in candidates if sure(d) or again(d)]
