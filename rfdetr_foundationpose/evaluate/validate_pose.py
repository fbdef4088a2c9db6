"""A faster way to run the pose networks held against FP32 eager, frame by frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..accel.base import Outputs, Runner, Step
from ..accel.graph import GraphPool
from ..config import Config
from ..objects import ObjectSpec, load_objects
from ..pose.estimator import RegistrationError, TrackRequest
from ..pose.example_scene import ExampleScene
from ..pose.mesh import ObjectModel
from ..pose.observation import Observation
from ..replay.bop import BopDataset, is_bop
from ..replay.recording import Recording, RecordingError
from ..resources import default_objects_file
from ..types import Frame
from .bench_rows import EstimatorRow
from .bench_scene import smallest_objects
from .compare import Differences, OrderChanges, pose_difference

Pose = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A frame to compare on. objects: instance name -> object name, of the masks in the frame. follows: it continues the
    video of the view before, so that tracks go on."""

    frame: Frame
    objects: Mapping[str, str]
    follows: bool


class Tap:
    """A scorer that remembers what it last saw and said, for the other scorer to be asked the same. It offers nothing coarse, so
    that a reference is exact."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner
        self.name, self.degraded, self.capturable, self.dtype = inner.name, inner.degraded, False, inner.dtype
        self.library = inner.library
        self.coarse: Runner | None = None
        self.coarse_for: frozenset[Step] = frozenset()
        self.pool: GraphPool | None = None
        self.seen: tuple[Tensor, Tensor] | None = None
        self.said: Tensor | None = None

    def prepare(self, batch: int, observed: int | None = None) -> None:
        self._inner.prepare(batch, observed)

    def inputs(self, rendered: int, observed: int) -> None:
        return None

    def __call__(self, rendered: Tensor, observed: Tensor) -> Outputs:
        self.seen = (rendered.clone(), observed.clone())
        outputs = self._inner(rendered, observed)
        self.said = outputs[0].clone()
        return outputs


@dataclass
class Side:
    """One of the two ways: its tracks, and how many frames in a row each was doubtful."""

    row: EstimatorRow
    poses: dict[str, Pose] = field(default_factory=dict)
    doubtful: dict[str, int] = field(default_factory=dict)
    lost: int = 0


class Comparison:
    """Feeds the same frames to both sides and collects how they differ.

    chain: each side tracks from its own last poses, as a user sees it, after one common start. step: both start every
    frame at the reference's last pose. register: both register from the same mask.
    """

    def __init__(self, reference: EstimatorRow, other: EstimatorRow, config: Config) -> None:
        self.sides = {"reference": Side(reference), "other": Side(other)}
        self.config = config
        self.chain, self.step, self.register = Differences(), Differences(), Differences()
        self.order = OrderChanges()
        self.refused: dict[str, int] = {"reference": 0, "other": 0}
        self.frames = 0
        self._tap = reference.estimator._networks.scorer
        self._models = {m.name: m for m in reference.estimator.objects}

    def feed(self, view: View, *, register_again: bool) -> None:
        """One frame: track what is tracked, register what is not (or all, to compare registrations)."""
        self.frames += 1
        frames = {name: side.row.prepare(view.frame) for name, side in self.sides.items()}
        if not view.follows:
            for side in self.sides.values():
                side.poses.clear()
        self._track(view, frames)
        for instance, name in view.objects.items():
            tracked = instance in self.sides["reference"].poses
            if not view.frame.masks[instance].any() or (tracked and not register_again):
                continue
            found = {key: self._register(key, frames[key], view, instance, name) for key in self.sides}
            if found["reference"] is None or found["other"] is None:
                continue
            self.register.add(*self._difference(name, found["reference"], found["other"]))
            self._compare_order()
            if not tracked:
                for side in self.sides.values():  # one start for both: how registration differs is told apart
                    side.poses[instance], side.doubtful[instance] = found["reference"], 0

    def _register(self, key: str, frame: Observation, view: View, instance: str, name: str) -> Pose | None:
        row = self.sides[key].row
        mask = row.on_device(view.frame.masks[instance])
        try:
            # One search each: whether there is a second one hangs on a threshold, which the last bit may cross.
            return row.estimator.register(frame, name, mask, outlined=False).T_cam_obj
        except RegistrationError:
            self.refused[key] += 1
            return None

    def _track(self, view: View, frames: Mapping[str, Observation]) -> None:
        reference, other = self.sides["reference"], self.sides["other"]
        instances = [i for i in reference.poses if i in view.objects]
        if not instances:
            return
        names = [view.objects[i] for i in instances]
        started = [reference.poses[i] for i in instances]
        stepped = self._tracked(other, frames["other"], names, started)
        for key, side in self.sides.items():
            found = self._tracked(side, frames[key], names, [side.poses[i] for i in instances])
            for instance, estimate in zip(instances, found, strict=True):
                side.poses[instance] = estimate.T_cam_obj
                below = estimate.confidence < self.config.pose.lost_confidence
                side.doubtful[instance] = side.doubtful[instance] + 1 if below else 0
        for instance, name, step in zip(instances, names, stepped, strict=True):
            self.chain.add(*self._difference(name, reference.poses[instance], other.poses[instance]))
            self.step.add(*self._difference(name, reference.poses[instance], step.T_cam_obj))
        for instance in instances:
            gone = [s for s in self.sides.values() if s.doubtful[instance] >= self.config.pose.lost_frames]
            for side in gone:
                side.lost += 1
            if gone:  # both search again, so that they stay comparable
                for side in self.sides.values():
                    del side.poses[instance]

    @staticmethod
    def _tracked(side: Side, frame: Observation, names: Sequence[str], poses: Sequence[Pose]) -> list[Any]:
        return side.row.estimator.track(frame, [TrackRequest(n, T) for n, T in zip(names, poses, strict=True)])

    def _compare_order(self) -> None:
        """The other scorer on the crops of the reference's last ranking."""
        if isinstance(self._tap, Tap) and self._tap.seen is not None and self._tap.said is not None:
            answer = self.sides["other"].row.estimator._networks.scorer(*self._tap.seen)[0]
            if answer.numel() > 1:
                self.order.add(self._tap.said.flatten().tolist(), answer.flatten().tolist())

    def _difference(self, name: str, A: Pose, B: Pose) -> tuple[float, float]:
        return pose_difference(A, B, symmetries_as_loaded(self._models[name]))

    def result(self, max_mm: float, max_deg: float) -> dict[str, Any]:
        """Everything for JSON. The verdict wants tracking and registration within the limits, and no more losses."""
        parts = {"track": self.chain, "track_step": self.step, "register": self.register}
        tree: dict[str, Any] = {
            name: {"count": len(d), **(d.percentiles() if len(d) else {})} for name, d in parts.items()
        }
        lost = {key: side.lost for key, side in self.sides.items()}
        reasons = [
            f"{name} differs by more than {max_mm} mm or {max_deg} deg (p95)"
            for name in ("track", "register")
            if len(parts[name]) and not parts[name].within(max_mm, max_deg)
        ]
        if lost["other"] > lost["reference"]:
            reasons.append(f"lost {lost['other']} times, the reference {lost['reference']}")
        if self.refused["other"] > self.refused["reference"]:
            reasons.append(f"refused {self.refused['other']} registrations, the reference {self.refused['reference']}")
        if not len(self.register):
            reasons.append("nothing was registered by both, so nothing was compared")
        tree |= {"score_order": self.order.summary(), "lost": lost, "refused": self.refused, "frames": self.frames}
        return tree | {"limits": {"mm": max_mm, "deg": max_deg}, "passed": not reasons, "reasons": reasons}


def symmetries_as_loaded(model: ObjectModel) -> NDArray[np.float64]:
    """(K, 4, 4) symmetry transforms of the mesh as loaded; the model keeps them about its centre."""
    there = np.eye(4)
    there[:3, 3] = model.center
    back = np.eye(4)
    back[:3, 3] = -model.center
    return np.asarray(there @ model.symmetries @ back)


def open_source(
    source: Path | None,
    split: str,
    synth: int,
    size: tuple[int, int],
    config: Config,
    device: torch.device,
    seed: int = 0,
) -> tuple[list[ObjectSpec], Iterator[View], int]:
    """Objects, frames and their number, of a recording or a BOP folder; without a source, of a plain generated scene.

    split: of a BOP folder. synth, size, seed: frames, (height, width) and seed of the generated scene. Raises
    ConfigError, RecordingError (also for a recording without masks) and MeshError.
    """
    if source is None:
        specs, models = smallest_objects(2, Path(config.objects_file) if config.objects_file else None)
        scene = ExampleScene(models, size, device, seed)
        names = {m.name: m.name for m in models}
        return specs, (View(scene.frame(i).frame, names, i > 0) for i in range(synth)), synth
    if is_bop(source):
        return _bop(source, split)
    recording = Recording(source, depth_unit=config.input.depth_unit, rectify=config.input.rectify)
    if not recording.masks:
        raise RecordingError(f"{source} has no mask/<object> topics, which tell where to register")
    specs = load_objects(config.objects_file or default_objects_file())
    known = {s.name for s in specs}

    def views() -> Iterator[View]:
        for i, (frame, _) in enumerate(recording):
            objects = {m: recording.objects[m] for m in frame.masks if recording.objects.get(m) in known}
            yield View(frame, objects, i > 0)

    return specs, views(), len(recording)


def _bop(folder: Path, split: str) -> tuple[list[ObjectSpec], Iterator[View], int]:
    """Every image by itself: registered, then nothing to track from the image before."""
    dataset = BopDataset(folder, split)

    def views() -> Iterator[View]:
        for _, _, frame, instances in dataset:
            names = [f"{instance.object}_{i}" for i, instance in enumerate(instances)]
            masks = {n: instance.mask for n, instance in zip(names, instances, strict=True)}
            objects = {n: instance.object for n, instance in zip(names, instances, strict=True)}
            yield View(dataclasses.replace(frame, masks=masks), objects, False)

    return dataset.specs, views(), len(dataset)
