"""Poses against the ground truth of a recording: who is who, how wrong, and who is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..objects import ObjectSpec
from .metrics import ObjectGeometry, PoseError, centre_distances, pose_error
from .recording import GroundTruth, InstanceTruth

# An instance of which less is to be seen need not be found; what is found of it is judged all the same.
MIN_VISIBILITY = 0.3


@dataclass(frozen=True)
class FoundPose:
    """A pose under its topic name (``mug``, ``mug_1``). T_cam_obj: (4, 4) float64, metres."""

    name: str
    T_cam_obj: NDArray[np.float64]


@dataclass
class Judge:
    """Knows the objects' geometry. missing: object-frames without a pose, of those visible enough. spurious: poses
    of objects that the ground truth does not have in that frame."""

    geometries: Mapping[str, ObjectGeometry]
    names: Mapping[str, str]
    missing: int = 0
    spurious: int = 0
    missing_by_object: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, specs: Sequence[ObjectSpec]) -> Judge:
        """For the entries of an objects.yaml. Raises MeshError."""
        return cls({s.name: ObjectGeometry.from_spec(s) for s in specs}, instance_names(specs))

    def judge(self, found: Sequence[FoundPose], truth: GroundTruth) -> list[PoseError | None]:
        """The error of each found pose, None where nothing is known of it; counts what is missing.

        Instances of one object are told apart by nearness, as their numbers mean nothing.
        """
        errors: list[PoseError | None] = [None] * len(found)
        for name, geometry in self.geometries.items():
            poses = [i for i, f in enumerate(found) if self.names.get(f.name, f.name) == name]
            truths = [t for t in truth.instances if t.object == name]
            pairs = _assign([found[i] for i in poses], truths, geometry)
            for pose_index, truth_index in pairs:
                i = poses[pose_index]
                errors[i] = pose_error(found[i].T_cam_obj, truths[truth_index].T_cam_obj, geometry)
            matched = {t for _, t in pairs}
            absent = sum(_visible(t) for j, t in enumerate(truths) if j not in matched)
            self._count_missing(name, absent)
            if truth.instances:
                self.spurious += len(poses) - len(pairs)
        return errors

    def count_absent(self, truth: GroundTruth, frames: int = 1) -> None:
        """Count every visible object as missing: the frame was processed and nothing came out."""
        for instance in truth.instances:
            if instance.object in self.geometries and _visible(instance):
                self._count_missing(instance.object, frames)

    def _count_missing(self, name: str, count: int) -> None:
        if count:
            self.missing += count
            self.missing_by_object[name] = self.missing_by_object.get(name, 0) + count


def instance_names(specs: Sequence[ObjectSpec]) -> dict[str, str]:
    """Topic name -> object name: ``mug`` and ``mug_1`` are both of ``mug``."""
    return {name: s.name for s in specs for name in s.instance_names}


def _visible(instance: InstanceTruth) -> bool:
    return instance.visibility is None or instance.visibility >= MIN_VISIBILITY


def _assign(
    found: Sequence[FoundPose], truths: Sequence[InstanceTruth], geometry: ObjectGeometry
) -> list[tuple[int, int]]:
    poses, true = [f.T_cam_obj for f in found], [t.T_cam_obj for t in truths]
    rows, columns = linear_sum_assignment(centre_distances(poses, true, geometry))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True)]
