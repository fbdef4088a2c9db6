"""Two tracks on one thing: when that is so, and which of the two is lost. A thing is one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..types import CameraIntrinsics
from .association import DUPLICATE_IOU, NEAR_DIAMETERS
from .convex_hull import same_place
from .extent import ObjectExtent, box_iou
from .frame_context import FrameContext
from .tracks import Change, Track

# A new object takes the place of a tracked one if it is more certain by this. Without a margin a thing that looks like
# both would change its name back and forth.
TAKEOVER = 0.1


class DuplicateTracks:
    """Compares tracks in space. extents: object name -> extent of its mesh."""

    def __init__(self, extents: Mapping[str, ObjectExtent]) -> None:
        self._extents = extents

    def are_duplicates(self, a: Track, b: Track, camera: CameraIntrinsics) -> bool:
        """Whether two tracks are on the same thing."""
        if a.T_cam_obj is None or b.T_cam_obj is None:
            return False
        first, second = self._extents[a.object], self._extents[b.object]
        center, other = first.center_in_camera(a.T_cam_obj), second.center_in_camera(b.T_cam_obj)
        gap = float(np.linalg.norm(center - other))
        if a.object != b.object:
            near = gap < (first.diameter + second.diameter) / 2
            return near and same_place(first.hull, a.T_cam_obj, second.hull, b.T_cam_obj)
        box_a, box_b = first.project(a.T_cam_obj, camera), first.project(b.T_cam_obj, camera)
        if box_a is None or box_b is None:
            return gap < 0.5 * NEAR_DIAMETERS * first.diameter
        return gap < NEAR_DIAMETERS * first.diameter and box_iou(box_a, box_b) > DUPLICATE_IOU

    def redundant(
        self, tracks: Sequence[Track], camera: CameraIntrinsics, *, judged: bool
    ) -> list[tuple[Track, Track]]:
        """(track, the better one on the same thing), for each track that should be lost.

        Of one object's instances the surer pose stays. Of different objects the one that the detector sees now stays, else
        that of the higher certainty. judged: whether the detector ran on this frame; if not, different objects are not compared.
        """
        by_confidence = sorted(tracks, key=lambda t: (-t.confidence, t.instance_id))
        kept, redundant = self._compare(by_confidence, camera, same_object=True)
        if judged:
            kept.sort(key=lambda t: (t.unsupported > 0, -t.certainty))
            redundant += self._compare(kept, camera, same_object=False)[1]
        return redundant

    def _compare(
        self, ranked: Sequence[Track], camera: CameraIntrinsics, *, same_object: bool
    ) -> tuple[list[Track], list[tuple[Track, Track]]]:
        """The tracks that stay, and (track, better) for the others. ranked: best first. same_object: compare tracks of one object,
        or else of different ones."""
        kept: list[Track] = []
        redundant: list[tuple[Track, Track]] = []
        for track in ranked:
            rivals = (o for o in kept if (o.object == track.object) is same_object)
            better = next((o for o in rivals if self.are_duplicates(o, track, camera)), None)
            if better is None:
                kept.append(track)
            else:
                redundant.append((track, better))
        return kept, redundant

    def rivals(self, track: Track, others: Sequence[Track], camera: CameraIntrinsics) -> list[Track]:
        """The tracks among ``others`` on the same thing as ``track``."""
        return [o for o in others if self.are_duplicates(o, track, camera)]

    def displace(self, context: FrameContext, track: Track, better: Track) -> None:
        """Lose ``track`` because ``better`` is on the same thing."""
        context.count("duplicate_tracks")
        context.changed(track, Change(track.lose(relation(track, better))))


def relation(track: Track, better: Track) -> str:
    """Why ``track`` is not where ``better`` is, for a human."""
    if track.object == better.object:
        return f"it is the same thing as {better.name}"
    return f"{better.name} is in its place and surer"


def is_replaced_by(tracked: Track, newcomer: Track) -> bool:
    """Whether a tracked instance gives its place to a newcomer on the same thing. One of the same object never does:
    the thing keeps the id that it has."""
    return tracked.object != newcomer.object and tracked.certainty + TAKEOVER < newcomer.certainty
