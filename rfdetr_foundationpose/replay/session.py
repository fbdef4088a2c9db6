"""A recording through the node, judged: what ``demo`` and ``replay --ros`` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..interrupts import Watch
from ..latency import STAGES
from ..types import Frame
from .counters import Counters
from .judge import FoundPose, Judge, instance_names
from .live import LiveOptions, LiveRun, Topics, run_live
from .node_process import POSE_NODE, NodeStart, NoPose
from .playback import Playback
from .recording import GroundTruth, Recording, RecordingError
from .result import FrameCounts, PoseSample, RunOutcome, build_result


@dataclass
class Session:
    """result: as result.json. series: stage -> (seconds since playback began, ms)."""

    run: LiveRun
    samples: list[PoseSample]
    result: dict[str, Any]
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def stamp_of(self, seconds: float) -> int:
        """Stamp in the recording (ns) of what was played so many seconds after playback began, at whatever speed."""
        sent = sorted(self.run.sent.items())
        if not sent:
            return 0
        played = [(stamp - self.run.start_ns) * 1e-9 for stamp, _ in sent]
        recorded = [self.run.recorded_ns[index] - self.run.recorded_ns[0] for _, index in sent]
        return self.run.recorded_ns[0] + round(float(np.interp(seconds, played, recorded)))

    @property
    def outcome(self) -> RunOutcome:
        """What there is to be written of it."""
        return RunOutcome(self.result, self.samples, self.series, self.stamp_of)


class _Tape:
    """Hands out frames of a recording and keeps their ground truth."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._source = iter(recording)
        self.truths: list[GroundTruth] = []
        self._ahead: list[Frame] = []

    def expect(self, known: Mapping[str, str]) -> list[str]:
        """Pose topics to wait for: the visible objects of the first frame; none where no truth is recorded (any will do)."""
        first = next(self._source, None)
        if first is None:
            said = "".join(f"; {line}" for line in self._recording.tally.sentences())
            raise RecordingError(f"{self._recording.path}: no image makes a frame{said}")
        frame, truth = first
        self._ahead.append(frame)
        self.truths.append(truth)
        if not truth.instances:
            return []
        visible = {t.object for t in truth.instances if t.visibility is None or t.visibility >= 0.5}
        return sorted(name for name, object in known.items() if name == object and object in visible)

    def frames(self) -> Iterator[Frame]:
        yield from self._ahead
        for frame, truth in self._source:
            self.truths.append(truth)
            yield frame


def run_session(
    playback: Playback,
    start: NodeStart,
    options: LiveOptions,
    *,
    publish_masks: bool = False,
    watch: Watch = Watch(),  # noqa: B008 - frozen
) -> Session:
    """Play a recording into the node, judge its poses, build result.json. After ``watch.stop`` what was played is judged.

    Raises NoPose, NodeDied, RecordingError.
    """
    names = instance_names(playback.specs)
    tape = _Tape(playback.recording)
    expected = tape.expect(names)
    # One for every instance that the node listens for, empty where there is none: it waits for all of them.
    topics = Topics(list(names), expected, masks=list(names) if publish_masks else [])
    run = run_live(tape.frames(), playback.total, topics, start, options, watch)
    judge = Judge.of(playback.specs)
    counters = Counters.read(run.diagnostics).since(Counters.read(run.diagnostics_before))
    if counters.received > len(run.sent):
        raise NoPose(
            f"the node received {counters.received} frames, but {len(run.sent)} were played: another program publishes images "
            f"on ROS domain {run.domain_id}; end it, or run this again, which takes another domain"
        )
    samples = judge_run(run, tape.truths, judge, counters)
    backend = run.diagnostics.get(f"{POSE_NODE}: backend", {})
    result = build_result(
        samples,
        FrameCounts(len(run.sent), counters.received, counters.processed, counters.dropped),
        latency_ms=stage_latency(run.diagnostics),
        detection_source=backend.get("detector_source", ""),
        weights=backend.get("pose_weights", ""),
        device=backend.get("device", ""),
        missing=judge.missing,
        missing_by_object=judge.missing_by_object,
        spurious=judge.spurious,
        lost=counters.lost,
        recording_dropped=dict(playback.recording.tally.dropped),
        depth_unmatched=playback.recording.tally.depth_unmatched,
        detector_weights=backend.get("detector_weights", ""),
        detector_backend=backend.get("detector_backend", ""),
        pose_backend=backend.get("pose_backend", ""),
        frames_held=run.frames_held,
        playback_rate=run.rate,
        pacing=run.pacing,
        startup_seconds=run.startup_seconds,
        first_pose_seconds=run.first_pose_seconds,
    )
    return Session(run, samples, result, _series(run))


def judge_run(run: LiveRun, truths: Sequence[GroundTruth], judge: Judge, counters: Counters) -> list[PoseSample]:
    """One sample per pose that answers a played frame, in time order. Frames that the node processed without any
    pose count what is visible as missing; which ones those were only their number tells."""
    answers: dict[int, list[Any]] = {}
    for pose in run.poses:
        if pose.stamp_ns in run.sent:
            answers.setdefault(pose.stamp_ns, []).append(pose)
    samples = []
    for stamp, index in sorted(run.sent.items()):
        poses = answers.get(stamp)
        if not poses:
            continue
        errors = judge.judge([FoundPose(p.object, p.T_cam_obj) for p in poses], truths[index])
        for pose, error in zip(poses, errors, strict=True):
            age = (pose.received_ns - stamp) / 1e6
            sure = run.confidences.get((pose.object, stamp))
            samples.append(
                PoseSample(index, stamp, run.seconds_of(index), pose.object, pose.T_cam_obj, error, age, sure)
            )
    unanswered = [index for stamp, index in sorted(run.sent.items()) if stamp not in answers]
    silent = max(0, counters.processed - len(answers))
    for index in unanswered[:silent]:
        judge.count_absent(truths[index])
    return samples


def stage_latency(diagnostics: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, float]]:
    """Stage -> p50, p95, max in ms, from the node's diagnostics."""
    values = diagnostics.get(f"{POSE_NODE}: processing", {})
    found = {}
    for stage in STAGES:
        text = values.get(f"{stage}_ms_p50_p95_max")
        if text:
            p50, p95, largest = (float(v) for v in text.split())
            found[stage] = {"p50": p50, "p95": p95, "max": largest}
    return found


def _series(run: LiveRun) -> dict[str, list[tuple[float, float]]]:
    series = {
        stage: [((ns - run.start_ns) * 1e-9, ms) for ns, ms in values if ns >= run.start_ns]
        for stage, values in run.latency.items()
    }
    series["image to pose, as received"] = [
        ((p.stamp_ns - run.start_ns) * 1e-9, (p.received_ns - p.stamp_ns) / 1e6)
        for p in run.poses
        if p.stamp_ns in run.sent
    ]
    return series
