"""Small true scenes for pose tests: one object, rendered at a known pose, with everything else empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from rfdetr_foundationpose.accel.base import Runner
from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.device_frame import Uploader
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pose.constants import ROT_NORMALIZER
from rfdetr_foundationpose.pose.estimator import PoseEstimator
from rfdetr_foundationpose.pose.mesh import ObjectModel, make_object
from rfdetr_foundationpose.pose.observation import Observation
from rfdetr_foundationpose.pose.renderer import Views, WarpRenderer
from rfdetr_foundationpose.pose.runners import Networks
from rfdetr_foundationpose.synth import so3
from rfdetr_foundationpose.types import CameraIntrinsics, Frame
from support.runners import FakeRunner

CAMERA = CameraIntrinsics(615.0, 610.0, 318.5, 241.5, 640, 480)


class Oracle(FakeRunner):
    """Stands in the refiner's place: the exact update towards the truth, within the network's clamps."""

    def __init__(self, poses: Callable[[], Tensor], truth: Tensor, symmetries: Tensor, diameter: float) -> None:
        self.poses, self.truth, self.symmetries, self.diameter = poses, truth, symmetries, diameter

    def __call__(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        poses = self.poses()[: len(rendered)]
        truth = self._nearest(poses)
        trans = ((truth[:, :3, 3] - poses[:, :3, 3]) / (self.diameter / 2)).clamp(-1, 1)
        v = so3.log(poses[:, :3, :3] @ truth[:, :3, :3].mT)
        v = v * (0.99 * ROT_NORMALIZER / v.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1)
        return trans, torch.atanh(v / ROT_NORMALIZER)

    def _nearest(self, poses: Tensor) -> Tensor:
        looks = self.truth @ self.symmetries
        closeness = torch.einsum("kij,nij->nk", looks[:, :3, :3], poses[:, :3, :3])
        return looks[closeness.argmax(1)]


class ScoreOracle(Oracle):
    """Stands in the scorer's place: minus the distance to the truth."""

    def __call__(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        poses = self.poses()[: len(rendered)]
        truth = self._nearest(poses)
        cosine = (torch.einsum("nij,nij->n", poses[:, :3, :3], truth[:, :3, :3]) - 1) / 2
        turn = torch.acos(cosine.clamp(-1, 1))  # so3.log takes half a turn, which registration tries, for none
        return (-turn - (poses[:, :3, 3] - truth[:, :3, 3]).norm(dim=1),)


def textured_box(offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> trimesh.Trimesh:
    """A 12 x 8 x 5 cm box with a colour a face, ``offset`` metres away from its origin."""
    mesh = trimesh.creation.box((0.12, 0.08, 0.05)).subdivide()
    mesh.unmerge_vertices()
    mesh.apply_translation(offset)
    colors = np.abs(mesh.face_normals) @ np.diag([200, 150, 90]) + (mesh.face_normals.sum(1) > 0)[:, None] * 50
    mesh.visual.face_colors = np.c_[colors, np.full(len(colors), 255)].astype(np.uint8)
    return mesh


def cylinder() -> trimesh.Trimesh:
    """A plain can of 6.6 x 10 cm."""
    return trimesh.creation.cylinder(radius=0.033, height=0.1, sections=48)


def object_of(mesh: trimesh.Trimesh, **spec: object) -> ObjectModel:
    return make_object(ObjectSpec(name="thing", mesh="generated", **spec), mesh)  # type: ignore[arg-type]


def random_pose(seed: int, distance: float = 0.7) -> NDArray[np.float64]:
    """(4, 4) T_cam_center in front of CAMERA."""
    T = np.eye(4)
    T[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    T[:3, 3] = [0.04, -0.03, distance]
    return T


def scene_of(item: ObjectModel, T_cam_center: NDArray[np.float64], device: str = "cpu") -> tuple[Frame, Tensor]:
    """The frame that CAMERA sees of the object alone, and its mask (H, W) bool on ``device``."""
    renderer = WarpRenderer([item], device)
    size = (CAMERA.height, CAMERA.width)
    views = Views(
        torch.tensor(T_cam_center, dtype=torch.float32, device=device)[None],
        torch.zeros(1, dtype=torch.int32, device=device),
        torch.tensor([[-0.5, -0.5, size[1] - 0.5, size[0] - 0.5]], device=device),
        torch.tensor([[CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy]], device=device),
    )
    rendering = renderer.render(views, size)
    rgb = (rendering.rgb[0] * 255).byte().cpu().numpy()
    depth = rendering.xyz[0, ..., 2].contiguous().cpu().numpy()
    return Frame(0, "camera", rgb, depth, 1.0, CAMERA), rendering.mask[0]


def oracle_estimator(
    item: ObjectModel,
    T_cam_center: NDArray[np.float64],
    config: PoseConfig,
    watch: Callable[[Networks], Sequence[Runner]] | None = None,
) -> PoseEstimator:
    """An estimator whose networks know the truth, so that only the geometry around them is at stake.

    watch: what stands in the place of the first pass and of the registration's refiner.
    """
    truth = torch.tensor(T_cam_center, dtype=torch.float32)
    symmetries = torch.tensor(item.symmetries, dtype=torch.float32)
    renderer = WarpRenderer([item], "cpu")

    def registering() -> Tensor:
        return next(iter(estimator._registers.values())).views.poses

    def passing() -> Tensor:
        views = next(iter(estimator._registers.values()))._first_views
        assert views is not None
        return views.poses

    def tracking() -> Tensor:
        return estimator._tracks[1].views.poses

    networks = Networks(
        Oracle(tracking, truth, symmetries, item.diameter),
        Oracle(registering, truth, symmetries, item.diameter),
        ScoreOracle(registering, truth, symmetries, item.diameter),
        first_pass=Oracle(passing, truth, symmetries, item.diameter),
    )
    if watch is not None:
        first_pass, refiner = watch(networks)
        networks = replace(networks, first_pass=first_pass, register_refiner=refiner)
    if config.align != "always":
        config = replace(config, align="never")  # the image would move what the networks say
    estimator = PoseEstimator([item], renderer, networks, config, "cpu")
    return estimator


def prepared(estimator: PoseEstimator, frame: Frame) -> Observation:
    return estimator.prepare(Uploader(estimator.device)(frame))
