"""Runs registrations: at once, or in a background thread beside the tracker."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..latency import StageTimer
from ..types import CameraIntrinsics, Detection
from .extent import detection_point
from .tracks import Track

if TYPE_CHECKING:
    from ..pose.estimator import Estimate, PoseEstimator
    from ..pose.observation import Observation


@dataclass
class Job:
    """One registration. track: the instance that it is to become. seen: the detection of it in the newest frame that has
    one, for ``caught_up``. ready: an event on the GPU after the work that it needs. milliseconds: how long it took."""

    observation: Observation
    detection: Detection
    track: Track
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


class RegistrationWorker:
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
                detection = job.detection
                job.estimate = self._estimator.register(
                    job.observation, detection.object, self._mask(job), outlined=detection.outlined
                )
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
