"""Register an object once, then track it: FoundationPose's procedure over batched device programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import PoseConfig
from ..device_frame import DeviceFrame
from ..types import CameraIntrinsics
from .agreement_columns import DESCRIBED, FEATURES, MODEL_PIXELS, POSE
from .confidence import DEFAULT, Calibration
from .depth import DepthFilter
from .hypotheses import hypothesis_rotations
from .mesh import ObjectModel
from .near_symmetries import near_symmetries
from .observation import Observation
from .pruning import Pruning, pruning_schedule
from .ranking import Ranking
from .register_program import MIN_DEPTH_PIXELS, Look, RegisterProgram
from .renderer import Renderer
from .runners import Networks
from .symmetry import nearest_equivalent
from .track_program import START_COLUMNS, TrackProgram

VISIBLE = FEATURES.index("visible")
REGISTER_PROGRAMS = 12
"""So many programs of registration are kept: one for each number of hypotheses and each pruning schedule in use."""
REFINER_STEPS = [FEATURES.index("step"), FEATURES.index("turn")]
SURE = 0.8
"""A pose of less confidence is tried another way, where there is one."""
TRUSTED = 0.5
"""The last pose of so much confidence is likelier right than wrong."""
LEFT_WRONGLY = 1.0
"""The refiner left a pose wrongly where the image's log-odds of it are higher by this."""
TRACK_BATCHES = (1, 2, 4, 8)
"""Objects that are tracked together are padded to one of these numbers, so that few programs are captured."""


class RegistrationError(RuntimeError):
    """A registration that cannot even start. ``kind`` is the counter it is counted under."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class TrackRequest:
    """object: its name; T_cam_obj: (4, 4) float64 last pose of the mesh as loaded. confidence: of that pose, [0, 1], where it is
    known; one of TRUSTED or more stays where the image supports it better than what the refiner makes of it."""

    object: str
    T_cam_obj: NDArray[np.float64]
    confidence: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """T_cam_obj: (4, 4) float64 of the mesh as loaded. confidence, visibility: [0, 1], see ObjectPose.

    features: (F,) what the confidence was computed from. ranking: what registration decided between, else None.
    """

    T_cam_obj: NDArray[np.float64]
    confidence: float
    visibility: float
    features: NDArray[np.float64]
    ranking: Ranking | None = None


class PoseEstimator:
    """Poses of known objects on one device.

    ``track`` and ``register`` may run in two threads (registration goes on in the background); each by itself is for
    one thread at a time. backend, weights: what runs and with what. library: what runs the networks besides torch, and why.
    instances: how many objects may be tracked together, which is what warm-up prepares. kept_programs: of registration; the one
    that was used longest ago gives way. Raises ConfigError for a pruning schedule that the networks cannot serve.
    """

    def __init__(
        self,
        objects: Sequence[ObjectModel],
        renderer: Renderer,
        networks: Networks,
        config: PoseConfig,
        device: torch.device | str,
        instances: int = 1,
        calibration: Calibration = DEFAULT,
    ) -> None:
        self.objects = list(objects)
        self.device = torch.device(device)
        self.config = config
        self.weights = networks.weights
        self._calibration = calibration
        self.backend = networks.track_refiner.name
        self.library = networks.library
        self._batches = track_batches(instances)
        self._index = {o.name: i for i, o in enumerate(objects)}
        self._renderer = renderer
        self._networks = networks
        self._filter = DepthFilter(device, config.min_depth, config.max_depth)
        by_look: dict[bytes, Tensor] = {}
        self.rotations = [by_look.setdefault(o.symmetries.tobytes(), self._hypotheses(o)) for o in objects]
        for rotations in self.rotations:
            self._pruning(len(rotations))
        self._turns = [torch.tensor(near_symmetries(o), dtype=torch.float32, device=self.device) for o in objects]
        self.kept_programs = REGISTER_PROGRAMS
        self._registers: dict[tuple[int, Pruning], RegisterProgram] = {}
        self._tracks: dict[int, TrackProgram] = {}
        self._aligned: dict[int, TrackProgram] = {}
        self._camera: tuple[CameraIntrinsics, Tensor] | None = None
        self._register_lock = Lock()

    @property
    def _takes_outlines(self) -> bool:
        asked = self.config.register_outline
        return asked == "always" or (asked == "auto" and not self._networks.official_crops)

    @property
    def _aligns(self) -> bool:
        asked = self.config.align
        on_cpu = self.device.type == "cpu"
        return asked == "always" or (asked == "auto" and on_cpu and not self._networks.official_crops)

    @property
    def degraded(self) -> list[str]:
        """Why something runs otherwise than asked for: a runner that fell back, a step that could not be captured.

        Safe to read from any thread.
        """
        programs: list[DepthFilter | TrackProgram | RegisterProgram] = [self._filter]
        programs += [*list(self._tracks.values()), *list(self._aligned.values()), *list(self._registers.values())]
        steps = [p.graph.degraded for p in programs if self.device.type == "cuda" and p.graph.degraded]
        return list(dict.fromkeys([*self._networks.degraded, *steps]))

    def apply(self, config: PoseConfig) -> None:
        """Take new values of live settings."""
        self.config = config

    def warm_up(self, camera: CameraIntrinsics) -> None:
        """Compile, capture and run every real path once at the camera's image size.

        On a CPU nothing is captured, and a registration takes as long the second time: its networks are only made ready.
        """
        h, w = camera.height, camera.width
        rgb = torch.zeros(h, w, 3, dtype=torch.uint8, device=self.device)
        middle = (self.config.min_depth + self.config.max_depth) / 2
        depth = torch.full((h, w), middle, device=self.device)
        frame = Observation(rgb, self._filter(depth), self._camera_tensor(camera))
        T = np.eye(4)
        T[2, 3] = middle
        for k in self._batches:
            requests = [TrackRequest(self.objects[0].name, T)] * k
            self.track(frame, requests)
            if self._aligns:
                self._tracked(frame, requests, self._aligned, 0)
        mask = torch.zeros(h, w, dtype=torch.bool, device=self.device)
        mask[h // 2 - 4 : h // 2 + 4, w // 2 - 4 : w // 2 + 4] = True
        for index, item in {len(self.rotations[i]): (i, o) for i, o in enumerate(self.objects)}.values():
            if self.device.type == "cpu":
                self._register_program(index, frame)
            else:
                self.register(frame, item.name, mask)

    def filter_depth(self, raw: Tensor, scale: float) -> Tensor:
        """(H, W) float32 m, filtered, of (H, W) uint16 or float32 in units of ``scale`` m; enqueued on the current stream."""
        return self._filter(raw, scale)

    def prepare(self, frame: DeviceFrame, filtered: Tensor | None = None) -> Observation:
        """Filter the depth of a frame, once; enqueued on the current stream. On a CPU it is filtered where it is looked at, then.

        filtered: of this frame, where ``filter_depth`` was called before its colour image was there.
        """
        camera, scale = self._camera_tensor(frame.camera), frame.frame.depth_scale
        if self.device.type == "cpu":
            parts = self._filter.where_needed(frame.raw_depth, scale)
            return Observation(frame.rgb, parts.filtered, camera, parts)
        return Observation(frame.rgb, self._filter(frame.raw_depth, scale) if filtered is None else filtered, camera)

    def register(self, frame: Observation, object: str, mask: Tensor, *, outlined: bool = True) -> Estimate:
        """Pose of an object from scratch. mask: (H, W) bool on the device. Raises RegistrationError.

        outlined: whether the mask follows the object's silhouette, as a segmenter's does and a box does not. Then, where
        ``register_outline`` says so, hypotheses are held against the mask, and where the result is not sure, a second search sees
        nothing but the object: what touches it pulls the refiner along. Waits for the device once a search, for its result.
        """
        index = self._index[object]
        item = self.objects[index]
        if tuple(mask.shape) != tuple(frame.depth.shape):
            raise RegistrationError(
                "bad_mask", f"mask is {tuple(mask.shape)} but the image is {tuple(frame.depth.shape)}"
            )
        outlined = outlined and self._takes_outlines
        with self._register_lock:
            program = self._register_program(index, frame)
            program.choose(index, item.diameter, self.rotations[index], self._turns[index])
            estimate, support = self._search(program, item, frame, mask, Look(outlined))
            if outlined and estimate.confidence < SURE:
                other, also = self._search(program, item, frame, mask, Look(outlined, alone=True))
                estimate = other if also > support else estimate
        return estimate

    def _search(
        self, program: RegisterProgram, item: ObjectModel, frame: Observation, mask: Tensor, look: Look
    ) -> tuple[Estimate, float]:
        """The estimate of one search, and what the image says for it: see ``TopHypotheses.support``. Raises RegistrationError."""
        top, scores, poses = program(frame, mask, look)
        masked, with_depth = top.pixels
        if masked == 0:
            raise RegistrationError("empty_mask", f"{item.name}: the mask is empty; nothing to register")
        if with_depth < MIN_DEPTH_PIXELS:
            raise RegistrationError(
                "no_depth",
                f"{item.name}: {with_depth} of the mask's {masked} pixels have depth in "
                f"[{self.config.min_depth}, {self.config.max_depth}] m, at least {MIN_DEPTH_PIXELS} are needed; "
                "is the object in the depth camera's range, and the depth in the unit that depth_unit says?",
            )
        weight = self.config.register_confidence
        chosen = top.best(self._calibration, weight)
        (estimate,) = self._estimates(top.rows[[chosen]], [item], [None], Ranking(scores, poses, chosen))
        return estimate, float(top.support(self._calibration, weight)[chosen])

    def track(self, frame: Observation, requests: Sequence[TrackRequest]) -> list[Estimate]:
        """New poses of objects from their last ones, together. Waits for the device once, for the result; twice where a pose that was
        trusted is looked at again."""
        estimates: list[Estimate] = []
        for start in range(0, len(requests), TRACK_BATCHES[-1]):
            estimates += self._track(frame, requests[start : start + TRACK_BATCHES[-1]])
        return estimates

    def _track(self, frame: Observation, requests: Sequence[TrackRequest]) -> list[Estimate]:
        estimates = self._tracked(frame, requests, self._tracks, self.config.track_iterations)
        unsure = [
            i
            for i, (request, estimate) in enumerate(zip(requests, estimates, strict=True))
            if self._aligns and request.confidence >= TRUSTED and estimate.confidence < SURE
        ]
        if unsure:
            # A refiner that something misleads has often left a pose that was right.
            stayed = self._tracked(frame, [requests[i] for i in unsure], self._aligned, 0)
            for i, other in zip(unsure, stayed, strict=True):
                if self._evidence(other) > self._evidence(estimates[i]) + LEFT_WRONGLY:
                    estimates[i] = other
        return estimates

    def _tracked(
        self, frame: Observation, requests: Sequence[TrackRequest], programs: dict[int, TrackProgram], iterations: int
    ) -> list[Estimate]:
        """From their last poses by so many iterations of the refiner. programs: of this number, by batch."""
        k = padded_batch(len(requests), self.device)
        program = programs.get(k)
        if program is None or program.size != frame.size or program.iterations != iterations:
            with torch.inference_mode(False):  # its buffers are written to inside and outside of it
                program = programs[k] = TrackProgram(
                    self._renderer, self._networks, k, frame.size, iterations, self.device, self._aligns
                )
        models = [self._index[r.object] for r in requests]
        padded = [*range(len(requests)), *[0] * (k - len(requests))]
        start = np.zeros((k, START_COLUMNS), np.float32)
        for row, i in zip(start, padded, strict=True):
            item = self.objects[models[i]]
            row[:16] = item.to_centered(requests[i].T_cam_obj).ravel()
            row[16:] = models[i], item.diameter
        rows = program(frame, start)[: len(requests)]
        return self._estimates(rows, [self.objects[m] for m in models], [r.T_cam_obj for r in requests], None)

    def _evidence(self, estimate: Estimate) -> float:
        """Log-odds of a pose by the image alone, whatever the refiner did last; -inf where it is not finite."""
        features = estimate.features[None].copy()
        features[:, REFINER_STEPS] = 0.0
        return float(self._calibration.log_odds(features)[0]) if np.isfinite(features).all() else -np.inf

    def _hypotheses(self, item: ObjectModel) -> Tensor:
        return torch.tensor(hypothesis_rotations(item.symmetries), dtype=torch.float32, device=self.device)

    def _pruning(self, total: int) -> Pruning:
        """Raises ConfigError."""
        schedule, iterations = self.config.register_schedule, self.config.register_iterations
        has_first = self._networks.first_pass is not None
        return pruning_schedule(schedule, total, iterations, self.device, first_pass=has_first)

    def _register_program(self, index: int, frame: Observation) -> RegisterProgram:
        """The program for the object's number of hypotheses, the pruning schedule and the image size."""
        total, size = len(self.rotations[index]), frame.size
        pruning = self._pruning(total)
        program = self._registers.pop((total, pruning), None)
        if program is None or program.size != size:
            with torch.inference_mode(False):  # its buffers are written to inside and outside of it
                program = RegisterProgram(
                    self._renderer, self._networks, total, pruning, size, self.device, self._aligns
                )
        self._registers[total, pruning] = program  # the latest comes last
        while len(self._registers) > self.kept_programs:
            del self._registers[next(iter(self._registers))]
        return program

    def _estimates(
        self,
        rows: NDArray[np.float64],
        items: Sequence[ObjectModel],
        last: Sequence[NDArray[np.float64] | None],
        ranking: Ranking | None,
    ) -> list[Estimate]:
        described = rows[:, DESCRIBED]
        certain = self._calibration.confidence(described, rows[:, MODEL_PIXELS])
        estimates = []
        for i, item in enumerate(items):
            T = rows[i, POSE].reshape(4, 4)
            usable = bool(np.isfinite(rows[i]).all())
            before = last[i]
            if before is not None and not usable:
                T = item.to_centered(before)
            reference = np.eye(4) if before is None else item.to_centered(before)
            T = nearest_equivalent(T, reference, item.symmetries)
            estimates.append(
                Estimate(
                    item.from_centered(T),
                    float(certain[i]) if usable else 0.0,
                    float(described[i, VISIBLE]) if usable else 0.0,
                    described[i],
                    ranking,
                )
            )
        return estimates

    def _camera_tensor(self, camera: CameraIntrinsics) -> Tensor:
        if self._camera is None or self._camera[0] != camera:
            values = torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]], dtype=torch.float32)
            self._camera = (camera, values.to(self.device))
        return self._camera[1]


def track_batches(instances: int) -> list[int]:
    """The batches that tracking up to ``instances`` objects together can need on CUDA."""
    return [b for b in TRACK_BATCHES if b <= padded_batch(min(instances, TRACK_BATCHES[-1]), torch.device("cuda"))]


def padded_batch(count: int, device: torch.device) -> int:
    """Programs are captured for a few sizes on CUDA; on the CPU padding would cost time and buy nothing."""
    return next(b for b in TRACK_BATCHES if b >= count) if device.type == "cuda" else count
