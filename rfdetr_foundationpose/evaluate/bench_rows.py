"""The rows of ``bench``: one way to run everything each, behind one small interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..accel.base import Runner, Step
from ..accel.graph import GraphPool
from ..accel.runner import make_runner
from ..config import Config
from ..device_frame import DeviceFrame, Uploader
from ..pose.hypotheses import hypothesis_rotations
from ..pose.mesh import ObjectModel
from ..types import CameraIntrinsics, Frame, ObjectPose, TrackState
from .networks import LoadedNetworks
from .reference import ReferenceEstimator, ReferenceObject

if TYPE_CHECKING:
    from ..pose.observation import Observation
    from ..pose.runners import Networks

Pose = NDArray[np.float64]


class Row(Protocol):
    """One way to run the pose stage. Poses are those of the meshes as loaded; every call ends with them on the host."""

    name: str
    ran: str
    degraded: str

    def warm_up(self, camera: CameraIntrinsics) -> None: ...
    def preprocess(self, frame: Frame) -> None: ...
    def register(self, frame: Frame, name: str) -> Pose: ...
    def track(self, frame: Frame, last: Mapping[str, Pose]) -> dict[str, Pose]: ...


def pose_runners(
    backend: str,
    networks: LoadedNetworks,
    config: Config,
    device: torch.device,
    wrap_scorer: Callable[[Runner], Runner] | None = None,
) -> Networks:
    """Refiner and scorer at a backend, as build_estimator makes them. Raises BackendUnavailable."""
    from ..pose.build import first_pass_context, runner_contexts
    from ..pose.pruning import asks_for_first_pass
    from ..pose.runners import Networks

    contexts = runner_contexts(config, device)

    def runner(role: str, label: str, pool: GraphPool | None = None, step: Step | None = None) -> Runner:
        context = contexts(label=label, about=networks.about[role], pool=pool, step=step)
        return make_runner(networks.modules[role], backend, context, fallback=False)

    register = GraphPool("register", device)
    scorer = runner("scorer", "scorer", register)
    first_pass = None
    if networks.first_pass is not None and asks_for_first_pass(config.pose.register_schedule, device):
        context = first_pass_context(contexts, networks.about_first_pass, register)
        first_pass = make_runner(networks.first_pass, backend, context, fallback=False)
    return Networks(
        runner("refiner", "refiner", step=Step.TRACKING),
        runner("refiner", "register refiner", register),
        scorer if wrap_scorer is None else wrap_scorer(scorer),
        official_crops=networks.official_crops(config.pose.crop_sampling),
        first_pass=first_pass,
    )


class EstimatorRow:
    """Our pipeline's pose stage with both networks at one backend."""

    def __init__(
        self,
        backend: str,
        objects: Sequence[ObjectModel],
        networks: LoadedNetworks,
        config: Config,
        device: torch.device,
        wrap_scorer: Callable[[Runner], Runner] | None = None,
        runners: Networks | None = None,
    ) -> None:
        """runners: those of another row with the same backend and networks, which must not work at the same time."""
        from ..pose.build import make_renderer
        from ..pose.estimator import PoseEstimator

        if runners is None:
            runners = pose_runners(backend, networks, config, device, wrap_scorer)
        self.runners = runners
        self.name = backend
        self.ran = runners.track_refiner.name
        self.degraded = runners.track_refiner.degraded
        renderer = make_renderer(config.pose.renderer, objects, device)
        self.estimator = PoseEstimator(objects, renderer, runners, config.pose, device)
        self._upload = Uploader(device)
        self._device = device

    def warm_up(self, camera: CameraIntrinsics) -> None:
        self.estimator.warm_up(camera)

    def prepare(self, frame: Frame) -> Observation:
        """Upload and filter."""
        return self.estimator.prepare(self._upload(frame))

    def upload(self, frame: Frame) -> DeviceFrame:
        """Bring a frame to the device; enqueued."""
        return self._upload(frame)

    def on_device(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        """A mask where the estimator wants it."""
        return torch.from_numpy(mask).to(self._device)

    def preprocess(self, frame: Frame) -> None:
        self.prepare(frame)

    def register(self, frame: Frame, name: str) -> Pose:
        """As the reference does, which looks at the whole crop."""
        mask = self.on_device(frame.masks[name])
        return self.estimator.register(self.prepare(frame), name, mask, outlined=False).T_cam_obj

    def track(self, frame: Frame, last: Mapping[str, Pose]) -> dict[str, Pose]:
        from ..pose.estimator import TrackRequest

        found = self.estimator.track(self.prepare(frame), [TrackRequest(name, T) for name, T in last.items()])
        return {name: e.T_cam_obj for name, e in zip(last, found, strict=True)}


class ReferenceRow:
    """The official implementation's schedule; objects are tracked one after the other, as it has no batches of them."""

    name = ran = "reference"
    degraded = ""

    def __init__(
        self, objects: Sequence[ObjectModel], networks: Mapping[str, nn.Module], config: Config, device: torch.device
    ) -> None:
        from .bench_backends import depth_filter, rasterizer

        self._models = {m.name: m for m in objects}
        self._config = config
        self._device = device
        self._filter = depth_filter(device, config.pose.min_depth, config.pose.max_depth)
        self._camera = torch.ones(1, 4, device=device)
        self._estimators = {
            m.name: ReferenceEstimator(
                ReferenceObject(
                    m.arrays.vertices,
                    m.arrays.normals,
                    m.diameter,
                    hypothesis_rotations(m.symmetries).astype(np.float32),
                ),
                networks["refiner"],
                networks["scorer"],
                rasterizer(m, self._camera, device),
                self._filter,
                device,
            )
            for m in objects
        }

    def warm_up(self, camera: CameraIntrinsics) -> None:
        """Only the intrinsics are kept; the first calls are discarded like everybody's."""
        self._camera.copy_(torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]]))

    def preprocess(self, frame: Frame) -> None:
        self._filter(torch.as_tensor(metres(frame), device=self._device))

    def register(self, frame: Frame, name: str) -> Pose:
        found = self._estimators[name].register(
            frame.rgb, metres(frame), frame.masks[name], frame.camera.K, self._config.pose.register_iterations
        )
        return self._models[name].from_centered(found)

    def track(self, frame: Frame, last: Mapping[str, Pose]) -> dict[str, Pose]:
        depth = metres(frame)
        poses = {}
        for name, T in last.items():
            model = self._models[name]
            found = self._estimators[name].track(
                frame.rgb, depth, frame.camera.K, model.to_centered(T), self._config.pose.track_iterations
            )
            poses[name] = model.from_centered(found)
        return poses


def metres(frame: Frame) -> NDArray[np.float32]:
    """(H, W) float32 metres, 0 where invalid: what the official interface takes."""
    return np.nan_to_num(frame.depth.astype(np.float32) * np.float32(frame.depth_scale), posinf=0.0, neginf=0.0)


@dataclass
class BuiltRow:
    """row: None where the backend cannot run here, with the reason. memory_mb: in use after warm-up, peak."""

    name: str
    row: Row | None
    reason: str = ""
    warm_up_s: float = 0.0
    memory_mb: float | None = None
    warm_up_memory_mb: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without stages yet."""
        tree = {
            "reason": self.reason,
            "stages": {},
            "warm_up_s": self.warm_up_s,
            "memory_mb": self.memory_mb,
            "warm_up_memory_mb": self.warm_up_memory_mb,
        }
        return tree if self.row is None else {**tree, "ran": self.row.ran, "degraded": self.row.degraded}


def detector_call(
    backend: str, config: Config, specs: Sequence[Any], device: torch.device, camera: CameraIntrinsics
) -> tuple[Callable[[Frame], Any] | None, str]:
    """host image -> host boxes at a backend, or None and the reason."""
    from ..backends import DETECTOR
    from ..config import from_flat

    if backend not in DETECTOR.names:
        return None, "not offered"
    try:
        from ..detect import build_detector
        from ..detect.detector import DetectorError

        try:
            detector = build_detector(from_flat({"detector.backend": backend}, config), specs, device)
            detector.warm_up(camera)
        except DetectorError as error:
            return None, str(error)
    except ImportError as error:
        return None, f"needs the package {error.name}"
    if detector.backend != backend:
        return None, f"ran {detector.backend} instead"
    upload = Uploader(device)
    return (lambda frame: detector.detect(upload(frame))), ""


def publish_call() -> tuple[Callable[[Frame, Mapping[str, Pose]], float] | None, str]:
    """Poses -> milliseconds to serialize their messages, as the publishers do; None and the reason without ROS."""
    try:
        from ..ros.serialization import PoseBytes, serialized
    except ImportError as error:
        return None, f"needs ROS (no {error.name})"
    pose_bytes = PoseBytes()

    def publish(frame: Frame, poses: Mapping[str, Pose]) -> float:
        begin = time.perf_counter()
        for name, T in poses.items():
            pose = ObjectPose(name, 0, T, 1.0, 1.0, TrackState.TRACKING, frame.stamp_ns, frame.frame_id)
            serialized(pose, pose_bytes)
        return (time.perf_counter() - begin) * 1e3

    return publish, ""
