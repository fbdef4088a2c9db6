"""What is known of every object instance: searching -> tracking -> lost -> searching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import PoseConfig
from ..types import Frame, ObjectPose, TrackState, instance_name

# Each detector run changes a track's support by this share of the difference: the last eight runs make up most of it.
SUPPORT_RATE = 1 / 8
# The speed of a track falls to this share of itself on each frame, unless the object moved faster.
SPEED_DECAY = 0.8


@dataclass(frozen=True)
class SurePose:
    """A pose that fitted the image. T_cam_obj: (4, 4) at stamp_ns. speed: of the object's origin in the camera frame, m/s, the
    fastest of late."""

    T_cam_obj: NDArray[np.float64]
    stamp_ns: int
    speed: float


@dataclass(frozen=True)
class Change:
    """A change of a track's state. why: a sentence without the track's name. state: the new one."""

    why: str
    state: TrackState = TrackState.LOST


@dataclass
class Track:
    """One instance of an object, seen or not. T_cam_obj: (4, 4) float64, its last pose, kept after a loss for re-association.

    A track starts at ``pose.accept_confidence``. After ``pose.lost_frames`` consecutive frames below the lower
    ``pose.lost_confidence`` it is uncertain, and it is lost when it does not come back to ``pose.accept_confidence`` within
    ``pose.lost_seconds``: blur passes, and the gap between the two keeps the state from flickering.

    low_frames: consecutive frames below ``pose.lost_confidence``. sure: its pose when it last was not in doubt.
    uncertain_since_ns, uncertain_frames: stamp at which it became uncertain, and frames since. support: how well the detector
    sees it, a running mean of the scores of its detections, in which a run without one counts as 0. unsupported: detector runs
    in a row without a detection of it. best_score: of its detections since it started. losses: how often it was lost.
    registrations: how often it took the pose of one, corrections included.
    """

    object: str
    instance_id: int
    state: TrackState = TrackState.SEARCHING
    T_cam_obj: NDArray[np.float64] | None = None
    confidence: float = 0.0
    visibility: float = 0.0
    low_frames: int = 0
    sure: SurePose | None = None
    uncertain_since_ns: int = 0
    uncertain_frames: int = 0
    support: float = 0.0
    unsupported: int = 0
    best_score: float = 0.0
    losses: int = 0
    registrations: int = 0

    @property
    def name(self) -> str:
        """As ObjectPose.name."""
        return instance_name(self.object, self.instance_id)

    @property
    def tracking(self) -> bool:
        """Whether it is followed from frame to frame, surely or not."""
        return self.state in (TrackState.TRACKING, TrackState.UNCERTAIN)

    @property
    def uncertain(self) -> bool:
        return self.state is TrackState.UNCERTAIN

    @property
    def in_doubt(self) -> bool:
        """Whether its last pose did not fit the image."""
        return self.tracking and (self.uncertain or self.low_frames > 0)

    @property
    def certainty(self) -> float:
        """How sure detector and pose are of it together, in [0, 1]; settles which of two objects a thing is."""
        return self.support * self.confidence

    def start(
        self, T_cam_obj: NDArray[np.float64], confidence: float, visibility: float, score: float, stamp_ns: int
    ) -> None:
        """Enter TRACKING with an accepted registration. score: of the detection that it comes from."""
        self.state = TrackState.TRACKING
        self.low_frames = self.unsupported = 0
        self.support = self.best_score = float(score)
        self.sure = None
        self.registrations += 1
        self._store(T_cam_obj, confidence, visibility)
        self._remember(stamp_ns)

    def correct(self, T_cam_obj: NDArray[np.float64], confidence: float, visibility: float, stamp_ns: int) -> None:
        """Go on, in TRACKING, with the pose of a registration that is surer than the tracked one."""
        self.state = TrackState.TRACKING
        self.low_frames = 0
        self.sure = None
        self.registrations += 1
        self._store(T_cam_obj, confidence, visibility)
        self._remember(stamp_ns)

    def update(
        self,
        T_cam_obj: NDArray[np.float64],
        confidence: float,
        visibility: float,
        config: PoseConfig,
        stamp_ns: int,
    ) -> Change | None:
        """Take the pose of a new frame. Returns what changed by it, or None while the track goes on as before."""
        if not np.isfinite(T_cam_obj).all() or not np.isfinite(confidence):
            return Change(self.lose("its pose is not finite"))
        self._store(T_cam_obj, confidence, visibility)
        if self.uncertain:
            return self._find_again(config, stamp_ns)
        if confidence >= config.lost_confidence:
            self.low_frames = 0
            self._remember(stamp_ns)
            return None
        self.low_frames += 1
        if self.low_frames < config.lost_frames:
            return None
        why = (
            f"confidence {confidence:.2f} is the last of {self.low_frames} frames "
            f"below pose.lost_confidence={config.lost_confidence}"
        )
        return self._doubt(why, config, stamp_ns)

    def verify(
        self, score: float | None, contested: bool, config: PoseConfig, stamp_ns: int, sure_score: float = 0.0
    ) -> Change | None:
        """Take the detector's word on a tracked instance. Returns what changed by it, or None.

        score: of the detection that is this instance; None without one. contested: an unclaimed detection of the same object lies
        elsewhere. sure_score: from which score on a detection is beyond doubt.

        Objects are occluded, so that a track is not lost for want of detections alone. It is after ``pose.lost_frames`` detector
        runs in a row without one where it is contested, and after twice as many where no detection of it was beyond doubt. After
        ``pose.lost_frames`` runs a track is in doubt whose pose is too unsure for a registration to be accepted.
        """
        self.support += SUPPORT_RATE * ((score or 0.0) - self.support)
        if score is not None:
            self.unsupported = 0
            self.best_score = max(self.best_score, score)
            return None
        self.unsupported += 1
        runs = f"{self.unsupported} runs in a row"
        if contested and self.unsupported >= config.lost_frames:
            return Change(self.lose(f"the detector sees it elsewhere, {runs}"))
        if self.best_score < sure_score and self.unsupported >= 2 * config.lost_frames:
            score_text = f"its best score was {self.best_score:.2f}"
            return Change(self.lose(f"the detector does not see it, {runs}, and never was sure of it: {score_text}"))
        doubtful = self.confidence < config.accept_confidence and not self.uncertain
        if doubtful and self.unsupported >= config.lost_frames:
            why = f"the detector does not see it and confidence is {self.confidence:.2f}, {runs}"
            return self._doubt(why, config, stamp_ns)
        return None

    def _doubt(self, why: str, config: PoseConfig, stamp_ns: int) -> Change:
        if config.lost_seconds <= 0:
            return Change(self.lose(why))
        self.state = TrackState.UNCERTAIN
        self.uncertain_since_ns, self.uncertain_frames = stamp_ns, 0
        return Change(why, TrackState.UNCERTAIN)

    def _find_again(self, config: PoseConfig, stamp_ns: int) -> Change | None:
        self.uncertain_frames += 1
        seconds = (stamp_ns - self.uncertain_since_ns) * 1e-9
        if self.confidence >= config.accept_confidence:
            self.state = TrackState.TRACKING
            self.low_frames = 0
            self._remember(stamp_ns)
            return Change(f"confidence {self.confidence:.2f} after {max(seconds, 0):.2f} s", TrackState.TRACKING)
        # A slow camera gets as many frames as a fast one; a stamp before the first one is a recording that starts over.
        late = seconds < 0 or seconds >= config.lost_seconds
        if late and self.uncertain_frames >= config.lost_frames:
            return Change(
                self.lose(
                    f"not found again near where it was within pose.lost_seconds={config.lost_seconds:g}: "
                    f"confidence {self.confidence:.2f}"
                )
            )
        return None

    def expected(self, stamp_ns: int) -> tuple[NDArray[np.float64] | None, float]:
        """The pose where the object should be, and how far from there it may be (m): its last pose and 0, or, in doubt, its last
        sure pose and the way that it may have gone since at its speed."""
        if not self.in_doubt or self.sure is None:
            return self.T_cam_obj, 0.0
        return self.sure.T_cam_obj, self.sure.speed * max(stamp_ns - self.sure.stamp_ns, 0) * 1e-9

    def _remember(self, stamp_ns: int) -> None:
        """Take the pose of this frame as the last sure one."""
        assert self.T_cam_obj is not None
        speed = 0.0
        if self.sure is not None and stamp_ns > self.sure.stamp_ns:
            moved = float(np.linalg.norm(self.T_cam_obj[:3, 3] - self.sure.T_cam_obj[:3, 3]))
            # An object that is shaken stands still at every turn; the fastest speed of late still counts then.
            speed = max(moved / (stamp_ns - self.sure.stamp_ns) * 1e9, SPEED_DECAY * self.sure.speed)
        self.sure = SurePose(self.T_cam_obj, stamp_ns, speed)

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
        """Instances that have no pose now (SEARCHING or just LOST), of one object or of all."""
        return [t for t in self._tracks if not t.tracking and object in (None, t.object)]

    def begin_frame(self) -> None:
        """Search for the instances that were lost on the last frame: LOST is published for one frame."""
        for track in self._tracks:
            if track.state is TrackState.LOST:
                track.state = TrackState.SEARCHING

    def states(self) -> dict[str, str]:
        return {t.name: t.state.value for t in self._tracks}
