"""Poses given out smoother than they are measured, at the price of a lag that is known beforehand."""

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
    """What was given out of a track. begun: how many registrations it had by then."""

    track: Track
    begun: int
    stamp_ns: int
    T_cam_obj: NDArray[np.float64]


class PoseSmoother:
    """First-order low-pass over the poses of each track, in the order of the frames' stamps.

    Of what moves and turns at constant velocity it gives the pose of ``lag`` seconds before, whatever the frames' rate and
    however uneven; noise that differs from frame to frame has its variance reduced to dt / (2 lag + dt). A track begins
    anew, without lag, when it is registered or corrected, was not given out on the frame before (lost or uncertain), or when
    stamps do not grow. extents: object name -> extent of its mesh.
    """

    def __init__(self, extents: Mapping[str, ObjectExtent]) -> None:
        self._extents = dict(extents)
        self._last: list[_Last] = []

    def poses(self, tracks: Sequence[Track], frame: Frame, lag: float) -> list[ObjectPose]:
        """Of every track that is given out on ``frame``. lag: seconds; 0 gives poses as measured."""
        last, self._last = self._last, []
        found = []
        for track in tracks:
            pose = track.pose(frame)
            if lag > 0 and pose.state is TrackState.TRACKING:
                pose = replace(pose, T_cam_obj=self._smoothed(track, pose, last, lag))
                self._last.append(_Last(track, track.begun, frame.stamp_ns, pose.T_cam_obj))
            found.append(pose)
        return found

    def _smoothed(self, track: Track, pose: ObjectPose, last: Sequence[_Last], lag: float) -> NDArray[np.float64]:
        before = next((one for one in last if one.track is track and one.begun == track.begun), None)
        seconds = 0.0 if before is None else (pose.stamp_ns - before.stamp_ns) * 1e-9
        if before is None or seconds <= 0:
            return pose.T_cam_obj
        extent = self._extents[track.object]
        target = nearest_equivalent(pose.T_cam_obj, before.T_cam_obj, extent.symmetries)
        # Backward Euler of a first-order lag: exactly ``lag`` behind a ramp for any spacing of the frames.
        return part_of_the_way(before.T_cam_obj, target, seconds / (lag + seconds), extent.center)


def part_of_the_way(
    start: NDArray[np.float64], end: NDArray[np.float64], share: float, center: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(4, 4) pose between two: the object's ``center`` (3,) goes straight, and it turns about that along the shortest arc."""
    step = Rotation.from_matrix(start[:3, :3].T @ end[:3, :3]).as_rotvec()
    between = np.eye(4)
    between[:3, :3] = start[:3, :3] @ Rotation.from_rotvec(share * step).as_matrix()
    first, last = (T[:3, :3] @ center + T[:3, 3] for T in (start, end))
    between[:3, 3] = first + share * (last - first) - between[:3, :3] @ center
    return between
