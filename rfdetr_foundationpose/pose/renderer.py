"""What a renderer of object models is. Warp's, the default, rasterizes or, where faces are very many, casts rays; nvdiffrast
rasterizes where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch
from . import raster_kernels as raster
from . import render_kernels as kernels
from .mesh import ObjectModel
from .mesh_bank import MeshBank

NEAR = 0.001
MOST_FACES = {"cuda": 40_000, "cpu": 20_000}
"""Rasterization is faster than casting rays up to so many faces of the largest mesh (docs/log/2026-11.md, Rendering)."""
VIEWS_AT_ONCE = 126
"""So many views are rasterized at once: their keys, 26 MB, stay in an H200's cache."""
SHARED_FROM = 16
"""From so many views on one scratch tensor, of megabytes, is shared by all who ask for one."""
THREADS, THREADS_A_VIEW, MOST_LANES = 1 << 18, (4096, 16384), 128
"""On a GPU all views together get so many threads, one view at least and at most so many, and one face at most so many, which
take its rows by turns (lanes)."""


@dataclass(frozen=True)
class Rendering:
    """rgb (N, R, C, 3) in [0, 1]; xyz (N, R, C, 3) camera frame, m, 0 in the background; normal (N, R, C, 3) unit, camera
    frame; mask (N, R, C) bool. float32."""

    rgb: Tensor
    xyz: Tensor
    normal: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Views:
    """What is to be rendered: N views of object models, each moved to its model centre.

    poses (N, 4, 4) float32 T_cam_center, m; model (N,) int32 index into the objects; windows (N, 4) float32 left, top,
    right, bottom in image coordinates, pixel i of C columns lies at left + (i + 0.5)(right - left) / C;
    cameras (N or 1, 4) float32 fx, fy, cx, cy, pixels.
    """

    poses: Tensor
    model: Tensor
    windows: Tensor
    cameras: Tensor

    def __len__(self) -> int:
        return len(self.poses)

    def part(self, which: slice | Tensor) -> Views:
        """Some of them: the same memory for a slice, a copy for indices."""
        cameras = self.cameras if len(self.cameras) == 1 else self.cameras[which]
        return Views(self.poses[which], self.model[which], self.windows[which], cameras)


class Renderer(Protocol):
    """Renders object models. Nothing waits for the device."""

    name: str
    capturable: bool

    def scratch(self, views: int, size: int) -> Tensor | None:
        """What ``render_inputs`` works with to be faster for up to ``views`` views of ``size`` x ``size``; None where it needs
        nothing. From SHARED_FROM views on it is the same for all who ask: they must not render at the same time, as
        registrations do not."""

    def render_into(self, views: Views, rgb: Tensor, xyz: Tensor) -> None:
        """Colour and xyz into (N, R, C, 3) float32 buffers."""

    def render_inputs(
        self, views: Views, diameters: Tensor, min_z: float, out: Tensor, scratch: Tensor | None = None
    ) -> None:
        """Network inputs into out (N, R, C, 6) float32 or float16: colour, then xyz relative to the pose in mesh radii.

        diameters: (N,) m. min_z: points nearer than this, m, count as none. scratch: as ``scratch`` gives it. Raises
        ValueError where that is for another size.
        """

    def render(self, views: Views, size: tuple[int, int]) -> Rendering:
        """A new Rendering of ``size`` (rows, columns)."""


class WarpRenderer:
    """Ray casting and rasterization with NVIDIA Warp, the same kernels on CPU and CUDA.

    rays: False builds no trees for casting rays; then ``render_inputs`` with a scratch tensor alone may be called.
    """

    name = "warp"
    capturable = True

    def __init__(self, objects: Sequence[ObjectModel], device: torch.device | str, rays: bool = True) -> None:
        self.device = torch.device(device)
        self.rays = rays
        self.bank = MeshBank([o.arrays for o in objects], device, rays)
        self._scratch: Tensor | None = None

    def render_into(self, views: Views, rgb: Tensor, xyz: Tensor) -> None:
        self._launch(views, rgb, xyz, rgb[:0])

    def render_inputs(
        self, views: Views, diameters: Tensor, min_z: float, out: Tensor, scratch: Tensor | None = None
    ) -> None:
        if scratch is not None:
            if scratch.shape[1:] != out.shape[1:3]:
                raise ValueError(f"scratch for {tuple(scratch.shape[1:])} pixels, output of {tuple(out.shape[1:3])}")
            for start in range(0, len(out), len(scratch)):
                part = slice(start, start + len(scratch))
                self._rasterize(views.part(part), diameters[part], min_z, out[part], scratch)
            return
        launch(
            kernels.render_inputs,
            kernels.tiles(*out.shape[:3]),
            [*self._scene(views), NEAR, wp.from_torch(diameters), min_z, wp.from_torch(out)],
            device=self.device,
        )

    def scratch(self, views: int, size: int) -> Tensor | None:
        if self.rays and self.bank.most_faces > MOST_FACES[self.device.type]:
            return None
        if views < SHARED_FROM:
            return self._empty_keys(views, size)
        views = min(views, VIEWS_AT_ONCE)
        if self._scratch is None or len(self._scratch) < views or self._scratch.shape[1] != size:
            self._scratch = self._empty_keys(views, size)
        return self._scratch[:views]

    def _empty_keys(self, views: int, size: int) -> Tensor:
        return torch.full((views, size, size), raster.NOTHING, dtype=torch.int64, device=self.device)

    def _rasterize(self, views: Views, diameters: Tensor, min_z: float, out: Tensor, scratch: Tensor) -> None:
        """As many views as ``scratch`` has room for."""
        scene = self._scene(views)
        keys = wp.from_torch(scratch[: len(out)])
        faces = self.bank.most_faces
        lanes = 1 if self.device.type == "cpu" else lanes_a_face(len(out), faces)
        launch(raster.rasterize, (len(out), faces, lanes), [*scene, NEAR, lanes, keys], device=self.device)
        launch(
            raster.shade_inputs,
            keys.size,
            [*scene, wp.from_torch(diameters), min_z, keys, wp.from_torch(out)],
            device=self.device,
        )

    def render(self, views: Views, size: tuple[int, int]) -> Rendering:
        shape = (len(views), *size, 3)
        rgb, xyz, normal = (torch.empty(shape, dtype=torch.float32, device=self.device) for _ in range(3))
        self._launch(views, rgb, xyz, normal)
        return Rendering(rgb, xyz, normal, xyz[..., 2] > 0)

    def _launch(self, views: Views, rgb: Tensor, xyz: Tensor, normal: Tensor) -> None:
        launch(
            kernels.render_views,
            kernels.tiles(*rgb.shape[:3]),
            [*self._scene(views), NEAR, *(wp.from_torch(i) for i in (rgb, xyz, normal))],
            device=self.device,
        )

    def _scene(self, views: Views) -> list[object]:
        return [
            self.bank.data,
            wp.from_torch(views.model),
            wp.from_torch(views.poses, dtype=wp.mat44f),
            wp.from_torch(views.windows, dtype=wp.vec4f),
            wp.from_torch(views.cameras, dtype=wp.vec4f),
        ]


def lanes_a_face(views: int, faces: int) -> int:
    """Threads of a GPU that share the rows of a face: few views want more, many faces fewer."""
    fewest, most = THREADS_A_VIEW
    return min(max(min(max(THREADS // views, fewest), most) // faces, 1), MOST_LANES)
