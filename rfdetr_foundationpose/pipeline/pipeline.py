"""One frame in, poses out: who runs when, and what becomes of their results."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..accel.graph import totals
from ..config import Config, ConfigError, iter_settings, to_flat
from ..device_frame import DeviceFrame, Uploader
from ..latency import StageTimer
from ..objects import ObjectSpec
from ..pose.estimator import RegistrationError, TrackRequest
from ..types import CameraIntrinsics, Detection, Frame, TrackState
from .association import NEAR_DIAMETERS, ObjectGeometry, associate, choose_slot
from .association import without_duplicates as suppress
from .detection_interval import DetectionInterval
from .duplicates import TAKEOVER, DuplicateTracks, is_replaced_by, relation
from .registration import MIN_EXPLAINED, Backoff, Job, Registrar, TrackConfirmation, explained, sure_score
from .results import FrameResult, PipelineStatus
from .side_stream import SideStream
from .tracks import Track, TrackTable

if TYPE_CHECKING:
    from ..detect.detector import DetectionReport, Detector
    from ..pose.estimator import Estimate, PoseEstimator, PoseFrame

# "No detection" is explained at most this often, in seconds of wall time.
EXPLAIN_PERIOD = 5.0


class Pipeline:
    """Detector, pose estimator and the tracks between them.

    ``process`` is for one thread at a time; ``reset``, ``apply`` and ``status`` may be called from others and do not
    wait for a frame in flight. geometry: object name -> extent of its mesh. background: register in a second thread
    while others are tracked; without it results do not depend on timing. overlap: on CUDA, run the detector on a
    stream of its own beside the tracker.
    """

    def __init__(
        self,
        detector: Detector,
        estimator: PoseEstimator,
        specs: Sequence[ObjectSpec],
        geometry: Mapping[str, ObjectGeometry],
        config: Config,
        device: torch.device | str = "cpu",
        *,
        background: bool = True,
        overlap: bool = True,
        log: Callable[[str], None] = print,
    ) -> None:
        missing = [s.name for s in specs if s.name not in geometry]
        if missing:
            raise ConfigError(f"objects {missing} have no geometry; every object needs its mesh")
        self.config = config
        self.device = torch.device(device)
        self.timer = StageTimer(self.device)
        self._detector = detector
        self._estimator = estimator
        self._specs = list(specs)
        self._geometry = dict(geometry)
        self._duplicate_tracks = DuplicateTracks(self._geometry)
        self._background = background
        self._log = log
        self._upload = Uploader(self.device)
        self._side = SideStream(self.device, self.timer, overlap=overlap)
        self._registrar = Registrar(estimator, self.device, self.timer)
        self._backoff = Backoff()
        self._confirmation = TrackConfirmation()
        self._tracks = TrackTable({s.name: s.max_instances for s in specs})
        self._counters: Counter[str] = Counter()
        self._best_below: dict[str, float] = {}
        self._frame_index = -1
        self._detection_interval = DetectionInterval()
        self._explained = -EXPLAIN_PERIOD
        self._lock = threading.Lock()
        self._deferred: list[Callable[[], None]] = []

    @classmethod
    def build(cls, config: Config, log: Callable[[str], None] = print, *, background: bool = True) -> Pipeline:
        """The real thing from settings: objects, detector and estimator with their weights.

        Raises ConfigError (settings, objects, class names) or the rooms' own load errors; ``log`` hears what is chosen.
        """
        from .build import build_pipeline

        return build_pipeline(cls, config, log, background=background)

    def warm_up(self, camera: CameraIntrinsics) -> None:
        """Run every real path once at the camera's image size, so that the first frame is not slow."""
        self._detector.warm_up(camera)
        self._estimator.warm_up(camera)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.timer.clear()

    def process(self, frame: Frame) -> FrameResult:
        """Poses of one frame. Raises InputError for a frame that cannot be used; tracks stay as they were."""
        with self._lock:
            try:
                return self._process(frame)
            finally:
                self._settle()

    def reset(self) -> None:
        """Forget all tracks and search again; at the end of the frame in flight, if there is one."""
        self._defer(self._forget)

    def apply(self, config: Config) -> None:
        """Take new values of live settings. Raises ConfigError that names a changed setting that is not live."""
        old, new = to_flat(self.config), to_flat(config)
        fixed = [s.path for s in iter_settings() if not s.live and old[s.path] != new[s.path]]
        if fixed:
            raise ConfigError(f"{', '.join(fixed)} cannot change while the pipeline runs; build a new one")
        self._defer(lambda: self._apply(config))

    def close(self) -> None:
        """End the background thread. The pipeline must not be used afterwards."""
        self._registrar.close()

    def status(self) -> PipelineStatus:
        memory = torch.cuda.memory_reserved(self.device) if self.device.type == "cuda" else 0
        return PipelineStatus(
            detector_source=self._detector.source,
            detector_backend=self._detector.backend,
            detector_weights=self._detector.weights,
            pose_backend=self._estimator.backend,
            pose_weights=self._estimator.weights,
            device=str(self.device),
            gpu_memory_bytes=memory,
            counters=dict(self._counters) | self._captures(),
            states=self._tracks.states(),
            best_below=dict(self._best_below),
            degraded=[*self._detector.degraded, *self._estimator.degraded],
        )

    def _captures(self) -> dict[str, int]:
        """CUDA graphs captured so far; one captured after warm-up was a pause in somebody's frame."""
        return {"graph_captures": totals().captures} if self.device.type == "cuda" else {}

    def _defer(self, action: Callable[[], None]) -> None:
        self._deferred.append(action)
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        while self._deferred:
            self._deferred.pop(0)()

    def _forget(self) -> None:
        self._tracks.reset()
        self._backoff.clear()
        self._confirmation.clear()
        if self._registrar.forget():
            self._counters["registrations_dropped"] += 1
        self._detection_interval.reset()
        self._best_below = {}
        self._counters["resets"] += 1

    def _apply(self, config: Config) -> None:
        self.config = config
        self._detector.apply(config.detector)
        self._estimator.apply(config.pose)

    def _process(self, frame: Frame) -> FrameResult:
        self._frame_index += 1
        self._counters["frames"] += 1
        self._tracks.begin_frame()
        events: list[str] = []
        device_frame = self._upload(frame)
        finish = self._start_detection(device_frame)
        job = self._registrar.poll()
        # A finished registration must see where its object is now; without one the detector works beside the tracker.
        report = self._report(finish, events) if job is not None else None
        following = self._follow(report, job, frame.camera)
        pose_frame = self._track(device_frame, job, events)
        if job is None:
            report = self._report(finish, events)
            following = self._follow(report, None, frame.camera)
        if report is None:
            self._drop_duplicate_tracks(frame.camera, events, judged=False)
        else:
            unclaimed = self._verify(report, following, frame.camera, events)
            candidates = self._confirmation.confirmed(unclaimed, report, self.config.detector.threshold)
            self._counters["detections_unconfirmed"] += len(unclaimed) - len(candidates)
            self._drop_duplicate_tracks(frame.camera, events, judged=True)
            self._search(device_frame, pose_frame, candidates, events)
        poses = [t.pose(frame) for t in self._tracks if t.state is not TrackState.SEARCHING]
        return FrameResult(frame, poses, None if report is None else report.detections, events)

    def _start_detection(self, frame: DeviceFrame) -> Callable[[], DetectionReport] | None:
        """Run the detector where it is due; None where it is not."""
        searching = bool(self._tracks.searching())
        settings = self.config.detector
        if not self._detection_interval.due(
            self._frame_index, frame.frame.stamp_ns, searching=searching, config=settings
        ):
            return None
        self._counters["detector_runs"] += 1
        return self._side.start(self._detector, frame)

    def _report(self, finish: Callable[[], DetectionReport] | None, events: list[str]) -> DetectionReport | None:
        if finish is None:
            return None
        report = finish()
        self._best_below = dict(report.best_below)
        self._explain(report, events)
        return report

    def _explain(self, report: DetectionReport, events: list[str]) -> None:
        found = {d.object for d in report.detections} | {t.object for t in self._tracks.tracking()}
        absent = [s.name for s in self._specs if s.name not in found]
        self._counters["no_detection"] += len(absent)
        if not absent or time.monotonic() - self._explained < EXPLAIN_PERIOD:
            return
        self._explained = time.monotonic()
        for name in absent:
            best, threshold = report.best_below.get(name), report.thresholds.get(name)
            known = "nothing like it is in view" if best is None else f"its best score is {best:.2f}"
            above = "" if threshold is None else f" at or above its threshold {threshold:.2f}"
            events.append(f"no detection of {name}{above}: {known}")

    def _follow(self, report: DetectionReport | None, job: Job | None, camera: CameraIntrinsics) -> Detection | None:
        """Let the registration under way, or just finished, see where its object is now; the detection of it, if any."""
        current = job or self._registrar.pending
        if current is None or report is None:
            return None
        name = current.detection.object
        detections = [d for d in report.detections if d.object == name]
        tracked = [t for t in self._tracks.tracking() if t.object == name]
        # The only one of its kind is found however far it moved; of several, one that far away is another one.
        reach = np.inf if self._tracks.count(name) == 1 else NEAR_DIAMETERS
        iou = self.config.detector.association_iou
        pairs = associate(detections, tracked, self._geometry[name], camera, iou, current.seen, reach)
        followed = next((detections[i] for i, owner in pairs.items() if owner == len(tracked)), None)
        current.seen = followed or current.seen
        return followed

    def _track(self, frame: DeviceFrame, job: Job | None, events: list[str]) -> PoseFrame | None:
        tracked = self._tracks.tracking()
        requests = [TrackRequest(t.object, t.T_cam_obj) for t in tracked if t.T_cam_obj is not None]
        if job is not None and self._outcome(job, frame.camera, events):
            requests.append(TrackRequest(job.detection.object, job.caught_up(frame.camera)))
        if not requests:
            return None
        with self.timer.stage("preprocess"):
            pose_frame = self._estimator.prepare(frame)
        with self.timer.stage("track"):
            estimates = self._estimator.track(pose_frame, requests)
        for track, estimate in zip(tracked, estimates, strict=False):
            reason = track.update(estimate.T_cam_obj, estimate.confidence, estimate.visibility, self.config.pose)
            self._lost(track, reason, events)
        if job is not None and len(estimates) > len(tracked):
            self._accept(job, estimates[-1], frame.camera, events, late=True)
        return pose_frame

    def _lost(self, track: Track, reason: str | None, events: list[str]) -> None:
        if reason is not None:
            self._counters["lost"] += 1
            events.append(f"{track.name} lost: {reason}")

    def _verify(
        self, report: DetectionReport, following: Detection | None, camera: CameraIntrinsics, events: list[str]
    ) -> list[Detection]:
        """Hold the tracks against the detections; returns the detections that are no tracked instance, best first."""
        # What another object must score to be looked at where one is tracked, or being registered.
        claimed = [] if following is None else [replace(following, score=following.score + TAKEOVER)]
        unclaimed: list[Detection] = []
        for spec in self._specs:
            detections, doubles = suppress([d for d in report.detections if d.object == spec.name])
            self._counters["duplicate_detections"] += doubles
            tracked = [t for t in self._tracks.tracking() if t.object == spec.name]
            iou = self.config.detector.association_iou
            pairs = associate(detections, tracked, self._geometry[spec.name], camera, iou)
            scores = {track: detections[i].score for i, track in pairs.items()}
            sure = sure_score(spec.name, report, self.config.detector.threshold)
            free = [d for i, d in enumerate(detections) if i not in pairs and d is not following]
            for i, track in enumerate(tracked):
                contested = bool(free) and not self._tracks.searching(spec.name)
                self._lost(track, track.verify(scores.get(i), contested, self.config.pose, sure), events)
            claimed += [replace(detections[i], score=tracked[track].certainty + TAKEOVER) for i, track in pairs.items()]
            unclaimed += free
        candidates, doubles = suppress(unclaimed, claimed)
        self._counters["duplicate_detections"] += doubles
        return candidates

    def _drop_duplicate_tracks(self, camera: CameraIntrinsics, events: list[str], *, judged: bool) -> None:
        """Two tracks on one thing: the redundant one is lost. judged: whether the detector ran on this frame."""
        for track, better in self._duplicate_tracks.redundant(self._tracks.tracking(), camera, judged=judged):
            self._displace(track, better, events)

    def _displace(self, track: Track, better: Track, events: list[str]) -> None:
        self._counters["duplicate_tracks"] += 1
        self._lost(track, track.lose(relation(track, better)), events)

    def _search(
        self, frame: DeviceFrame, pose_frame: PoseFrame | None, candidates: list[Detection], events: list[str]
    ) -> None:
        """Register what is searched: here when nothing is tracked, else in the background, one at a time."""
        for detection in self._backoff.order(candidates):
            free = [t for t in self._tracks.searching(detection.object) if self._free(t)]
            if not free:
                continue
            if not self._backoff.may_try(detection.object, self._frame_index):
                self._counters["registrations_backed_off"] += 1
                continue
            if self._registrar.pending is not None:
                self._counters["registrations_waiting"] += 1
                continue
            if pose_frame is None:
                with self.timer.stage("preprocess"):
                    pose_frame = self._estimator.prepare(frame)
            slot = choose_slot(detection, free, self._geometry[detection.object], frame.camera)
            job = Job(pose_frame, detection, slot.instance_id, frame.frame.stamp_ns)
            self._counters["registrations"] += 1
            # A forgotten registration may still be at work; waiting for it here would hold up every frame.
            if self._background and (self._tracks.tracking() or self._registrar.busy):
                self._registrar.submit(job)
                continue
            self._registrar.run(job)
            if self._outcome(job, frame.camera, events):
                assert job.estimate is not None
                self._accept(job, job.estimate, frame.camera, events, late=False)
            if not (self._background and self._tracks.tracking()):
                # One slow attempt a frame: the next candidate deserves a newer image.
                return

    def _free(self, track: Track) -> bool:
        """Neither lost on this very frame, which is to be said first, nor promised to the registration under way."""
        job = self._registrar.pending
        promised = job is not None and (job.detection.object, job.instance_id) == (track.object, track.instance_id)
        return track.state is TrackState.SEARCHING and not promised

    def _outcome(self, job: Job, camera: CameraIntrinsics, events: list[str]) -> bool:
        """Whether the registration gave a pose worth going on with. Raises what is no refusal."""
        if isinstance(job.error, RegistrationError):
            self._refuse(job, f"registration_{job.error.kind}", str(job.error), events)
            return False
        if job.error is not None:
            raise job.error
        assert job.estimate is not None
        accept = self.config.pose.accept_confidence
        if not job.estimate.confidence >= accept or not np.isfinite(job.estimate.T_cam_obj).all():
            reason = f"confidence {job.estimate.confidence:.2f} is below pose.accept_confidence={accept}"
            self._refuse(job, "registration_low_confidence", reason, events)
            return False
        share = explained(job.estimate, job.detection, self._geometry[job.detection.object], camera)
        if share < MIN_EXPLAINED:
            reason = f"the pose explains {share:.0%} of what was detected, less than {MIN_EXPLAINED:.0%}"
            self._refuse(job, "registration_unexplained", reason, events)
            return False
        return True

    def _refuse(self, job: Job, counter: str, reason: str, events: list[str]) -> None:
        self._counters["registrations_refused"] += 1
        self._counters[counter] += 1
        wait = self._backoff.refuse(job.seen, self._frame_index)
        events.append(f"{job.detection.object} refused: {reason}; searched again after {wait} frames")

    def _accept(self, job: Job, estimate: Estimate, camera: CameraIntrinsics, events: list[str], *, late: bool) -> None:
        """Start the track, unless it is a thing that has one; a late one was tracked into the newest frame, and must
        hold there."""
        accept = self.config.pose.accept_confidence
        if late and not estimate.confidence >= accept:
            reason = f"caught up with confidence {estimate.confidence:.2f}, below pose.accept_confidence={accept}"
            self._refuse(job, "registration_stale", reason, events)
            return
        track = next(t for t in self._tracks if (t.object, t.instance_id) == (job.detection.object, job.instance_id))
        # Settled here, not later between two tracks: the thing keeps the id that it has.
        started = replace(track, T_cam_obj=estimate.T_cam_obj, confidence=estimate.confidence, support=job.seen.score)
        rivals = self._duplicate_tracks.rivals(started, self._tracks.tracking(), camera)
        firm = next((t for t in rivals if not is_replaced_by(t, started)), None)
        if firm is not None:
            self._refuse(job, "registration_double", relation(started, firm), events)
            return
        for rival in rivals:
            self._displace(rival, started, events)
        again = track.losses > 0
        track.start(estimate.T_cam_obj, estimate.confidence, estimate.visibility, job.seen.score)
        self._backoff.accept(track.object)
        self._counters["registered_again" if again else "registered"] += 1
        events.append(
            f"{track.name} registered{' again' if again else ''}: confidence {estimate.confidence:.2f}, "
            f"{job.milliseconds:.0f} ms{' in the background' if late else ''}"
        )
