"""Registration: what is searched is registered, and what holds becomes a track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..pose.confidence import FEATURES
from ..pose.estimator import RegistrationError, TrackRequest
from ..pose.symmetry import nearest_equivalent, rotation_angle
from ..types import CameraIntrinsics, Detection, TrackState
from .association import choose_instance
from .backoff import Backoff, Rechecks
from .confirmation import TrackConfirmation
from .duplicates import TAKEOVER, DuplicateTracks, is_replaced_by, relation
from .extent import ObjectExtent
from .frame_context import FrameContext
from .registration_worker import Job, RegistrationWorker
from .tracks import Track, TrackTable

if TYPE_CHECKING:
    from ..pose.estimator import Estimate

# A pose must explain this share of what the detector saw. In generated videos right poses explain 0.49 and more, even of
# an object that is half hidden; most wrong ones that were sure of themselves explain 0.22 to 0.36.
MIN_EXPLAINED = 0.4
# A registered pose is another one than the tracked pose where its middle is this far away (in object diameters), or it is turned
# by this angle (rad). Nearer ones the tracker finds by itself.
OTHER_DIAMETERS = 0.1
OTHER_ANGLE = np.deg2rad(15.0)
_MISSING = FEATURES.index("missing")


class Registration:
    """Starts registrations, judges what they give, and starts the tracks of those that hold.

    background: work in a second thread while anything is tracked; without it every registration is done at once. A
    background registration comes back one or more frames later: ``take_finished``, then ``candidate`` says where the
    tracker should look for it in the newest frame, and ``finish`` takes what the tracker found there.
    """

    def __init__(
        self,
        worker: RegistrationWorker,
        tracks: TrackTable,
        extents: Mapping[str, ObjectExtent],
        duplicates: DuplicateTracks,
        *,
        background: bool,
    ) -> None:
        self.worker = worker
        self._tracks = tracks
        self._extents = extents
        self._duplicates = duplicates
        self._background = background
        self._backoff = Backoff()
        self._rechecks = Rechecks()
        self._confirmation = TrackConfirmation()

    @property
    def under_way(self) -> Job | None:
        """The background registration that has not come back yet."""
        return self.worker.pending

    def take_finished(self) -> Job | None:
        """The background registration that finished since the last call, or None. Does not wait."""
        return self.worker.poll()

    def forget(self) -> bool:
        """Search everything anew. True when a registration under way was given up for that."""
        self._backoff.clear()
        self._rechecks.clear()
        self._confirmation.clear()
        return self.worker.forget()

    def close(self) -> None:
        """End the background thread."""
        self.worker.close()

    def doubts(self, context: FrameContext, track: Track) -> bool:
        """Whether a tracked instance is to be registered again where the detector sees it, to compare the two poses."""
        if track.in_doubt:
            return track.uncertain
        return self._rechecks.due(track.name, track.confidence, context.index)

    def start(
        self, context: FrameContext, candidates: Sequence[Detection], doubted: Sequence[tuple[Detection, Track]] = ()
    ) -> None:
        """Register candidates: in this thread while nothing is tracked, else in the background, one at a time. On a still all
        are registered in this thread.

        candidates: detections that are no tracked instance. doubted: those of tracks in doubt, which may be corrected.
        """
        chosen = candidates if context.still else self._confirmed(context, candidates)
        owners = {id(detection): track for detection, track in doubted}
        for detection in self._backoff.order([*(detection for detection, _ in doubted), *chosen]):
            owner = owners.get(id(detection))
            track = self._instance_for(context, detection, owner)
            if track is None:
                continue
            if owner is not None and not owner.uncertain:
                self._rechecks.tried(owner.name, context.index)
            job = Job(context.observation, detection, track)
            context.count("registrations")
            # A forgotten registration may still be at work; waiting for it here would hold up every frame.
            if self._background and not context.still and (self._tracks.tracking() or self.worker.busy):
                if context.image.borrowed:  # the caller may change the image once the frame is done
                    job.observation = job.observation.detached()
                self.worker.submit(job)
                continue
            self.worker.run(job)
            if self._holds(context, job):
                assert job.estimate is not None
                self._accept(context, job, job.estimate, late=False)
            if not context.still and not (self._background and self._tracks.tracking()):
                # One slow attempt a frame: the next candidate deserves a newer image.
                return

    def candidate(self, context: FrameContext) -> TrackRequest | None:
        """Where the tracker should look for the object of the finished registration; None without one that holds."""
        job = context.finished
        if job is None or not self._holds(context, job):
            return None
        return TrackRequest(job.detection.object, job.caught_up(context.camera))

    def finish(self, context: FrameContext, estimate: Estimate) -> None:
        """Start the track of the finished registration. estimate: what the tracker made of its ``candidate``."""
        job, accept = context.finished, context.config.pose.accept_confidence
        assert job is not None
        if estimate.confidence >= accept:
            self._accept(context, job, estimate, late=True)
            return
        reason = f"caught up with confidence {estimate.confidence:.2f}, below pose.accept_confidence={accept}"
        self._refuse(context, job, "registration_stale", reason)

    def _confirmed(self, context: FrameContext, candidates: Sequence[Detection]) -> list[Detection]:
        assert context.report is not None
        confirmed = self._confirmation.confirmed(candidates, context.report, context.config.detector.threshold)
        context.count("detections_unconfirmed", len(candidates) - len(confirmed))
        return confirmed

    def _instance_for(self, context: FrameContext, detection: Detection, owner: Track | None) -> Track | None:
        """The instance that a registration of the detection may become now; None where it has to wait. owner: the track in
        doubt that it shows."""
        candidates = [t for t in self._tracks.searching(detection.object) if t.state is TrackState.SEARCHING]
        free = [t for t in (candidates if owner is None else [owner]) if not self._is_promised(t)]
        if not free:
            return None
        if not context.still and not self._backoff.may_try(detection, context.index):
            context.count("registrations_backed_off")
            return None
        if self.under_way is not None:
            context.count("registrations_waiting")
            return None
        return choose_instance(detection, free, self._extents[detection.object], context.camera)

    def _is_promised(self, track: Track) -> bool:
        """Whether the registration under way is to become this instance."""
        return self.under_way is not None and self.under_way.track is track

    def _holds(self, context: FrameContext, job: Job) -> bool:
        """Whether the registration gave a pose to go on with; if not, it is refused. Raises errors that are no refusal."""
        if isinstance(job.error, RegistrationError):
            self._refuse(context, job, f"registration_{job.error.kind}", str(job.error))
            return False
        if job.error is not None:
            raise job.error
        assert job.estimate is not None
        accept = context.config.pose.accept_confidence
        if not job.estimate.confidence >= accept or not np.isfinite(job.estimate.T_cam_obj).all():
            reason = f"confidence {job.estimate.confidence:.2f} is below pose.accept_confidence={accept}"
            self._refuse(context, job, "registration_low_confidence", reason)
            return False
        share = explained(job.estimate, job.detection, self._extents[job.detection.object], context.camera)
        if share < MIN_EXPLAINED:
            reason = f"the pose explains {share:.0%} of what was detected, less than {MIN_EXPLAINED:.0%}"
            self._refuse(context, job, "registration_unexplained", reason)
            return False
        return True

    def _refuse(self, context: FrameContext, job: Job, counter: str, reason: str) -> None:
        context.count("registrations_refused")
        context.count(counter)
        if job.track.state is TrackState.TRACKING:
            context.say(f"{job.track.name} keeps its pose: {reason}")
            return
        wait = self._backoff.refuse(job.seen, context.index)
        again = "" if context.still else f"; searched again after {wait} frame{'s' if wait > 1 else ''}"
        context.say(f"{job.detection.object} refused: {reason}{again}")

    def _accept(self, context: FrameContext, job: Job, estimate: Estimate, *, late: bool) -> None:
        """Start or correct the track of a registration, unless another track is on that thing: it keeps its id. late: the
        registration came back from the background."""
        track = job.track
        if track.tracking and not self._is_surer(context, track, estimate):
            return
        started = replace(track, T_cam_obj=estimate.T_cam_obj, confidence=estimate.confidence, support=job.seen.score)
        others = [t for t in self._tracks.tracking() if t is not track]
        rivals = self._duplicates.rivals(started, others, context.camera)
        staying = next((t for t in rivals if not is_replaced_by(t, started)), None)
        if staying is not None:
            self._refuse(context, job, "registration_duplicate", relation(started, staying))
            return
        for rival in rivals:
            self._duplicates.displace(context, rival, started)
        self._backoff.accept(job.seen)
        stamp = context.frame.stamp_ns
        if track.tracking:
            self._correct(context, track, estimate)
            return
        again = track.losses > 0
        self._rechecks.forget(track.name)
        track.start(estimate.T_cam_obj, estimate.confidence, estimate.visibility, job.seen.score, stamp)
        context.count("registered_again" if again else "registered")
        context.say(
            f"{track.name} registered{' again' if again else ''}: confidence {estimate.confidence:.2f}, "
            f"{job.milliseconds:.0f} ms{' in the background' if late else ''}"
        )

    def _is_surer(self, context: FrameContext, track: Track, estimate: Estimate) -> bool:
        """Whether a registration is to correct the tracked pose: where the track is uncertain (and may have found the object again
        meanwhile) if it is surer; else if it is clearly surer and another pose."""
        was, now = track.confidence, estimate.confidence
        if now < was + (0 if track.uncertain else TAKEOVER):
            context.count("corrections_refused")
            context.say(
                f"{track.name} keeps its pose: registered again with confidence {now:.2f}, tracked with {was:.2f}"
            )
            return False
        if track.uncertain:
            return True
        assert track.T_cam_obj is not None
        extent = self._extents[track.object]
        T = nearest_equivalent(estimate.T_cam_obj, track.T_cam_obj, extent.symmetries)
        turned = rotation_angle(track.T_cam_obj[:3, :3].T @ T[:3, :3])
        moved = np.linalg.norm(extent.center_in_camera(T) - extent.center_in_camera(track.T_cam_obj))
        return bool(moved > OTHER_DIAMETERS * extent.diameter or turned > OTHER_ANGLE)

    def _correct(self, context: FrameContext, track: Track, estimate: Estimate) -> None:
        """Give a track the pose of a surer registration: of the symmetric ones that nearest to the last sure pose."""
        before = track.T_cam_obj if track.sure is None else track.sure.T_cam_obj
        assert before is not None
        T = nearest_equivalent(estimate.T_cam_obj, before, self._extents[track.object].symmetries)
        moved, turned = np.linalg.norm(T[:3, 3] - before[:3, 3]), rotation_angle(before[:3, :3].T @ T[:3, :3])
        was = track.confidence
        self._rechecks.forget(track.name)
        track.correct(T, estimate.confidence, estimate.visibility, context.frame.stamp_ns)
        context.count("corrected")
        context.say(
            f"{track.name} corrected by a registration: confidence {was:.2f} -> {estimate.confidence:.2f}, "
            f"{moved * 1e3:.0f} mm and {np.degrees(turned):.0f} deg from where it surely was last"
        )


def explained(estimate: Estimate, detection: Detection, extent: ObjectExtent, camera: CameraIntrinsics) -> float:
    """How much of the detected object the pose accounts for, about 0 to 1: the model's pixels that the image agrees with,
    among those that have depth, against the size of the detected box.

    Where something hides the object both are smaller. A wrong pose whose object is far larger than what was seen, and mostly
    behind other things, may agree with the little of it that is visible; this share tells it from a right one.
    """
    box = extent.project(estimate.T_cam_obj, camera)
    if box is None:
        return 0.0
    measured = 1.0 - float(estimate.features[_MISSING])
    visible = estimate.visibility / measured if measured > 0 else 0.0
    x0, y0, x1, y1 = (float(v) for v in detection.box)
    return visible * float((box[2] - box[0]) * (box[3] - box[1])) / max((x1 - x0) * (y1 - y0), 1.0)
