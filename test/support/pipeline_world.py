"""A scripted world for the pipeline: detector and estimator that know where things are."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch

from rfdetr_foundationpose.config import Config, from_flat
from rfdetr_foundationpose.detect.detector import DetectionReport
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pipeline import Pipeline
from rfdetr_foundationpose.pipeline.build import PipelineParts
from rfdetr_foundationpose.pipeline.extent import ObjectExtent
from rfdetr_foundationpose.pose.confidence import FEATURES
from rfdetr_foundationpose.pose.estimator import Estimate
from rfdetr_foundationpose.types import CameraIntrinsics, Detection, Frame

CAMERA = CameraIntrinsics(200.0, 200.0, 80.0, 60.0, 160, 120)

CUBE = np.array([[x, y, z] for x in (-0.05, 0.05) for y in (-0.05, 0.05) for z in (-0.05, 0.05)])

EXTENT = ObjectExtent.from_vertices(CUBE)


def pose_at(x: float, y: float = 0.0, z: float = 1.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


@dataclass
class World:
    """Where the things are now: (object, position). confidence: what every estimate says."""

    things: list[tuple[str, tuple[float, float, float]]] = field(default_factory=list)
    seen: list[tuple[str, tuple[float, float, float]]] | None = None
    confidence: float = 0.9
    register_confidence: float = 0.9
    hold: threading.Event | None = None
    detector_runs: int = 0
    registers: list[tuple[str, bool]] = field(default_factory=list)
    tracked: list[int] = field(default_factory=list)
    fail: Exception | None = None


class ScriptedDetector:
    source, backend, weights, degraded = "mask-topic", "", "none", ()

    def __init__(self, world: World) -> None:
        self.world = world
        self.applied: list[float] = []

    def warm_up(self, camera: CameraIntrinsics) -> None: ...

    def apply(self, config) -> None:
        self.applied.append(config.threshold)

    def detect(self, frame) -> DetectionReport:
        self.world.detector_runs += 1
        found = []
        for name, p in self.world.things if self.world.seen is None else self.world.seen:
            box = EXTENT.project(pose_at(*p), CAMERA)
            found.append(Detection(name, name, 0.9, box.astype(np.float32), torch.tensor(p), "mask-topic", p[2]))
        names = {d.object for d in found}
        return DetectionReport(found, {n: 0.2 for n in ("mug", "can") if n not in names}, {"mug": 0.5, "can": 0.5})


class ScriptedEstimator:
    """Tracks to the nearest thing of that object; registers to where it was in the frame of the mask."""

    backend, library, weights, objects, degraded = "eager", "", "none", (), ()

    def __init__(self, world: World) -> None:
        self.world = world

    def warm_up(self, camera: CameraIntrinsics) -> None: ...

    def apply(self, config) -> None: ...

    def prepare(self, frame):
        return SimpleNamespace(things=list(self.world.things))

    def _nearest(self, things, name, T):
        here = [np.array(p) for n, p in things if n == name]
        if not here:
            return T, 0.05
        best = min(here, key=lambda p: np.linalg.norm(p - T[:3, 3]))
        near = np.linalg.norm(best - T[:3, 3]) < 0.08
        return (pose_at(*best), self.world.confidence) if near else (T, 0.05)

    def track(self, frame, requests):
        self.world.tracked.append(len(requests))
        found = [self._nearest(frame.things, r.object, r.T_cam_obj) for r in requests]
        return [Estimate(T, confidence, 1.0, np.zeros(len(FEATURES))) for T, confidence in found]

    def register(self, frame, object, mask, *, outlined=True):
        background = threading.current_thread() is not threading.main_thread()
        self.world.registers.append((object, background))
        if background and self.world.hold is not None:
            assert self.world.hold.wait(120)
        if self.world.fail is not None:
            raise self.world.fail
        seen_at = mask.numpy()  # the scripted detector's "mask" is the place it saw
        p = min((p for n, p in frame.things if n == object), key=lambda p: np.linalg.norm(np.array(p) - seen_at))
        return Estimate(pose_at(*p), self.world.register_confidence, 1.0, np.zeros(len(FEATURES)))


def make(world: World, specs: list[ObjectSpec], background: bool = True, **settings) -> Pipeline:
    """lost_seconds: 0 unless given, so that what is in doubt is lost at once."""
    # The confidences in these tests are about thresholds of 0.5 and 0.25.
    thresholds = {"pose.accept_confidence": 0.5, "pose.lost_confidence": 0.25, "pose.lost_seconds": 0.0}
    config = from_flat(thresholds | settings, Config())
    extents = {s.name: EXTENT for s in specs}
    parts = PipelineParts(ScriptedDetector(world), ScriptedEstimator(world), specs, extents, torch.device("cpu"))
    return Pipeline(parts, config, background=background)


def use_estimator(pipeline: Pipeline, estimator: ScriptedEstimator) -> ScriptedEstimator:
    """Let the pipeline track and register with another double."""
    pipeline._estimator = pipeline._registration.worker._estimator = pipeline._tracker._estimator = estimator
    pipeline._intake._estimator = estimator
    return estimator


def spec(name: str, **more) -> ObjectSpec:
    return ObjectSpec(name, mesh=__file__, **more)


_stamp = 0


def step(pipeline: Pipeline, seconds: float = 0.033):
    """The next frame, so many seconds after the last one."""
    global _stamp
    _stamp += round(seconds * 1e9)
    rgb, depth = np.zeros((120, 160, 3), np.uint8), np.ones((120, 160), np.float32)
    return pipeline.process(Frame(_stamp, "camera", rgb, depth, 1.0, CAMERA))


def wait_registered(pipeline: Pipeline) -> None:
    deadline = time.monotonic() + 120
    while pipeline._registration.worker._done.empty():
        assert time.monotonic() < deadline
        time.sleep(0.001)
