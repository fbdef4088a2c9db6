"""A recording straight through the pipeline, without ROS: every frame, as fast as it goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from ..interrupts import Watch
from ..pipeline import Pipeline
from ..types import InputError, TrackState
from .judge import FoundPose, Judge
from .playback import Playback
from .result import PoseSample

Item = TypeVar("Item")


@dataclass
class OfflineRun:
    """samples: one per tracked instance and frame. latency_ms: stage -> p50, p95, max.

    published: colour images of the recording up to the last frame; each is one of ``processed`` or in ``dropped``, by
    reason: those that made no frame, and frames that the pipeline could not use. series: stage -> (seconds in the recording,
    ms), "process" is the whole call.
    """

    published: int = 0
    processed: int = 0
    samples: list[PoseSample] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    seconds: float = 0.0


def run_offline(
    pipeline: Pipeline,
    playback: Playback,
    judge: Judge,
    watch: Watch = Watch(),  # noqa: B008 - frozen
    keep: Callable[[Sequence[PoseSample]], None] = lambda samples: None,
) -> OfflineRun:
    """Process the frames of a recording, or those until ``watch.stop``. What cannot be used is skipped and counted.

    keep: gets the samples of each frame as they come.
    """
    run = OfflineRun()
    known, total = {s.name for s in playback.specs}, playback.total
    start = None
    process_ms: list[tuple[float, float]] = []
    counted: Counter[str] = Counter()
    begin = time.perf_counter()
    for index, (frame, truth) in enumerate(_until(watch.stop, islice(playback.recording, playback.frames))):
        if start is None:
            start = frame.stamp_ns
            pipeline.warm_up(frame.camera)
            begin = time.perf_counter()
        seconds = (frame.stamp_ns - start) * 1e-9
        called = time.perf_counter()
        try:
            result = pipeline.process(frame)
        except InputError as error:
            run.dropped[error.kind] += 1
            run.events.append(f"{seconds:.3f} s: frame skipped ({error.kind}): {error}")
            continue
        run.processed += 1
        process_ms.append((seconds, (time.perf_counter() - called) * 1e3))
        for stage, stats in pipeline.timer.stats().items():
            if stats.count > counted[stage]:
                counted[stage] = stats.count
                run.series.setdefault(stage, []).append((seconds, stats.last))
        run.events += [f"{seconds:.3f} s: {event}" for event in result.events]
        poses = [p for p in result.poses if p.state is TrackState.TRACKING and p.object in known]
        errors = judge.judge([FoundPose(p.name, p.T_cam_obj) for p in poses], truth)
        samples = [
            PoseSample(index, frame.stamp_ns, seconds, pose.name, pose.T_cam_obj, wrong, confidence=pose.confidence)
            for pose, wrong in zip(poses, errors, strict=True)
        ]
        keep(samples)
        run.samples += samples
        watch.advance(index + 1, total)
    run.published = playback.recording.tally.published
    run.dropped += playback.recording.tally.dropped
    run.seconds = time.perf_counter() - begin
    run.latency_ms = {stage: {"p50": s.p50, "p95": s.p95, "max": s.max} for stage, s in pipeline.timer.stats().items()}
    run.series["process"] = process_ms
    return run


def _until(stop: Callable[[], bool], items: Iterable[Item]) -> Iterator[Item]:
    """The items up to the one during which the wish came; none is read ahead."""
    for item in items:
        yield item
        if stop():
            return
