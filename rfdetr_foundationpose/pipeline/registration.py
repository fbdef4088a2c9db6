"""Registrations: inline or in a background thread, caught up when they finish, backed off when they are refused."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..latency import StageTimer
from ..pose.confidence import FEATURES
from ..types import CameraIntrinsics, Detection
from .association import ObjectGeometry, box_iou, detection_point

if TYPE_CHECKING:
    from ..detect.detector import DetectionReport
    from ..pose.estimator import Estimate, PoseEstimator, PoseFrame

# A refused object is tried again after 1, 2, 4, ... frames, at most this many.
MAX_BACKOFF_FRAMES = 30
# A candidate that overlaps the place of the last refusal this much is tried after all others.
_SAME_PLACE_IOU = 0.5
# A pose must explain this much of what the detector saw. In generated videos right ones explain 0.49 and more, even of
# an object that is half hidden; most wrong ones that were sure of themselves 0.22 to 0.36.
MIN_EXPLAINED = 0.4
_MISSING = FEATURES.index("missing")


@dataclass
class Job:
    """One registration under way. ``seen`` follows the detection while newer frames arrive, for catching up."""

    pose_frame: PoseFrame
    detection: Detection
    instance_id: int
    stamp_ns: int
    seen: Detection = field(init=False)
    ready: torch.cuda.Event | None = None
    estimate: Estimate | None = None
    error: Exception | None = None
    milliseconds: float = 0.0

    def __post_init__(self) -> None:
        self.seen = self.detection

    def caught_up(self, camera: CameraIntrinsics) -> NDArray[np.float64]:
        """The registered pose (4, 4), moved as the detection moved since the frame it was registered on.

        Where depth was not measured the pose's own depth carries the shift, parallel to the image plane.
        """
        assert self.estimate is not None
        T = np.array(self.estimate.T_cam_obj, dtype=np.float64)
        if self.seen is self.detection:
            return T
        measured = self.detection.depth is not None and self.seen.depth is not None
        depth = None if measured else float(T[2, 3])
        before = detection_point(self.detection, camera, depth)
        now = detection_point(self.seen, camera, depth)
        if before is not None and now is not None:
            T[:3, 3] += now - before
        return T


class Registrar:
    """Runs registrations of one estimator: at most one in the background at a time, on a CUDA stream of its own."""

    def __init__(self, estimator: PoseEstimator, device: torch.device, timer: StageTimer) -> None:
        self._estimator = estimator
        self._device = device
        self._timer = timer
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._under_way = 0
        self._count_lock = threading.Lock()
        self.pending: Job | None = None

    def run(self, job: Job) -> Job:
        """Register now, on the caller's stream. The outcome is in the job: ``estimate`` or ``error``."""
        begin = time.perf_counter()
        try:
            with self._timer.stage("register"):
                job.estimate = self._estimator.register(job.pose_frame, job.detection.object, self._mask(job))
        except Exception as error:  # refusals and faults alike: the pipeline tells them apart
            job.error = error
        job.milliseconds = (time.perf_counter() - begin) * 1e3
        return job

    def submit(self, job: Job) -> None:
        """Register in the background; the work queued so far on the caller's stream comes first. Needs no job pending."""
        if self.pending is not None:
            raise RuntimeError("a registration is already under way")
        self.pending = job
        if self._device.type == "cuda":
            job.ready = torch.cuda.current_stream(self._device).record_event()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="registration", daemon=True)
            self._thread.start()
        self._count(1)
        self._jobs.put(job)

    @property
    def busy(self) -> bool:
        """Whether the background thread has work, wanted or forgotten."""
        return self._under_way > 0

    def _count(self, change: int) -> None:
        with self._count_lock:
            self._under_way += change

    def poll(self) -> Job | None:
        """The background job that has finished since the last call, or None. Does not wait."""
        try:
            job = self._done.get_nowait()
        except queue.Empty:
            return None
        if job is not self.pending:
            return None
        self.pending = None
        return job

    def forget(self) -> bool:
        """Drop the pending job; its result will be ignored. True when there was one."""
        dropped, self.pending = self.pending is not None, None
        return dropped

    def close(self) -> None:
        """End the background thread after the job it works on."""
        self.forget()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _mask(self, job: Job) -> torch.Tensor:
        mask = job.detection.mask
        return mask if isinstance(mask, torch.Tensor) else torch.from_numpy(np.asarray(mask)).to(self._device)

    def _work(self) -> None:
        cuda = self._device.type == "cuda"
        stream = torch.cuda.Stream(self._device) if cuda else None
        while (job := self._jobs.get()) is not None:
            if stream is None or job.ready is None:
                self.run(job)
            else:
                with torch.cuda.device(self._device), torch.cuda.stream(stream):
                    stream.wait_event(job.ready)
                    self.run(job)
                    # The job's tensors belong to the other stream's pool; they may go back only when we are done.
                    stream.synchronize()
            self._done.put(job)
            self._count(-1)


def explained(estimate: Estimate, detection: Detection, geometry: ObjectGeometry, camera: CameraIntrinsics) -> float:
    """How much of the detected object the pose accounts for, about 0 to 1: the model's pixels that the image agrees with,
    among those that have depth, against the size of the detected box.

    What hides the object makes both smaller. A pose that is far larger than what was seen, and has most of it behind
    other things, may agree with the little that is left; this tells it from a right one.
    """
    box = geometry.project(estimate.T_cam_obj, camera)
    if box is None:
        return 0.0
    measured = 1.0 - float(estimate.features[_MISSING])
    visible = estimate.visibility / measured if measured > 0 else 0.0
    x0, y0, x1, y1 = (float(v) for v in detection.box)
    return visible * float((box[2] - box[0]) * (box[3] - box[1])) / max((x1 - x0) * (y1 - y0), 1.0)


def sure_score(object: str, report: DetectionReport, threshold: float) -> float:
    """From which score on a detection is beyond doubt: halfway from its threshold to 1. threshold: of objects without one."""
    return (1 + report.thresholds.get(object, threshold)) / 2


class TrackConfirmation:
    """Which detections are worth a registration: sure ones at once, others when two detector runs in a row show them.

    What the detector takes for an object for the length of one frame hardly ever is one, but may register all the same.
    """

    def __init__(self) -> None:
        self._last: list[Detection] = []

    def clear(self) -> None:
        self._last = []

    def confirmed(self, candidates: Sequence[Detection], report: DetectionReport, threshold: float) -> list[Detection]:
        """Those of the candidates that are; to be called with every detector run. threshold: of objects without one."""
        last, self._last = self._last, list(report.detections)

        def sure(d: Detection) -> bool:
            return d.score >= sure_score(d.object, report, threshold)

        def again(d: Detection) -> bool:
            return any(o.object == d.object and box_iou(o.box, d.box) > 0 for o in last)

        return [d for d in candidates if sure(d) or again(d)]


@dataclass
class _Refused:
    count: int = 0
    next_frame: int = 0
    detection: Detection | None = None


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
                and (box_iou(entry.detection.box, d.box) > _SAME_PLACE_IOU)
            )

        return sorted(candidates, key=lambda d: (refused(d), -d.score))

    def clear(self) -> None:
        self._refused.clear()
