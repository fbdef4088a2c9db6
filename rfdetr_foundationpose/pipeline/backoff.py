"""When a refused registration is tried again, and a doubtful pose registered anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import Detection
from .extent import box_iou

# A refused object is tried again after 1, 2, 4, ... frames, at most this many.
MAX_BACKOFF_FRAMES = 30
# A tracked pose below this confidence may be a wrong one that fits a little: half of those that are so sure are right.
RECHECK_CONFIDENCE = 0.5
# It is registered again after this many frames, then after twice as many, at most after MAX_RECHECK_FRAMES.
RECHECK_FRAMES = 15
MAX_RECHECK_FRAMES = 480
# A candidate that overlaps the place of the last refusal this much is tried after all others.
SAME_PLACE_IOU = 0.5


@dataclass
class _Refused:
    count: int = 0
    next_frame: int = 0
    detection: Detection | None = None


class Rechecks:
    """When a tracked pose of low confidence is held against a fresh registration: RECHECK_FRAMES after the last time, then
    after twice as many, and so on, up to MAX_RECHECK_FRAMES."""

    def __init__(self) -> None:
        self._tried: dict[str, tuple[int, int]] = {}

    def due(self, name: str, confidence: float, frame_index: int) -> bool:
        """name: of the instance. Whether it is worth a registration now."""
        return confidence < RECHECK_CONFIDENCE and frame_index >= self._tried.get(name, (0, 0))[1]

    def tried(self, name: str, frame_index: int) -> None:
        count = self._tried.get(name, (0, 0))[0]
        wait = min(RECHECK_FRAMES * 2**count, MAX_RECHECK_FRAMES)
        self._tried[name] = count + 1, frame_index + wait

    def forget(self, name: str) -> None:
        """The next one is the first again: the instance has another pose."""
        self._tried.pop(name, None)

    def clear(self) -> None:
        self._tried.clear()


class Backoff:
    """Keeps refused registrations from being repeated on every frame, per object."""

    def __init__(self) -> None:
        self._refused: dict[str, _Refused] = {}

    def refuse(self, detection: Detection, frame_index: int) -> int:
        """Count a refusal at ``frame_index``; returns after how many frames the object is tried again."""
        entry = self._refused.setdefault(detection.object, _Refused())
        wait = min(2**entry.count, MAX_BACKOFF_FRAMES)
        entry.count += 1
        entry.next_frame = frame_index + 1 + wait
        entry.detection = detection
        return wait

    def accept(self, object: str) -> None:
        """A registration of the object succeeded: the next refusal counts as the first."""
        self._refused.pop(object, None)

    def may_try(self, object: str, frame_index: int) -> bool:
        entry = self._refused.get(object)
        return entry is None or frame_index >= entry.next_frame

    def order(self, candidates: Sequence[Detection]) -> list[Detection]:
        """Best score first, but what was refused last comes after everything else."""

        def refused(d: Detection) -> bool:
            entry = self._refused.get(d.object)
            return (
                entry is not None
                and entry.detection is not None
                and (box_iou(entry.detection.box, d.box) > SAME_PLACE_IOU)
            )

        return sorted(candidates, key=lambda d: (refused(d), -d.score))

    def clear(self) -> None:
        self._refused.clear()
