"""What is known of every object instance: searching -> tracking -> lost -> searching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import PoseConfig
from ..types import Frame, ObjectPose, TrackState, instance_name

# A detector run moves a track's support by this share: the last eight runs make up most of it.
SUPPORT_RATE = 1 / 8


@dataclass
class Track:
    """One instance of an object, seen or not. T_cam_obj: (4, 4) float64, its last pose, kept after a loss for re-association.

    A track starts at ``pose.accept_confidence`` and is lost after ``pose.lost_frames`` consecutive frames below the
    lower ``pose.lost_confidence``: the gap keeps it from flickering. support: how well the detector sees it, a running
    mean of the scores of its detections, in which a run without one counts as 0. unsupported: so many runs in a row.
    best_score: of its detections since it started.
    """

    object: str
    instance_id: int
    state: TrackState = TrackState.SEARCHING
    T_cam_obj: NDArray[np.float64] | None = None
    confidence: float = 0.0
    visibility: float = 0.0
    low_frames: int = 0
    support: float = 0.0
    unsupported: int = 0
    best_score: float = 0.0
    losses: int = 0

    @property
    def name(self) -> str:
        """As ObjectPose.name."""
        return instance_name(self.object, self.instance_id)

    @property
    def tracking(self) -> bool:
        return self.state is TrackState.TRACKING

    @property
    def certainty(self) -> float:
        """How sure detector and pose are of it together, in [0, 1]; settles which of two objects a thing is."""
        return self.support * self.confidence

    def start(self, T_cam_obj: NDArray[np.float64], confidence: float, visibility: float, score: float) -> None:
        """Enter TRACKING with an accepted registration. score: of the detection that it comes from."""
        self.state = TrackState.TRACKING
        self.low_frames = self.unsupported = 0
        self.support = self.best_score = float(score)
        self._store(T_cam_obj, confidence, visibility)

    def update(
        self, T_cam_obj: NDArray[np.float64], confidence: float, visibility: float, config: PoseConfig
    ) -> str | None:
        """Take the pose of a new frame. Returns why the track is now LOST, or None while it goes on."""
        if not np.isfinite(T_cam_obj).all() or not np.isfinite(confidence):
            return self.lose("its pose is not finite")
        self._store(T_cam_obj, confidence, visibility)
        self.low_frames = self.low_frames + 1 if confidence < config.lost_confidence else 0
        if self.low_frames >= config.lost_frames:
            return self.lose(
                f"confidence {confidence:.2f} is the last of {self.low_frames} frames "
                f"below pose.lost_confidence={config.lost_confidence}"
            )
        return None

    def verify(self, score: float | None, contested: bool, config: PoseConfig, sure: float = 0.0) -> str | None:
        """Take the detector's word on a tracked instance. Returns why the track is now LOST, or None.

        score: of the detection that is this instance; None without one. contested: an unclaimed detection of the same object lies
        elsewhere. Missing support alone is no loss, as objects are occluded; with a contender, or a pose that could
        not be registered today, ``pose.lost_frames`` detector runs in a row are, and twice as many for one that the
        detector never was ``sure`` of: so high a score.
        """
        self.support += SUPPORT_RATE * ((score or 0.0) - self.support)
        if score is not None:
            self.unsupported = 0
            self.best_score = max(self.best_score, score)
            return None
        self.unsupported += 1
        doubtful = contested or self.confidence < config.accept_confidence
        if doubtful and self.unsupported >= config.lost_frames:
            where = "sees it elsewhere" if contested else f"does not see it and confidence is {self.confidence:.2f}"
            return self.lose(f"the detector {where}, {self.unsupported} runs in a row")
        if self.best_score < sure and self.unsupported >= 2 * config.lost_frames:
            return self.lose(
                f"the detector does not see it, {self.unsupported} runs in a row, and never was sure of it: "
                f"its best score was {self.best_score:.2f}"
            )
        return None

    def lose(self, reason: str) -> str:
        """Enter LOST; returns the reason."""
        self.state = TrackState.LOST
        self.losses += 1
        return reason

    def _store(self, T_cam_obj: NDArray[np.float64], confidence: float, visibility: float) -> None:
        self.T_cam_obj, self.confidence, self.visibility = T_cam_obj, float(confidence), float(visibility)

    def pose(self, frame: Frame) -> ObjectPose:
        """The track as published for ``frame``. Raises ValueError for a track that never had a pose."""
        if self.T_cam_obj is None:
            raise ValueError(f"track {self.name} has no pose yet")
        return ObjectPose(
            object=self.object,
            instance_id=self.instance_id,
            T_cam_obj=self.T_cam_obj,
            confidence=self.confidence,
            visibility=self.visibility,
            state=self.state,
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
        )


class TrackTable:
    """All instances that may be tracked: ids 0 .. max_instances - 1 of each object."""

    def __init__(self, max_instances: Mapping[str, int]) -> None:
        self._max_instances = dict(max_instances)
        self._tracks: list[Track] = []
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._tracks = [Track(name, i) for name, count in self._max_instances.items() for i in range(count)]

    def __iter__(self) -> Iterator[Track]:
        return iter(self._tracks)

    def count(self, object: str) -> int:
        """How many instances of an object there may be."""
        return self._max_instances[object]

    def tracking(self) -> list[Track]:
        return [t for t in self._tracks if t.tracking]

    def searching(self, object: str | None = None) -> list[Track]:
        """Instances without a pose of the present (SEARCHING or just LOST), of one object or of all."""
        return [t for t in self._tracks if not t.tracking and object in (None, t.object)]

    def begin_frame(self) -> None:
        """LOST is said for one frame; from the next on the instance is searched again."""
        for track in self._tracks:
            if track.state is TrackState.LOST:
                track.state = TrackState.SEARCHING

    def states(self) -> dict[str, str]:
        return {t.name: t.state.value for t in self._tracks}
