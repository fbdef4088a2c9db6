"""Smooths the poses that are published, at the price of a lag that is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..pose.symmetry import nearest_equivalent
from ..types import Frame, ObjectPose, TrackState
from .extent import ObjectExtent
from .tracks import Track


@dataclass(frozen=True)
class _Last:
    """The pose of a track that was published last. registrations: as the track counted them by then."""

    track: Track
    registrations: int
    stamp_ns: int
    T_cam_obj: NDArray[np.float64]


class PoseSmoother:
    """First-order low-pass over the poses of each track, in the order of the frames' stamps.

    For an object that moves and turns at constant velocity it gives the pose of ``lag`` seconds before, whatever the frames' rate
    and however uneven; the variance of noise that differs from frame to frame is reduced to dt / (2 lag + dt). A track begins
    anew, without lag, when it is registered or corrected, was not published on the frame before (lost or uncertain), or when
    stamps do not grow. extents: object name -> extent of its mesh.
    """

    def __init__(self, extents: Mapping[str, ObjectExtent]) -> None:
        self._extents = dict(extents)
        self._last: list[_Last] = []

    def poses(self, tracks: Sequence[Track], frame: Frame, lag: float) -> list[ObjectPose]:
        """The poses of all tracks that are published for ``frame``. lag: seconds; 0 gives poses as measured."""
        last, self._last = self._last, []
        found = []
        for track in tracks:
            pose = track.pose(frame)
            if lag > 0 and pose.state is TrackState.TRACKING:
                pose = replace(pose, T_cam_obj=self._smoothed(track, pose, last, lag))
                self._last.append(_Last(track, track.registrations, frame.stamp_ns, pose.T_cam_obj))
            found.append(pose)
        return found

    def _smoothed(self, track: Track, pose: ObjectPose, last: Sequence[_Last], lag: float) -> NDArray[np.float64]:
        before = next((p for p in last if p.track is track and p.registrations == track.registrations), None)
        seconds = 0.0 if before is None else (pose.stamp_ns - before.stamp_ns) * 1e-9
        if before is None or seconds <= 0:
            return pose.T_cam_obj
        extent = self._extents[track.object]
        target = nearest_equivalent(pose.T_cam_obj, before.T_cam_obj, extent.symmetries)
        # Backward Euler of a first-order lag: exactly ``lag`` behind a ramp for any spacing of the frames.
        return interpolate(before.T_cam_obj, target, seconds / (lag + seconds), extent.center)


def interpolate(
    start: NDArray[np.float64], end: NDArray[np.float64], share: float, center: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The (4, 4) pose at ``share`` of the way from start to end: the object's ``center`` (3,) moves straight, and it turns about
    that along the shortest arc."""
    step = Rotation.from_matrix(start[:3, :3].T @ end[:3, :3]).as_rotvec()
    between = np.eye(4)
    between[:3, :3] = start[:3, :3] @ Rotation.from_rotvec(share * step).as_matrix()
    first, last = (T[:3, :3] @ center + T[:3, 3] for T in (start, end))
    between[:3, 3] = first + share * (last - first) - between[:3, :3] @ center
    return between
