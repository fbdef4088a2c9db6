"""How well the detector does on generated recordings, the worlds of ``demo``: recall, false detections, false tracks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..detect.masks import clip_box, mask_box
from ..detect.predictor import RawDetections
from ..detect.rfdetr_detector import RfDetrDetector
from ..interrupts import Watch
from ..pipeline.association import DUPLICATE_IOU
from ..pose.mesh import ObjectModel
from ..replay.recording import GroundTruth
from ..synth.video import SceneVideo, VideoSettings
from ..train.detector_eval import MATCH_IOU, asked_for, mask_iou, pair_ious
from ..types import Frame

FLOOR = 0.05
"""A row of a lower score is not looked at."""
TRACK_FRAMES = 3
"""A false detection in this many consecutive frames is a false track."""
WRONG_IOU = 0.3
"""A detection that overlaps an instance of its object by more is loose, not on a wrong thing. Two detections of consecutive
frames that overlap by more are one chain."""
GOAL_RECALL, GOAL_FALSE = 0.95, 0.01
"""A threshold should give at least this recall, and at most this many detections on wrong things a frame."""
SIZES = (0, 16, 32, 64, 128)
"""The classes of visible size begin here; the size is the square root of the visible pixels."""
PART_INSIDE, PART_PIXELS = 0.7, 0.25
"""A detection shows a part of an instance of its object when this share of it lies in that one's box, and that one's visible
pixels fill this share of it."""
WHERE = {"": "", "loose": ", loose box", "part": ", on a part of it"}

Box = NDArray[np.floating]
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class RecordingSettings:
    """targets: names of the objects on the table, repeated for several instances; empty shows all once. stride: every
    n-th frame is looked at; where a false detection is, the next ones too. pictures: most of each kind. max_speed: m/s of
    the targets in the camera frame. shutter, jolt: of the camera, see VideoSettings.
    """

    seeds: tuple[int, ...] = tuple(range(100, 110))
    targets: tuple[str, ...] = ()
    frames: int = 150
    rate: float = 15.0
    stride: int = 15
    size: tuple[int, int] = (480, 640)
    pictures: int = 12
    max_speed: float = 0.30
    shutter: float = 0.0
    jolt: float = 0.0

    def video(self, seed: int) -> VideoSettings:
        """The recording of a seed."""
        return VideoSettings(
            frames=self.frames,
            size=self.size,
            rate=self.rate,
            seed=seed,
            max_speed=self.max_speed,
            max_turn=200 * self.max_speed,
            targets=self.targets,
            shutter=self.shutter,
            jolt=self.jolt,
        )


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


def evaluate_recordings(
    detector: RfDetrDetector,
    models: Sequence[ObjectModel],
    settings: RecordingSettings,
    thresholds: Mapping[str, float],
    device: str,
    watch: Watch = Watch(),  # noqa: B008 - frozen
    keep: Callable[[Outcome], object] = lambda outcome: None,
) -> Outcome:
    """Run the detector over generated recordings of ``models``. thresholds: object -> score from which it counts.

    Objects that ``models`` or the targets have, but not the detector, are scenery. watch: its steps are frames. keep: gets what
    was seen so far after each recording. Raises ValueError for targets that are no models.
    """
    outcome = Outcome(dict(thresholds), 0, [], [], [])
    sampled = range(0, settings.frames, settings.stride)
    count = 0
    per_seed = -(-settings.pictures // max(len(settings.seeds), 1))
    for seed in settings.seeds:
        recording = _Recording(detector, models, settings, thresholds, seed, device)
        for index in sampled:
            wanted, false = recording.look(index)
            outcome.wanted.extend(wanted)
            outcome.false.extend(false)
            count += 1
            watch.advance(count, len(sampled) * len(settings.seeds))
            if watch.stop():
                return replace(outcome, frames=count)
        outcome.false_tracks.extend(_chains(recording, sampled))
        outcome.pictures.extend(recording.pictures(sampled, per_seed))
        keep(replace(outcome, frames=count))
    return replace(outcome, frames=count)


class _Recording:
    """One generated recording; frames are rendered, and looked at, when they are asked for, and once."""

    def __init__(
        self,
        detector: RfDetrDetector,
        models: Sequence[ObjectModel],
        settings: RecordingSettings,
        thresholds: Mapping[str, float],
        seed: int,
        device: str,
    ) -> None:
        self._detector = detector
        self._thresholds = thresholds
        self._seed = seed
        self.frames = settings.frames
        self._video = SceneVideo(models, settings.video(seed), device)
        self._seen: dict[int, tuple[list[Wanted], list[FalseDetection]]] = {}

    def look(self, index: int) -> tuple[list[Wanted], list[FalseDetection]]:
        """Wanted instances and false rows of a frame."""
        if index not in self._seen:
            self._seen[index] = self._judge(index, *self._video.frame(index))
        return self._seen[index]

    def wrong(self, index: int) -> list[FalseDetection]:
        """Detections of a frame that lie on a wrong thing."""
        return [f for f in self.look(index)[1] if f.wrong and f.score >= self._thresholds[f.object]]

    def _judge(self, index: int, frame: Frame, truth: GroundTruth) -> tuple[list[Wanted], list[FalseDetection]]:
        known = set(self._detector.class_objects.values())
        instances, boxes, pixels, masks = [], [], [], []
        for t in truth.instances:
            mask = np.asarray(frame.masks[t.name], dtype=bool)
            box = mask_box(mask)
            if box is not None:
                instances.append(t)
                boxes.append(box)
                pixels.append(int(mask.sum()))
                masks.append(mask)
        names = [t.object for t in instances]
        visible = np.array([t.visibility or 0.0 for t in instances])
        asked = asked_for(visible, np.array(pixels, np.int64), frame.rgb.shape[0] * frame.rgb.shape[1])
        counted = [bool(a) and name in known for a, name in zip(asked, names, strict=True)]
        raw = self._detector.raw(frame)
        rows = self._rows(raw)
        found, false = match([row[:3] for row in rows], names, np.reshape(boxes, (-1, 4)), counted, masks)
        sure = [i for i, (score, _, _) in found.items() if score >= self._thresholds[names[i]]]
        made = self._detector.masks(raw, [rows[found[i][2]][3] for i in sure], frame)
        overlap = {i: mask_iou(mask, masks[i]) for i, mask in zip(sure, made, strict=True)}
        wanted = [
            Wanted(
                self._seed,
                index,
                names[i],
                boxes[i],
                pixels[i],
                float(t.visibility or 0.0),
                *found.get(i, (0.0, 0.0))[:2],
                overlap.get(i, np.nan),
            )
            for i, t in enumerate(instances)
            if counted[i]
        ]
        return wanted, [FalseDetection(self._seed, index, name, box, score, on) for name, box, score, on in false]

    def _rows(self, raw: RawDetections) -> list[tuple[str, Box, float, int]]:
        """(object, box, score, row), best first, without boxes that show a thing again, as the pipeline leaves them out."""
        kept: list[tuple[str, Box, float, int]] = []
        for i in np.flatnonzero(raw.scores >= FLOOR):
            name, box = self._detector.class_objects[int(raw.classes[i])], raw.boxes[i]
            same = [b for n, b, *_ in kept if n == name]
            if not same or pair_ious(box[None], np.stack(same)).max() <= DUPLICATE_IOU:
                kept.append((name, box, float(raw.scores[i]), int(i)))
        return kept

    def pictures(self, sampled: Sequence[int], limit: int) -> list[tuple[Picture, str]]:
        """The clearest false detections and the largest misses, at most ``limit`` of each."""
        wanted = [w for i in sampled for w in self.look(i)[0] if w.score < self._thresholds[w.object]]
        false = [f for i in sampled for f in self.look(i)[1] if f.score >= self._thresholds[f.object]]
        chosen: list[Wanted | FalseDetection] = sorted(wanted, key=lambda w: -w.pixels)[:limit]  # type: ignore[assignment]
        chosen += sorted(false, key=lambda f: -f.score)[:limit]
        return [self._draw(item) for item in chosen]

    def _draw(self, item: Wanted | FalseDetection) -> tuple[Picture, str]:
        picture = self._video.frame(item.frame)[0].rgb.copy()
        for other in self.look(item.frame)[0]:
            rectangle(picture, other.box, (0, 200, 0), 1)
        where = f"seed {item.seed} frame {item.frame}: {item.object}"
        if isinstance(item, Wanted):
            rectangle(picture, item.box, (255, 200, 0), 2)
            size = f"{item.visibility:.0%} in sight, {item.pixels} px"
            return picture, f"{where} missed, {size}, best score {item.score:.2f}"
        rectangle(picture, item.box, (255, 0, 0), 2)
        return picture, f"{where} is false, score {item.score:.2f}{WHERE.get(item.on, f', on {item.on}')}"


def match(
    rows: Sequence[tuple[str, Box, float]],
    names: Sequence[str],
    boxes: Box,
    counted: Sequence[bool],
    masks: Sequence[NDArray[np.bool_]] = (),
) -> tuple[dict[int, tuple[float, float, int]], list[tuple[str, Box, float, str]]]:
    """Greedy matching, best score first, which is the same at every threshold.

    rows: (object, box (4,), score). names, boxes (M, 4), counted: the true instances. Returns instance -> (score, IoU, number of
    the row) of those that count and were found, and (object, box, score, on) of the false rows. Rows on instances that do not count
    are neither. masks: (H, W) visible pixels of each instance; without them no part is told from a wrong thing.
    """
    found: dict[int, tuple[float, float, int]] = {}
    false = []
    for number, (name, box, score) in enumerate(rows):
        overlap = pair_ious(box[None], boxes)[0] if len(boxes) else np.zeros(0)
        own = np.array([o if n == name else 0.0 for o, n in zip(overlap, names, strict=True)])
        free = np.array([0.0 if i in found else o for i, o in enumerate(own)])
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= MATCH_IOU:
            if counted[best]:
                found[best] = score, float(free[best]), number
            continue
        on = ""
        if own.max(initial=0.0) >= WRONG_IOU:
            on = "loose"
        elif any(n == name and _part(box, b, m) for n, b, m in zip(names, boxes, masks, strict=False)):
            on = "part"
        elif overlap.max(initial=0.0) >= WRONG_IOU:
            on = names[int(overlap.argmax())]
        false.append((name, box, score, on))
    return found, false


def _part(box: Box, whole: Box, mask: NDArray[np.bool_]) -> bool:
    """Whether a box shows a part of an instance of which ``whole`` is the box and ``mask`` what is visible."""
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    width, height = min(box[2], whole[2]) - max(box[0], whole[0]), min(box[3], whole[3]) - max(box[1], whole[1])
    if area <= 0 or width <= 0 or height <= 0 or width * height < PART_INSIDE * area:
        return False
    x0, y0, x1, y1 = clip_box(box, *mask.shape)
    return int(mask[y0:y1, x0:x1].sum()) >= PART_PIXELS * area


def _chains(recording: _Recording, sampled: Sequence[int]) -> list[list[FalseDetection]]:
    """False detections that stay for TRACK_FRAMES consecutive frames or more."""
    chains = []
    visited: set[int] = set()
    for index in sampled:
        for first in recording.wrong(index):
            if id(first) in visited:
                continue
            chain = [first]
            for following in range(index + 1, recording.frames):
                if len(chain) >= TRACK_FRAMES and following not in sampled:
                    break
                near = [f for f in recording.wrong(following) if f.object == first.object]
                overlap = [float(pair_ious(chain[-1].box[None], f.box[None])[0, 0]) for f in near]
                if not near or max(overlap) < WRONG_IOU:
                    break
                chain.append(near[int(np.argmax(overlap))])
            visited |= {id(f) for f in chain}
            if len(chain) >= TRACK_FRAMES:
                chains.append(chain)
    return chains


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


def rectangle(picture: Picture, box: Box, color: tuple[int, int, int], width: int) -> None:
    """Draw a box (4,) of pixels into a picture."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    cv2.rectangle(picture, (x0, y0), (x1, y1), color, width, cv2.LINE_AA)
