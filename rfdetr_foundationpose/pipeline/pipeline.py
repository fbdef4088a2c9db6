"""One frame in, poses out: who runs when, and what becomes of their results."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..accel.graph import totals
from ..config import Config, ConfigError, from_flat, iter_settings, to_flat
from ..detect.starts import Start, Starts
from ..latency import StageTimer
from ..types import CameraIntrinsics, Detection, Frame, TrackState
from .association import NEAR_DIAMETERS, Association, Matching, Registering, associate_object, without_duplicates
from .build import PipelineParts, build_parts
from .camera_doubt import CameraDoubt
from .confirmation import sure_score
from .detection_interval import DetectionInterval
from .duplicates import TAKEOVER, DuplicateTracks
from .frame_context import FrameContext
from .intake import Intake
from .registration import Registration
from .registration_worker import Job, RegistrationWorker
from .results import FrameResult, PipelineStatus
from .side_stream import SideStream
from .smoothing import PoseSmoother
from .tracker import Tracker
from .tracks import TrackTable

if TYPE_CHECKING:
    from ..detect.detector import DetectionReport

# The reason why there is no detection is said at most once in this time (s).
EXPLAIN_PERIOD = 5.0


class Pipeline:
    """Detector, pose estimator and the tracks between them.

    with Pipeline.build(Config.from_dict({"objects_file": "objects.yaml"})) as pipeline:
        for pose in pipeline.process(frame).tracking:
            print(pose.name, pose.translation_m, pose.quaternion_xyzw)

    ``process`` is for one thread at a time; ``reset``, ``apply`` and ``status`` may be called from others and do not
    wait for a frame in flight. background: register in a second thread while others are tracked; without it results do
    not depend on timing. overlap: on CUDA, run the detector on a stream of its own beside the tracker.
    """

    def __init__(self, parts: PipelineParts, config: Config, *, background: bool = True, overlap: bool = True) -> None:
        missing = [s.name for s in parts.specs if s.name not in parts.extents]
        if missing:
            raise ConfigError(f"objects {missing} have no extent; every object needs its mesh")
        self.config = config
        self.device = parts.device
        self.timer = StageTimer(self.device)
        self._detector = parts.detector
        self._estimator = parts.estimator
        self._specs = list(parts.specs)
        self._extents = dict(parts.extents)
        self._intake = Intake(parts.estimator, self.device, self.timer)
        self._side = SideStream(self.device, self.timer, overlap=overlap)
        self._tracks = TrackTable({s.name: s.max_instances for s in parts.specs})
        self._duplicates = DuplicateTracks(self._extents)
        worker = RegistrationWorker(parts.estimator, self.device, self.timer)
        self._registration = Registration(worker, self._tracks, self._extents, self._duplicates, background=background)
        self._tracker = Tracker(parts.estimator, self._tracks, self.timer)
        self._smoother = PoseSmoother(self._extents)
        self._detection_interval = DetectionInterval()
        self._camera_doubt = CameraDoubt()
        self._counters: Counter[str] = Counter()
        self._best_below: dict[str, float] = {}
        self._frame_index = -1
        self._absence_explained_at = -EXPLAIN_PERIOD
        self._starts = Starts()
        self._lock = threading.Lock()
        self._deferred: list[Callable[[], None]] = []

    @classmethod
    def build(cls, config: Config | None = None, *, background: bool = True) -> Pipeline:
        """A pipeline from settings (None: the defaults): objects, detector and estimator with their weights.

        Raises ConfigError (settings, objects, class names), MeshError, CheckpointError or DetectorError. What is chosen is logged.
        """
        config = from_flat(to_flat(config or Config()))  # values that were assigned have not been checked yet
        return cls(build_parts(config), config, background=background)

    def warm_up(self, camera: CameraIntrinsics) -> None:
        """Run every real path once at the camera's image size, so that the first frame is not slow."""
        self._detector.warm_up(camera)
        self._estimator.warm_up(camera)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.timer.clear()

    def process(self, frame: Frame) -> FrameResult:
        """Poses of one frame. Raises InputError for a frame that cannot be used; tracks stay as they were."""
        with self._frame():
            return self._process(frame)

    def upload_early(
        self,
        *,
        rgb: NDArray[np.uint8] | None = None,
        depth: NDArray[Any] | None = None,
        depth_scale: float = 1.0,
    ) -> None:
        """Upload one image of the next frame while the other is on its way, and filter it where it is depth.

        Images as in ``Frame``; ``process`` of a frame over the same memory, on the same CUDA stream, does not do it again. The
        image must not change before. Where no such frame comes nothing is lost. Does nothing on a CPU.
        """
        if self.device.type != "cuda":
            return
        with self._frame():
            self._intake.upload_early(rgb, depth, depth_scale)

    def locate(self, frame: Frame) -> FrameResult:
        """Poses of all objects in a single image: every detection is registered before this returns, however long it takes.

        What was tracked is forgotten; ``process`` may go on from here with the frames that follow. Raises InputError.
        """
        with self._frame():
            self._forget()
            return self._process(frame, still=True)

    def reset(self) -> None:
        """Forget all tracks and search again; at the end of the frame in flight, if there is one."""
        self._defer(self._forget)

    def start_at(self, start: Start) -> None:
        """Register an object on the next frame where somebody says it is, in the place of what is tracked where all its
        instances are. Raises ConfigError for an object that is not known."""
        if start.object not in self._extents:
            raise ConfigError(f"object {start.object!r} is not known; there are {', '.join(self._extents)}")
        self._defer(lambda: self._start_at(start))

    def apply(self, config: Config) -> None:
        """Take new values of live settings. Raises ConfigError that names a changed setting that is not live."""
        old, new = to_flat(self.config), to_flat(config)
        fixed = [s.path for s in iter_settings() if not s.live and old[s.path] != new[s.path]]
        if fixed:
            raise ConfigError(f"{', '.join(fixed)} cannot change while the pipeline runs; build a new one")
        self._defer(lambda: self._apply(config))

    def close(self) -> None:
        """End the background thread. The pipeline must not be used afterwards."""
        self._registration.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> PipelineStatus:
        memory = torch.cuda.memory_reserved(self.device) if self.device.type == "cuda" else 0
        return PipelineStatus(
            detector_source=self._detector.source,
            detector_backend=self._detector.backend,
            detector_weights=self._detector.weights,
            pose_backend=self._estimator.backend,
            pose_library=self._estimator.library,
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

    @contextmanager
    def _frame(self) -> Iterator[None]:
        """One frame at a time; what is asked for meanwhile is done before the next one."""
        try:
            with self._lock:
                self._settle()
                try:
                    yield
                finally:
                    self._settle()
        finally:
            self._settle_if_idle()

    def _defer(self, action: Callable[[], None]) -> None:
        self._deferred.append(action)
        self._settle_if_idle()

    def _settle_if_idle(self) -> None:
        # Again after the release: who asked just before it found the lock taken, and left it to us.
        while self._deferred and self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        while self._deferred:
            self._deferred.pop(0)()

    def _forget(self) -> None:
        self._tracks.reset()
        if self._registration.forget():
            self._counters["registrations_dropped"] += 1
        self._detection_interval.reset()
        self._starts.clear()
        self._best_below = {}
        self._counters["resets"] += 1

    def _start_at(self, start: Start) -> None:
        if not self._tracks.searching(start.object):
            [t for t in self._tracks.tracking() if t.object == start.object][-1].lose("somebody says where it is")
        self._starts.add(start)

    def _apply(self, config: Config) -> None:
        self.config = config
        self._detector.apply(config.detector)
        self._estimator.apply(config.pose)

    def _process(self, frame: Frame, *, still: bool = False) -> FrameResult:
        context = self._begin(frame, still)
        try:
            self._detect(context)
            self._follow(context)
            self._track(context)
            self._associate(context)
            self._verify(context)
            self._merge_duplicates(context)
            self._register(context)
            return self._publish(context)
        finally:
            if context.collect is not None:  # after an error: nobody works on an image that its owner takes back
                context.collect()
            self._intake.wait()

    def _begin(self, frame: Frame, still: bool) -> FrameContext:
        self._frame_index += 1
        self._counters["frames"] += 1
        self._camera_doubt.look(frame.camera)
        self._tracks.begin_frame()
        return FrameContext(
            index=self._frame_index,
            image=self._intake.upload(frame),
            config=self.config,
            counters=self._counters,
            prepare=self._intake.prepare,
            still=still,
            finished=self._registration.take_finished(),
        )

    def _detect(self, context: FrameContext) -> None:
        """Start the detector where it is due. Its report is collected when a step needs it: it works beside the tracker."""
        searching = bool(self._tracks.searching()) or any(t.uncertain for t in self._tracks)
        settings = context.config.detector
        stamp = context.frame.stamp_ns
        if self._detection_interval.due(context.index, stamp, searching=searching, config=settings):
            context.count("detector_runs")
            context.collect = self._side.start(self._detector, context.image)

    def _follow(self, context: FrameContext) -> None:
        """Let a registration that just finished see where its object is now, before the tracker looks for it there."""
        if context.finished is not None:
            self._associate(context)

    def _track(self, context: FrameContext) -> None:
        """Move all tracks, and the pose of a registration that just finished, to where their objects are now."""
        newcomer = self._tracker.move(context, self._registration.candidate(context))
        if newcomer is not None:
            self._registration.finish(context, newcomer)

    def _associate(self, context: FrameContext) -> None:
        """Settle, once a frame, which detection is which track, and which the registration under way."""
        self._collect(context)
        if context.report is None:
            return
        if context.associations is not None:  # settled before the tracks moved, for the registration that finished
            context.associations = {name: a.without_lost() for name, a in context.associations.items()}
            return
        job = context.finished or self._registration.under_way
        context.associations = {s.name: self._associate_object(context, s.name, job) for s in self._specs}
        context.count("duplicate_detections", sum(a.duplicates for a in context.associations.values()))
        if job is not None:
            association = context.associations[job.detection.object]
            own = next((d for d, t in association.pairs if t is job.track), None)
            job.seen = association.pending or own or job.seen

    def _associate_object(self, context: FrameContext, name: str, job: Job | None) -> Association:
        assert context.report is not None
        registering = None
        # A registration that is to correct a track needs none: its track is associated.
        if job is not None and job.detection.object == name and not job.track.tracking:
            # The only one of its kind is found however far it moved; of several, one that far away is another one.
            registering = Registering(job.seen, np.inf if self._tracks.count(name) == 1 else NEAR_DIAMETERS)
        threshold, stamp_ns = context.config.detector.association_iou, context.frame.stamp_ns
        return associate_object(
            [d for d in context.report.detections if d.object == name],
            [t for t in self._tracks.tracking() if t.object == name],
            Matching(self._extents[name], context.camera, threshold, stamp_ns),
            registering,
        )

    def _collect(self, context: FrameContext) -> None:
        """Wait for the detector, once, where it runs on this frame."""
        if context.collect is None:
            return
        report, context.collect = context.collect(), None
        context.report, wrong = self._starts.join(report, context.image)
        for sentence in wrong:
            context.say(f"start ignored: {sentence}")
        self._best_below = dict(context.report.best_below)
        self._explain_absence(context, context.report)

    def _explain_absence(self, context: FrameContext, report: DetectionReport) -> None:
        found = {d.object for d in report.detections} | {t.object for t in self._tracks.tracking()}
        absent = [s.name for s in self._specs if s.name not in found]
        context.count("no_detection", len(absent))
        if not absent or time.monotonic() - self._absence_explained_at < EXPLAIN_PERIOD:
            return
        self._absence_explained_at = time.monotonic()
        if not report.judges:
            context.say(f"waiting for somebody to say where {', '.join(absent)} is")
            return
        for name in absent:
            best, threshold = report.best_below.get(name), report.thresholds.get(name)
            known = "nothing like it is in view" if best is None else f"its best score is {best:.2f}"
            above = "" if threshold is None else f" at or above its threshold {threshold:.2f}"
            context.say(f"no detection of {name}{above}: {known}")

    def _verify(self, context: FrameContext) -> None:
        """Compare the tracks with the detections: one that the detector keeps missing may be lost."""
        if context.report is None or context.associations is None or not context.report.judges:
            return
        for name, association in context.associations.items():
            scores = {track.instance_id: detection.score for detection, track in association.pairs}
            if association.pending is not None and context.finished is not None:
                scores.setdefault(context.finished.track.instance_id, association.pending.score)
            sure = sure_score(name, context.report, context.config.detector.threshold)
            for track in [t for t in self._tracks.tracking() if t.object == name]:
                contested = bool(association.free) and not self._tracks.searching(name)
                score = scores.get(track.instance_id)
                settings, stamp = context.config.pose, context.frame.stamp_ns
                context.changed(track, track.verify(score, contested, settings, stamp, sure))

    def _merge_duplicates(self, context: FrameContext) -> None:
        """Two tracks on one thing: the redundant one is lost."""
        judged = context.report is not None and context.report.judges
        for track, better in self._duplicates.redundant(self._tracks.tracking(), context.camera, judged=judged):
            self._duplicates.displace(context, track, better)

    def _register(self, context: FrameContext) -> None:
        """Register what the detector sees and no track is, and what a track in doubt may be."""
        if context.associations is None:
            return
        claimed: list[Detection] = []
        free: list[Detection] = []
        for association in context.associations.values():
            # A detection of another object in the place of a tracked or registering one counts from this score on.
            if association.pending is not None:
                claimed.append(replace(association.pending, score=association.pending.score + TAKEOVER))
            claimed += [replace(d, score=t.certainty + TAKEOVER) for d, t in association.pairs]
            free += association.free
        candidates, duplicates = without_duplicates(free, claimed)
        context.count("duplicate_detections", duplicates)
        pairs = [pair for association in context.associations.values() for pair in association.pairs]
        doubted = [(d, t) for d, t in pairs if t.tracking and self._registration.doubts(context, t)]
        self._registration.start(context, candidates, doubted)

    def _publish(self, context: FrameContext) -> FrameResult:
        tracks = [t for t in self._tracks if t.state in (TrackState.TRACKING, TrackState.LOST)]
        poses = self._smoother.poses(tracks, context.frame, context.config.output.smoothing)
        detections = None if context.report is None else context.report.detections
        return FrameResult(context.frame, poses, detections, context.events)
