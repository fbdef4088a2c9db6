"""A recording straight through the pipeline, without ROS: every frame, as fast as it goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..objects import ObjectSpec
from ..pipeline import Pipeline
from ..types import InputError, TrackState
from .judge import FoundPose, Judge
from .recording import Recording
from .result import PoseSample


@dataclass
class OfflineRun:
    """samples: one per tracked instance and frame. latency_ms: stage -> p50, p95, max. skipped: reason -> frames.

    series: stage -> (seconds in the recording, ms) of the whole ``process`` call.
    """

    frames: int = 0
    samples: list[PoseSample] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    seconds: float = 0.0


def run_offline(
    pipeline: Pipeline,
    recording: Recording,
    specs: Sequence[ObjectSpec],
    judge: Judge,
    count: int | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> OfflineRun:
    """Process the first ``count`` frames (None: all). Frames that cannot be used are skipped and counted."""
    run = OfflineRun()
    known = {s.name for s in specs}
    start = None
    process_ms: list[tuple[float, float]] = []
    begin = time.perf_counter()
    for index, (frame, truth) in enumerate(recording):
        if count is not None and index >= count:
            break
        if start is None:
            start = frame.stamp_ns
            pipeline.warm_up(frame.camera)
            begin = time.perf_counter()
        seconds = (frame.stamp_ns - start) * 1e-9
        run.frames += 1
        called = time.perf_counter()
        try:
            result = pipeline.process(frame)
        except InputError as error:
            run.skipped[error.kind] += 1
            run.events.append(f"{seconds:.3f} s: frame skipped ({error.kind}): {error}")
            continue
        process_ms.append((seconds, (time.perf_counter() - called) * 1e3))
        run.events += [f"{seconds:.3f} s: {event}" for event in result.events]
        poses = [p for p in result.poses if p.state is TrackState.TRACKING and p.object in known]
        errors = judge.judge([FoundPose(p.name, p.T_cam_obj) for p in poses], truth)
        for pose, wrong in zip(poses, errors, strict=True):
            run.samples.append(
                PoseSample(index, frame.stamp_ns, seconds, pose.name, pose.T_cam_obj, wrong, confidence=pose.confidence)
            )
        advance(index + 1)
    run.seconds = time.perf_counter() - begin
    run.latency_ms = {stage: {"p50": s.p50, "p95": s.p95, "max": s.max} for stage, s in pipeline.timer.stats().items()}
    run.series = {"process": process_ms}
    return run
