"""When a refused registration is tried again, and a doubtful pose registered anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import Detection
from .extent import box_iou

# What was refused is tried again after 1, 2, 4, ... frames, at most this many.
MAX_BACKOFF_FRAMES = 30
# A tracked pose below this confidence may be a wrong one that fits a little: of poses with this confidence half are right.
RECHECK_CONFIDENCE = 0.5
# Such a pose is registered again after this many frames, then after twice as many, at most after MAX_RECHECK_FRAMES.
RECHECK_FRAMES = 15
MAX_RECHECK_FRAMES = 480
# A detection that overlaps what was refused this much shows the same thing, from one frame to the next.
SAME_PLACE_IOU = 0.5


@dataclass
class _Refused:
    """A thing whose registration was refused. detection: its newest. count: of refusals. next_frame: when it may be tried."""

    detection: Detection
    count: int = 0
    next_frame: int = 0


class Rechecks:
    """When a tracked pose of low confidence is held against a fresh registration: RECHECK_FRAMES after the last time, then
    after twice as many, and so on, up to MAX_RECHECK_FRAMES."""

    def __init__(self) -> None:
        self._tried: dict[str, tuple[int, int]] = {}

    def due(self, name: str, confidence: float, frame_index: int) -> bool:
        """Whether the instance ``name``, tracked with this confidence, is to be registered again now."""
        return confidence < RECHECK_CONFIDENCE and frame_index >= self._tried.get(name, (0, 0))[1]

    def tried(self, name: str, frame_index: int) -> None:
        """Count a registration of a tracked instance; the next one is due after twice as many frames."""
        count = self._tried.get(name, (0, 0))[0]
        wait = min(RECHECK_FRAMES * 2**count, MAX_RECHECK_FRAMES)
        self._tried[name] = count + 1, frame_index + wait

    def forget(self, name: str) -> None:
        """Begin anew with an instance that has got another pose."""
        self._tried.pop(name, None)

    def clear(self) -> None:
        self._tried.clear()


class Backoff:
    """Keeps refused registrations from being repeated on every frame.

    Each thing by itself: of many instances of an object, one that is refused holds up no other.
    """

    def __init__(self) -> None:
        self._refused: list[_Refused] = []

    def refuse(self, detection: Detection, frame_index: int) -> int:
        """Count a refusal at ``frame_index``; returns after how many frames that thing is tried again."""
        # What is no longer seen is forgotten.
        self._refused = [r for r in self._refused if frame_index < r.next_frame + 2 * MAX_BACKOFF_FRAMES]
        entry = self._find(detection)
        if entry is None:
            entry = _Refused(detection)
            self._refused.append(entry)
        wait = min(2**entry.count, MAX_BACKOFF_FRAMES)
        entry.count += 1
        entry.next_frame = frame_index + 1 + wait
        return wait

    def accept(self, detection: Detection) -> None:
        """That thing was registered: the next refusal counts as the first."""
        self._refused = [r for r in self._refused if not _same(r.detection, detection)]

    def may_try(self, detection: Detection, frame_index: int) -> bool:
        """Whether the thing that a detection shows may be registered: it was not refused lately."""
        entry = self._find(detection)
        return entry is None or frame_index >= entry.next_frame

    def order(self, candidates: Sequence[Detection]) -> list[Detection]:
        """Best score first; what was refused comes after everything else, the one that may be tried earliest first."""
        for entry in self._refused:  # things move: remember where each is now
            seen = [d for d in candidates if _same(entry.detection, d)]
            if seen:
                entry.detection = max(seen, key=lambda d: box_iou(entry.detection.box, d.box))

        def key(d: Detection) -> tuple[int, float]:
            entry = self._find(d)
            return (-1 if entry is None else entry.next_frame, -d.score)

        return sorted(candidates, key=key)

    def clear(self) -> None:
        self._refused.clear()

    def _find(self, detection: Detection) -> _Refused | None:
        """The refused thing that a detection shows."""
        same = [r for r in self._refused if _same(r.detection, detection)]
        return max(same, key=lambda r: box_iou(r.detection.box, detection.box), default=None)


def _same(a: Detection, b: Detection) -> bool:
    return a.object == b.object and box_iou(a.box, b.box) > SAME_PLACE_IOU
