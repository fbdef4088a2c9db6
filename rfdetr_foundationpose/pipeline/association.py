"""Which detection is which instance: overlap of boxes and distance in space, assigned by the Hungarian method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..types import CameraIntrinsics, Detection
from .extent import ObjectExtent, box_iou, detection_point
from .tracks import Track

# Two boxes of one object that overlap more than this (IoU) show one thing twice: DETR has no suppression of its own.
DUPLICATE_IOU = 0.7
# A track and a detection this near in space (in object diameters) are the same, however their boxes overlap.
NEAR_DIAMETERS = 0.5
# A track in doubt and a detection are the same within this distance (in object diameters) and the way that the object may
# have gone meanwhile.
DOUBT_DIAMETERS = 1.0
# Up to this distance (in object diameters) the cost of a pair rises steeply, beyond it hardly.
SLOPE_DIAMETERS = 2.0
# The cost of an impossible pair; every possible one costs less.
_INFEASIBLE = 1e6


@dataclass(frozen=True)
class Matching:
    """What decides whether a detection and an instance of one object are the same.

    extent: of the object. camera: of the frame. iou_threshold: lowest overlap of their boxes. stamp_ns: of the frame; an
    object in doubt may have moved until then.
    """

    extent: ObjectExtent
    camera: CameraIntrinsics
    iou_threshold: float
    stamp_ns: int = 0


@dataclass(frozen=True)
class Registering:
    """An instance that is being registered. seen: its newest detection. reach: how far it may have moved since, in object
    diameters."""

    seen: Detection
    reach: float = NEAR_DIAMETERS


@dataclass(frozen=True)
class Association:
    """The detections of one object in one frame. pairs: a detection and the track that it shows. pending: the detection
    that shows the instance under registration. free: those of no instance, best first. duplicates: how many boxes were left
    out, since they show a thing that another one shows."""

    pairs: list[tuple[Detection, Track]] = field(default_factory=list)
    pending: Detection | None = None
    free: list[Detection] = field(default_factory=list)
    duplicates: int = 0

    def without_lost(self) -> Association:
        """The same after tracks were lost: the detections that showed them are free."""
        pairs = [(d, t) for d, t in self.pairs if t.tracking]
        freed = [d for d, t in self.pairs if not t.tracking]
        return replace(self, pairs=pairs, free=sorted([*self.free, *freed], key=lambda d: -d.score))


def associate_object(
    detections: Sequence[Detection],
    tracks: Sequence[Track],
    matching: Matching,
    registering: Registering | None = None,
) -> Association:
    """``associate`` for one object of a frame, without boxes that show a thing again. Arguments as there."""
    kept, duplicates = without_duplicates(detections)
    owners = associate(kept, tracks, matching, registering)
    return Association(
        pairs=[(kept[i], tracks[owner]) for i, owner in owners.items() if owner < len(tracks)],
        pending=next((kept[i] for i, owner in owners.items() if owner == len(tracks)), None),
        free=[d for i, d in enumerate(kept) if i not in owners],
        duplicates=duplicates,
    )


def without_duplicates(
    detections: Sequence[Detection], claimed: Sequence[Detection] = ()
) -> tuple[list[Detection], int]:
    """The detections, best first, without those that show a thing again; and how many were left out.

    A box that a better one covers almost exactly is left out, whatever their objects: one thing is not two objects. A box of
    ``claimed`` does so to one of its own object whatever the scores.
    """

    def covers(better: Detection, d: Detection) -> bool:
        return (better.object == d.object or better.score >= d.score) and box_iou(d.box, better.box) > DUPLICATE_IOU

    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda d: -d.score):
        if not any(covers(better, detection) for better in (*claimed, *kept)):
            kept.append(detection)
    return kept, len(detections) - len(kept)


def associate(
    detections: Sequence[Detection],
    tracks: Sequence[Track],
    matching: Matching,
    registering: Registering | None = None,
) -> dict[int, int]:
    """Detection index -> track index for the instances of ONE object; both sides may stay unassigned.

    The cost of a pair is ``1 - IoU`` of detected and projected box, plus half the distance in diameters between
    detected surface and object centre where depth was measured. A pair is possible with IoU >= ``iou_threshold``
    or a distance below NEAR_DIAMETERS. A track in doubt is looked for around where it surely was last, as far as it may have
    come by the frame's stamp. The instance under registration competes for the detections as track number ``len(tracks)``,
    so that it is not taken for one that a track shows.
    """
    if not detections or not (tracks or registering):
        return {}
    cost = np.array([[_cost(d, t, matching) for t in tracks] for d in detections])
    if registering is not None:
        cost = np.column_stack([cost, [_moved_cost(d, registering, matching) for d in detections]])
    rows, columns = linear_sum_assignment(cost)
    return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if cost[r, c] < _INFEASIBLE}


def _cost(detection: Detection, track: Track, matching: Matching) -> float:
    """Cost of a detection and a track."""
    extent, camera = matching.extent, matching.camera
    T_cam_obj, moved = track.expected(matching.stamp_ns)
    if T_cam_obj is None:
        return _INFEASIBLE
    box = extent.project(T_cam_obj, camera)
    iou = 0.0 if box is None else box_iou(box, detection.box)
    point = detection_point(detection, camera)
    distance = None if point is None else float(np.linalg.norm(point - extent.center_in_camera(T_cam_obj)))
    reach = DOUBT_DIAMETERS + moved / extent.diameter if track.in_doubt else NEAR_DIAMETERS
    return _pair_cost(iou, None if distance is None else distance / extent.diameter, matching.iou_threshold, reach)


def _moved_cost(detection: Detection, registering: Registering, matching: Matching) -> float:
    """Cost of a detection and the instance under registration."""
    before, camera = registering.seen, matching.camera
    there, here = detection_point(before, camera), detection_point(detection, camera)
    distance = None if there is None or here is None else float(np.linalg.norm(here - there)) / matching.extent.diameter
    return _pair_cost(box_iou(before.box, detection.box), distance, matching.iou_threshold, registering.reach)


def _pair_cost(iou: float, distance: float | None, iou_threshold: float, reach: float) -> float:
    """distance, reach: in object diameters; no distance where depth was not measured."""
    if iou < iou_threshold and (distance is None or distance > reach):
        return _INFEASIBLE
    # Beyond SLOPE_DIAMETERS the distance counts hardly, but enough for the nearer of two far ones to win.
    return 1.0 - iou + (0.0 if distance is None else 0.5 * min(distance, SLOPE_DIAMETERS) + 1e-3 * distance)


def choose_instance(
    detection: Detection, free: Sequence[Track], extent: ObjectExtent, camera: CameraIntrinsics
) -> Track:
    """The free instance that a new detection becomes: the one last seen nearest to it (ids are stable), else the lowest id.

    The id of a lost instance that was somewhere else is kept for it while unused ones are left.
    """
    matches = associate([detection], free, Matching(extent, camera, iou_threshold=0.01))
    if matches:
        return free[matches[0]]
    return min(free, key=lambda t: (t.T_cam_obj is not None, t.instance_id))
