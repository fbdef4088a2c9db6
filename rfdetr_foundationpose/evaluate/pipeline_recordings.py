"""How well the whole pipeline does on generated recordings, the worlds of ``demo``: recall, false poses, false tracks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..detect.masks import mask_box
from ..interrupts import Watch
from ..objects import ObjectSpec
from ..overlay import OverlayModel, draw_overlay, silhouette
from ..pipeline import Pipeline
from ..pose.mesh import ObjectModel
from ..replay.metrics import ADDS_THRESHOLD, ObjectGeometry, PoseError, centre_distances, percentiles, pose_error
from ..replay.recording import GroundTruth, InstanceTruth
from ..synth.video import SceneVideo
from ..train.detector_eval import asked_for
from ..types import Frame, ObjectPose, TrackState
from .detector_outcome import TRACK_FRAMES, Picture
from .detector_recordings import RecordingSettings, rectangle

PLACE = 0.25
"""A pose whose model centre is at most this many diameters from that of an instance of its object is in its place."""
FLIPPED_DEG = 90.0
"""A pose in its place with a larger rotation error (degrees) than this, and an ADD of 0.1 d or more, is flipped."""
ON_SHARE = 0.3
"""A false pose stands on the thing that covers at least this share of its silhouette."""
REASON = "registration_"
"""The pipeline counts refusals under this prefix and the reason."""


@dataclass(frozen=True)
class JudgedPose:
    """A published pose. off: diameters from the nearest instance of its object, infinite without one. instance: in whose
    place it is, "" for a false pose. duplicate: another track has that instance. error: against that instance. on: what a
    false pose stands on: "part" (an instance of its object, but not in its place), another target's object, or ""."""

    seed: int
    frame: int
    pose: ObjectPose
    diameter: float
    off: float
    instance: str = ""
    duplicate: bool = False
    error: PoseError | None = None
    on: str = ""

    @property
    def track(self) -> str:
        return self.pose.name

    @property
    def false(self) -> bool:
        return not self.instance

    @property
    def add_ratio(self) -> float:
        """ADD in diameters; infinite for a false pose."""
        return np.inf if self.error is None else self.error.add_mm / 1e3 / self.diameter

    @property
    def flipped(self) -> bool:
        return self.error is not None and self.add_ratio >= ADDS_THRESHOLD and self.error.rotation_deg > FLIPPED_DEG


@dataclass(frozen=True)
class Sought:
    """An instance that is to be found in a frame, and the pose in its place, None for a miss."""

    seed: int
    frame: int
    object: str
    instance: str
    found: JudgedPose | None


@dataclass(frozen=True)
class RecordingRun:
    """One recording. counters: the pipeline's, over this recording alone. events: its sentences, by frame."""

    seed: int
    frames: int
    counters: dict[str, int]
    events: list[tuple[int, str]]
    seconds: float


@dataclass(frozen=True)
class PipelineOutcome:
    """What was seen. poses: all that were published. pictures: (picture, caption) of false and flipped poses."""

    sought: list[Sought] = field(default_factory=list)
    poses: list[JudgedPose] = field(default_factory=list)
    recordings: list[RecordingRun] = field(default_factory=list)
    pictures: list[tuple[Picture, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Figures for people and programs."""
        names = sorted({s.object for s in self.sought} | {p.pose.object for p in self.poses})
        return {
            "all": self._figures(lambda item: True) | _counted(self.recordings),
            "by_seed": {
                r.seed: self._figures(lambda item, seed=r.seed: item.seed == seed) | _counted([r])
                for r in self.recordings
            },
            "by_object": {name: self._figures(lambda item, name=name: _object(item) == name) for name in names},
            "false_tracks": [_stretch(run) for run in _false_tracks(self.poses)],
            "flipped": [_stretch(run) for run in stretches(p for p in self.poses if p.flipped and not p.duplicate)],
            "duplicates": [_stretch(run) for run in stretches(p for p in self.poses if p.duplicate)],
            "false_poses": [_row(p) for p in self.poses if p.false],
            "misses": [_plain(s) for s in self.sought if s.found is None],
            "events": [{"seed": r.seed, "frame": i, "event": text} for r in self.recordings for i, text in r.events],
        }

    def _figures(self, chosen: Callable[..., bool]) -> dict[str, Any]:
        sought = [s for s in self.sought if chosen(s)]
        found = [s.found for s in sought if s.found is not None]
        poses = [p for p in self.poses if chosen(p)]
        placed = [p for p in poses if not p.false and not p.duplicate]
        errors = [p.error for p in placed if p.error is not None]

        def share(hits: int) -> float | None:
            return hits / len(sought) if sought else None

        return {
            "instances": len(sought),
            "recall": share(len(found)),
            "adds_recall_0.1d": share(sum(p.error is not None and p.error.adds_ratio < ADDS_THRESHOLD for p in found)),
            "add_recall_0.1d": share(sum(p.add_ratio < ADDS_THRESHOLD for p in found)),
            "translation_error_mm": percentiles(e.translation_mm for e in errors),
            "rotation_error_deg": percentiles(e.rotation_deg for e in errors),
            "poses": len(poses),
            "false_poses": sum(p.false for p in poses),
            "false_tracks": len(_false_tracks(poses)),
            "flipped": sum(p.flipped for p in placed),
            "duplicates": sum(p.duplicate for p in poses),
            "id_changes": id_changes(placed),
        }


def evaluate_pipeline(
    pipeline: Pipeline,
    specs: Sequence[ObjectSpec],
    models: Sequence[ObjectModel],
    settings: RecordingSettings,
    part: range | None = None,
    watch: Watch = Watch(),  # noqa: B008 - frozen
    keep: Callable[[PipelineOutcome], object] = lambda outcome: None,
) -> PipelineOutcome:
    """Run the pipeline over generated recordings, from anew for each; it is warmed up but not closed.

    specs: of the objects that it knows; ``models`` may be more, as scenery. part: the frames that are processed, one
    after the other; None: all. A stride would be no tracking, so that of the settings does not count. watch: its steps are
    frames. keep: gets what was seen so far after each recording. Raises ValueError for targets that are no models.
    """
    part = range(settings.frames) if part is None else part
    by_name = {m.name: m for m in models}
    geometries = {s.name: ObjectGeometry.from_model(by_name[s.name], s) for s in specs}
    shapes = {s.name: OverlayModel.load(s) for s in specs}
    outcome = PipelineOutcome()
    per_seed = -(-settings.pictures // max(len(settings.seeds), 1))
    for i, seed in enumerate(settings.seeds):
        video = SceneVideo(models, settings.video(seed), str(pipeline.device))
        if i == 0:
            pipeline.warm_up(video.camera)
        played = _Player(pipeline, geometries, shapes, video)
        begin = time.perf_counter()
        count = 0
        for index in part:
            played.play(index)
            count += 1
            watch.advance(i * len(part) + count, len(part) * len(settings.seeds))
            if watch.stop():
                break
        outcome.sought.extend(played.sought)
        outcome.poses.extend(played.poses)
        seconds = time.perf_counter() - begin
        outcome.recordings.append(RecordingRun(seed, count, played.counters(), played.events, seconds))
        if watch.stop():
            break
        outcome.pictures.extend(played.pictures(per_seed))
        keep(outcome)
    return outcome


class _Player:
    """One generated recording through the pipeline, which forgets what it knew before."""

    def __init__(
        self,
        pipeline: Pipeline,
        geometries: Mapping[str, ObjectGeometry],
        shapes: Mapping[str, OverlayModel],
        video: SceneVideo,
    ) -> None:
        self._pipeline, self._video = pipeline, video
        self._geometries, self._shapes = geometries, shapes
        self._seed = video.settings.seed
        self._held: dict[str, str] = {}
        self.sought: list[Sought] = []
        self.poses: list[JudgedPose] = []
        self.events: list[tuple[int, str]] = []
        pipeline.reset()
        self._before = Counter(pipeline.status().counters)

    def play(self, index: int) -> None:
        frame, truth = self._video.frame(index)
        result = self._pipeline.process(frame)
        self.events += [(index, event) for event in result.events]
        tracked = [p for p in result.poses if p.state is TrackState.TRACKING]
        judged = judge_poses(tracked, truth.instances, self._geometries, self._seed, index, self._held)
        placed = {p.instance: p for p in judged if not p.false and not p.duplicate}
        self._held |= {name: p.track for name, p in placed.items()}
        self.poses += [replace(p, on=self._under(p.pose, frame, truth)) if p.false else p for p in judged]
        pixels = np.array([int(np.asarray(frame.masks[t.name]).sum()) for t in truth.instances], np.int64)
        visible = np.array([t.visibility or 0.0 for t in truth.instances])
        asked = asked_for(visible, pixels, frame.rgb.shape[0] * frame.rgb.shape[1])
        self.sought += [
            Sought(self._seed, index, t.object, t.name, placed.get(t.name))
            for t, wanted in zip(truth.instances, asked, strict=True)
            if wanted and t.object in self._geometries
        ]

    def counters(self) -> dict[str, int]:
        """The pipeline's, since this recording began."""
        return dict(Counter(self._pipeline.status().counters) - self._before)

    def _under(self, pose: ObjectPose, frame: Frame, truth: GroundTruth) -> str:
        """What a false pose stands on, by the pixels that one sees there."""
        mask = silhouette(self._shapes[pose.object], pose.T_cam_obj, frame.camera) > 0
        area = max(int(mask.sum()), 1)
        shares = [float((mask & np.asarray(frame.masks[t.name], bool)).sum()) / area for t in truth.instances]
        if max(shares, default=0.0) < ON_SHARE:
            return ""
        thing = truth.instances[int(np.argmax(shares))].object
        return "part" if thing == pose.object else thing

    def pictures(self, limit: int) -> list[tuple[Picture, str]]:
        """The first pose of the longest stretches, false ones before those flipped."""
        runs = [
            *sorted(stretches(p for p in self.poses if p.false), key=len, reverse=True),
            *sorted(stretches(p for p in self.poses if p.flipped and not p.duplicate), key=len, reverse=True),
        ]
        return [self._draw(run) for run in runs[:limit]]

    def _draw(self, run: Sequence[JudgedPose]) -> tuple[Picture, str]:
        first = run[0]
        frame, truth = self._video.frame(first.frame)
        picture = draw_overlay(frame.rgb, frame.camera, [first.pose], self._shapes)
        for t in truth.instances:
            box = mask_box(np.asarray(frame.masks[t.name], dtype=bool))
            if box is not None and t.object == first.pose.object:
                rectangle(picture, box, (255, 200, 0), 1)
        what = f"false, {first.off:.2f} d off" if first.false else "flipped"
        on = {"": "", "part": ", on a part of one"}.get(first.on, f", on {first.on}")
        return picture, f"seed {self._seed} frame {first.frame}: {first.track} {what}{on}, {len(run)} frames"


def judge_poses(
    poses: Sequence[ObjectPose],
    instances: Sequence[InstanceTruth],
    geometries: Mapping[str, ObjectGeometry],
    seed: int = 0,
    frame: int = 0,
    held: Mapping[str, str] | None = None,
) -> list[JudgedPose]:
    """Whose place each pose of one frame is in; by object, in the order of the poses.

    An instance goes to the track that had it (``held``: instance -> track) while that is in its place, else to the
    nearest. A further track in its place is a duplicate, one that is in no place false.
    """
    held = held or {}
    judged = []
    for name in dict.fromkeys(p.object for p in poses):
        own, truths = [p for p in poses if p.object == name], [t for t in instances if t.object == name]
        geometry = geometries[name]
        gaps = centre_distances([p.T_cam_obj for p in own], [t.T_cam_obj for t in truths], geometry)
        off = gaps / geometry.diameter
        near = [(held.get(truths[t].name) != own[p].name, off[p, t], p, t) for p, t in np.argwhere(off <= PLACE)]
        owner: dict[int, int] = {}
        for _, _, p, t in sorted(near):
            if p not in owner and t not in owner.values():
                owner[p] = t
        for p, pose in enumerate(own):
            one = JudgedPose(seed, frame, pose, geometry.diameter, float(off[p].min(initial=np.inf)))
            if one.off <= PLACE:
                truth = truths[owner.get(p, int(off[p].argmin()))]
                error = pose_error(pose.T_cam_obj, truth.T_cam_obj, geometry)
                one = replace(one, instance=truth.name, duplicate=p not in owner, error=error)
            judged.append(one)
    return judged


def stretches(poses: Iterable[JudgedPose]) -> list[list[JudgedPose]]:
    """Poses of one track in consecutive frames."""
    runs: list[list[JudgedPose]] = []
    going: dict[tuple[int, str], list[JudgedPose]] = {}
    for p in sorted(poses, key=lambda p: (p.seed, p.frame)):
        run = going.get((p.seed, p.track))
        if run is None or run[-1].frame != p.frame - 1:
            run = going[p.seed, p.track] = []
            runs.append(run)
        run.append(p)
    return runs


def id_changes(placed: Sequence[JudgedPose]) -> int:
    """How often an instance goes on under another id than before. placed: poses in their places, no duplicates."""
    last: dict[tuple[int, str], str] = {}
    changes = 0
    for p in sorted(placed, key=lambda p: (p.seed, p.frame)):
        changes += last.get((p.seed, p.instance), p.track) != p.track
        last[p.seed, p.instance] = p.track
    return changes


def _false_tracks(poses: Sequence[JudgedPose]) -> list[list[JudgedPose]]:
    return [run for run in stretches(p for p in poses if p.false) if len(run) >= TRACK_FRAMES]


def _object(item: JudgedPose | Sought) -> str:
    return item.object if isinstance(item, Sought) else item.pose.object


def _counted(recordings: Sequence[RecordingRun]) -> dict[str, Any]:
    counters: Counter[str] = Counter()
    for r in recordings:
        counters.update(r.counters)
    return {
        "frames": sum(r.frames for r in recordings),
        "detector_runs": counters["detector_runs"],
        "registrations": counters["registrations"],
        "refused": counters["registrations_refused"],
        "refused_by": {k.removeprefix(REASON): n for k, n in sorted(counters.items()) if k.startswith(REASON)},
        "lost": counters["lost"],
        "seconds": sum(r.seconds for r in recordings),
    }


def _stretch(run: Sequence[JudgedPose]) -> dict[str, Any]:
    confidence = [p.pose.confidence for p in run]
    return {
        "seed": run[0].seed,
        "frame": run[0].frame,
        "last": run[-1].frame,
        "frames": len(run),
        "object": run[0].pose.object,
        "track": run[0].track,
        "instance": run[0].instance,
        "on": Counter(p.on for p in run).most_common(1)[0][0],
        "off": float(np.median([p.off for p in run])),
        "confidence": [min(confidence), max(confidence)],
    }


def _row(p: JudgedPose) -> dict[str, Any]:
    row = {"seed": p.seed, "frame": p.frame, "track": p.track, "off": p.off, "on": p.on}
    return row | {"confidence": p.pose.confidence, "T_cam_obj": p.pose.T_cam_obj.tolist()}


def _plain(s: Sought) -> dict[str, Any]:
    return {"seed": s.seed, "frame": s.frame, "instance": s.instance}
