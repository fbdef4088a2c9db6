"""The same images by rasterization with nvdiffrast, where the user has built it (its licence is non-commercial)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch
from .mesh import ObjectModel
from .renderer import NEAR, Rendering, Views
from .warp_kernels import pack_input

FAR = 100.0


class NvdiffrastRenderer:
    """CUDA only. Its rasterizer cannot be captured in CUDA graphs. Raises ImportError where nvdiffrast is missing."""

    name = "nvdiffrast"
    capturable = False

    def __init__(self, objects: Sequence[ObjectModel], device: torch.device | str) -> None:
        import nvdiffrast.torch as dr

        self.device = torch.device(device)
        self._dr: Any = dr
        self._thread = threading.local()  # a context has buffers of its own; tracking and registration are two threads
        self._meshes = [self._upload(o) for o in objects]

    def scratch(self, views: int, size: int) -> Tensor | None:
        return None

    def render_into(self, views: Views, rgb: Tensor, xyz: Tensor) -> None:
        rendering = self.render(views, (rgb.shape[1], rgb.shape[2]))
        rgb.copy_(rendering.rgb)
        xyz.copy_(rendering.xyz)

    def render_inputs(
        self, views: Views, diameters: Tensor, min_z: float, out: Tensor, scratch: Tensor | None = None
    ) -> None:
        size = (out.shape[1], out.shape[2])
        rendering = self.render(views, size)
        launch(
            pack_input,
            (len(out), *size),
            [
                wp.from_torch(rendering.rgb),
                wp.from_torch(rendering.xyz),
                wp.from_torch(views.poses, dtype=wp.mat44f),
                wp.from_torch(diameters),
                min_z,
                wp.from_torch(out),
            ],
            device=self.device,
        )

    def render(self, views: Views, size: tuple[int, int]) -> Rendering:
        n = len(views)
        out = [torch.zeros(n, *size, 3, device=self.device) for _ in range(3)]
        mask = torch.zeros(n, *size, dtype=torch.bool, device=self.device)
        for index in views.model.unique().tolist():
            chosen = torch.nonzero(views.model == index)[:, 0]
            parts = self._render_one(self._meshes[index], views.part(chosen), size)
            for target, part in zip((*out, mask), parts, strict=True):
                target[chosen] = part
        return Rendering(out[0], out[1], out[2], mask)

    def _render_one(
        self, mesh: dict[str, Any], views: Views, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        R, t = views.poses[:, :3, :3], views.poses[:, :3, 3]
        points = torch.einsum("nij,vj->nvi", R, mesh["vertices"]) + t[:, None]
        normals = torch.einsum("nij,vj->nvi", R, mesh["normals"])
        clip = self._clip(points, views.windows, views.cameras)
        raster, _ = self._dr.rasterize(self._context(), clip.contiguous(), mesh["faces"], resolution=list(size))
        xyz, _ = self._dr.interpolate(points.contiguous(), raster, mesh["faces"])
        normal, _ = self._dr.interpolate(normals.contiguous(), raster, mesh["faces"])
        diffuse, _ = self._dr.interpolate((-normals[..., 2:]).clamp(0, 1).contiguous(), raster, mesh["faces"])
        if mesh["texture"] is None:
            color, _ = self._dr.interpolate(mesh["colors"], raster, mesh["faces"])
        else:
            uv, _ = self._dr.interpolate(mesh["uv"], raster, mesh["uv_faces"])
            color = self._dr.texture(mesh["texture"], uv, filter_mode="linear")
        hit = raster[..., 3:] > 0
        rgb = (color * (0.8 + 0.5 * diffuse)).clamp(0, 1) * hit
        unit = torch.nn.functional.normalize(normal, dim=-1) * hit
        return rgb, xyz * hit, unit, hit[..., 0]

    def _context(self) -> Any:
        if not hasattr(self._thread, "context"):
            self._thread.context = self._dr.RasterizeCudaContext(device=self.device)
        return self._thread.context

    @staticmethod
    def _clip(points: Tensor, windows: Tensor, cameras: Tensor) -> Tensor:
        """Clip coordinates whose NDC x, y span the window; rows run downwards as in the image."""
        x, y, z = points.unbind(-1)
        fx, fy, cx, cy = (c[:, None] for c in cameras.unbind(-1))
        left, top, right, bottom = (w[:, None] for w in windows.unbind(-1))
        u = 2 * (fx * x + (cx - left) * z) / (right - left) - z
        v = 2 * (fy * y + (cy - top) * z) / (bottom - top) - z
        depth = (FAR + NEAR) / (FAR - NEAR) * z - 2 * FAR * NEAR / (FAR - NEAR)
        return torch.stack([u, v, depth, z], -1)

    def _upload(self, item: ObjectModel) -> dict[str, Any]:
        arrays = item.arrays

        def put(values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.as_tensor(values, dtype=dtype, device=self.device).contiguous()

        mesh: dict[str, Any] = {
            "vertices": put(arrays.vertices),
            "normals": put(arrays.normals),
            "colors": put(arrays.colors),
            "faces": put(arrays.faces, torch.int32),
            "texture": None,
        }
        if arrays.uv is not None and arrays.texture is not None:
            uv = put(arrays.uv.reshape(-1, 2))
            mesh["uv"] = torch.stack([uv[:, 0], 1 - uv[:, 1]], -1).contiguous()
            mesh["uv_faces"] = torch.arange(len(uv), dtype=torch.int32, device=self.device).reshape(-1, 3)
            mesh["texture"] = put(arrays.texture)[None] / 255
        return mesh
