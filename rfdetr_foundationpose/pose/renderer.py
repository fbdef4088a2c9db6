"""What a renderer of object models is. Warp ray-casts by default; nvdiffrast rasterizes where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch
from . import render_kernels as kernels
from .mesh import ObjectModel
from .mesh_bank import MeshBank

NEAR = 0.001


@dataclass(frozen=True)
class Rendering:
    """rgb (N, R, C, 3) in [0, 1]; xyz (N, R, C, 3) camera frame, m, 0 in the background; normal (N, R, C, 3) unit, camera
    frame; mask (N, R, C) bool. float32."""

    rgb: Tensor
    xyz: Tensor
    normal: Tensor
    mask: Tensor


class Renderer(Protocol):
    """Renders object models, each moved to its model centre.

    poses (N, 4, 4) float32 T_cam_center; model (N,) int32 index into the objects; windows (N, 4) float32 left, top,
    right, bottom in image coordinates, pixel i of C columns lies at left + (i + 0.5)(right - left) / C;
    cameras (N or 1, 4) float32 fx, fy, cx, cy. Nothing waits for the device.
    """

    name: str
    capturable: bool

    def render_into(
        self, poses: Tensor, model: Tensor, windows: Tensor, cameras: Tensor, rgb: Tensor, xyz: Tensor
    ) -> None:
        """Colour and xyz into (N, R, C, 3) float32 buffers."""

    def render_inputs(
        self,
        poses: Tensor,
        model: Tensor,
        windows: Tensor,
        cameras: Tensor,
        diameters: Tensor,
        min_z: float,
        out: Tensor,
    ) -> None:
        """Network inputs into out (N, R, C, 6) float32 or float16: colour, then xyz relative to the pose in mesh radii.

        diameters: (N,) m. min_z: points nearer than this count as none.
        """

    def render(
        self, poses: Tensor, model: Tensor, windows: Tensor, cameras: Tensor, size: tuple[int, int]
    ) -> Rendering:
        """A new Rendering of ``size`` (rows, columns)."""


class WarpRenderer:
    """Ray casting with NVIDIA Warp, the same kernel on CPU and CUDA."""

    name = "warp"
    capturable = True

    def __init__(self, objects: Sequence[ObjectModel], device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.bank = MeshBank([o.arrays for o in objects], device)

    def render_into(
        self, poses: Tensor, model: Tensor, windows: Tensor, cameras: Tensor, rgb: Tensor, xyz: Tensor
    ) -> None:
        self._launch(poses, model, windows, cameras, rgb, xyz, rgb[:0])

    def render_inputs(
        self,
        poses: Tensor,
        model: Tensor,
        windows: Tensor,
        cameras: Tensor,
        diameters: Tensor,
        min_z: float,
        out: Tensor,
    ) -> None:
        launch(
            kernels.render_inputs,
            kernels.tiles(*out.shape[:3]),
            [*self._scene(poses, model, windows, cameras), wp.from_torch(diameters), min_z, wp.from_torch(out)],
            device=self.device,
        )

    def render(
        self, poses: Tensor, model: Tensor, windows: Tensor, cameras: Tensor, size: tuple[int, int]
    ) -> Rendering:
        shape = (len(poses), *size, 3)
        rgb, xyz, normal = (torch.empty(shape, dtype=torch.float32, device=self.device) for _ in range(3))
        self._launch(poses, model, windows, cameras, rgb, xyz, normal)
        return Rendering(rgb, xyz, normal, xyz[..., 2] > 0)

    def _launch(
        self, poses: Tensor, model: Tensor, windows: Tensor, cameras: Tensor, rgb: Tensor, xyz: Tensor, normal: Tensor
    ) -> None:
        launch(
            kernels.render_views,
            kernels.tiles(*rgb.shape[:3]),
            [*self._scene(poses, model, windows, cameras), *(wp.from_torch(image) for image in (rgb, xyz, normal))],
            device=self.device,
        )

    def _scene(self, poses: Tensor, model: Tensor, windows: Tensor, cameras: Tensor) -> list[object]:
        return [
            self.bank.data,
            wp.from_torch(model),
            wp.from_torch(poses, dtype=wp.mat44f),
            wp.from_torch(windows, dtype=wp.vec4f),
            wp.from_torch(cameras, dtype=wp.vec4f),
            NEAR,
        ]
