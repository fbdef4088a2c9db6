"""All tracks of a frame, moved together to where their objects are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..latency import StageTimer
from ..pose.estimator import TrackRequest
from .frame_context import FrameContext
from .tracks import Track, TrackTable

if TYPE_CHECKING:
    from ..pose.estimator import Estimate, PoseEstimator


class Tracker:
    """Tracks with the estimator and tells the tracks what it found."""

    def __init__(self, estimator: PoseEstimator, tracks: TrackTable, timer: StageTimer) -> None:
        self._estimator = estimator
        self._tracks = tracks
        self._timer = timer

    def move(self, context: FrameContext, newcomer: TrackRequest | None) -> Estimate | None:
        """Update every track. newcomer: the pose of a registration that just finished, which is tracked with the others; returns
        its estimate."""
        tracked = self._tracks.tracking()
        requests = [TrackRequest(t.object, t.T_cam_obj, t.confidence) for t in tracked if t.T_cam_obj is not None]
        if newcomer is not None:
            requests.append(newcomer)
        if not requests:
            return None
        estimates = self._track(context, requests)
        moved = self._from_sure_poses(context, tracked, estimates)
        for track, estimate in zip(tracked, moved, strict=True):
            T, confidence, visibility = estimate.T_cam_obj, estimate.confidence, estimate.visibility
            change = track.update(T, confidence, visibility, context.config.pose, context.frame.stamp_ns)
            context.changed(track, change)
        return None if newcomer is None else estimates[-1]

    def _track(self, context: FrameContext, requests: Sequence[TrackRequest]) -> list[Estimate]:
        observation = context.observation
        with self._timer.stage("track"):
            return self._estimator.track(observation, requests)

    def _from_sure_poses(
        self, context: FrameContext, tracked: Sequence[Track], estimates: Sequence[Estimate]
    ) -> list[Estimate]:
        """The estimates of the tracks. A track in doubt is tracked a second time, from its last sure pose, and the better estimate
        counts: tracking that went astray does not find the way back by itself."""
        best = list(estimates[: len(tracked)])
        lowest = context.config.pose.lost_confidence
        starts = [
            (i, t.sure.T_cam_obj)
            for i, t in enumerate(tracked)
            if t.sure is not None and not best[i].confidence >= lowest and t.sure.T_cam_obj is not t.T_cam_obj
        ]
        if not starts:
            return best
        again = self._track(context, [TrackRequest(tracked[i].object, T) for i, T in starts])
        for (i, _), estimate in zip(starts, again, strict=True):
            if estimate.confidence > best[i].confidence or not np.isfinite(best[i].confidence):
                best[i] = estimate
        return best
