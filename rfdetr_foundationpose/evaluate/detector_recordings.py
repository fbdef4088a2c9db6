"""How well the detector does on generated recordings, the worlds of ``demo``: recall, false detections, false tracks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..detect.masks import mask_box
from ..detect.predictor import RawDetections
from ..detect.rfdetr_detector import RfDetrDetector
from ..interrupts import Watch
from ..pipeline.association import DUPLICATE_IOU
from ..pose.mesh import ObjectModel
from ..replay.recording import GroundTruth
from ..synth.video import SceneVideo, VideoSettings
from ..train.detector_eval import asked_for, mask_iou, pair_ious
from ..types import Frame
from .detector_matching import WRONG_IOU, Box, match
from .detector_outcome import FLOOR, TRACK_FRAMES, FalseDetection, Outcome, Picture, Wanted

WHERE = {"": "", "loose": ", loose box", "part": ", on a part of it"}


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


@dataclass(frozen=True)
class _Visible:
    """An instance of which something is in the picture. mask: (H, W) of that, box: (4,) around it, pixels: of it."""

    object: str
    box: Box
    pixels: int
    mask: NDArray[np.bool_]
    visibility: float


def _visible(frame: Frame, truth: GroundTruth) -> list[_Visible]:
    found = []
    for one in truth.instances:
        mask = np.asarray(frame.masks[one.name], dtype=bool)
        box = mask_box(mask)
        if box is not None:
            found.append(_Visible(one.object, box, int(mask.sum()), mask, float(one.visibility or 0.0)))
    return found


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
        seen = _visible(frame, truth)
        names = [one.object for one in seen]
        counted = self._counted(frame, seen)
        raw = self._detector.raw(frame)
        rows = self._rows(raw)
        boxes = np.reshape([one.box for one in seen], (-1, 4))
        found, false = match([row[:3] for row in rows], names, boxes, counted, [one.mask for one in seen])
        sure = [i for i, (score, _, _) in found.items() if score >= self._thresholds[names[i]]]
        made = self._detector.masks(raw, [rows[found[i][2]][3] for i in sure], frame)
        overlap = {i: mask_iou(mask, seen[i].mask) for i, mask in zip(sure, made, strict=True)}
        wanted = []
        for i, one in enumerate(seen):
            if counted[i]:
                score, iou = found.get(i, (0.0, 0.0))[:2]
                wanted.append(
                    Wanted(
                        self._seed,
                        index,
                        one.object,
                        one.box,
                        one.pixels,
                        one.visibility,
                        score,
                        iou,
                        mask_iou=overlap.get(i, np.nan),
                    )
                )
        return wanted, [FalseDetection(self._seed, index, name, box, score, on) for name, box, score, on in false]

    def _counted(self, frame: Frame, seen: Sequence[_Visible]) -> list[bool]:
        """Which of the instances the detector has to find: those that it knows and that are large and visible enough."""
        known = set(self._detector.class_objects.values())
        visible, pixels = np.array([one.visibility for one in seen]), np.array([one.pixels for one in seen], np.int64)
        asked = asked_for(visible, pixels, frame.rgb.shape[0] * frame.rgb.shape[1])
        return [bool(a) and one.object in known for a, one in zip(asked, seen, strict=True)]

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


def rectangle(picture: Picture, box: Box, color: tuple[int, int, int], width: int) -> None:
    """Draw a box (4,) of pixels into a picture."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    cv2.rectangle(picture, (x0, y0), (x1, y1), color, width, cv2.LINE_AA)
