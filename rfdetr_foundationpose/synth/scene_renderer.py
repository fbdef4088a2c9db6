"""Full-frame rendering of scenes on CPU or CUDA with one Warp kernel launch for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from ..pose.mesh_bank import MeshArrays, MeshBank
from ..pose.render_kernels import tiles
from ..warp_setup import launch
from .scene_kernels import SceneData, render_scenes, silhouette_areas
from .textures import Picture

Array = NDArray[np.float64]
SURFACES = 5
SILHOUETTE_GRID = 48


@dataclass
class SceneSet:
    """S scenes of up to M instances, host arrays. World frame: z up, table top at z = 0, metres.

    mesh: (S, M) int, index of a model or -1. T_world_mesh: (S, M, 4, 4). gloss: (S, M) specular strength.
    camera: (S, 4) fx, fy, cx, cy in pixels. T_world_cam: (S, 4, 4). room, table: (S, 2, 3) low and high corners.
    surface: (S, 5) texture index of table, x walls, y walls, floor, ceiling. tiling: (S, 5) repeats per metre.
    light: (S, 3) position. tint: (S, 3) light colour. level: (S, 4) ambient, diffuse, specular, shadow strength.
    """

    mesh: NDArray[np.int64]
    T_world_mesh: Array
    gloss: Array
    camera: Array
    T_world_cam: Array
    room: Array
    table: Array
    surface: NDArray[np.int64]
    tiling: Array
    light: Array
    tint: Array
    level: Array


@dataclass(frozen=True)
class RenderedScenes:
    """rgb (S, H, W, 3) float32, linear, may exceed 1. depth (S, H, W) float32 m. instance (S, H, W) int32, -1 background.

    cosine (S, H, W) float32 of the incidence angle. visible_px (S, M) int32. whole_px (S, M) float32: pixels of the
    unoccluded silhouette, image border ignored. box (S, M, 4) int32 x0, y0, x1, y1 of the visible pixels, x1 exclusive.
    """

    rgb: Tensor
    depth: Tensor
    instance: Tensor
    cosine: Tensor
    visible_px: Tensor
    whole_px: Tensor
    box: Tensor

    @property
    def visibility(self) -> Tensor:
        """(S, M) float32: visible share of the whole silhouette, 0 where there is no instance."""
        return (self.visible_px / self.whole_px.clamp(min=1.0)).clamp(max=1.0)


class SceneRenderer:
    """Holds the models' and the surface textures' meshes on one device."""

    def __init__(self, models: Sequence[MeshArrays], surfaces: Sequence[Picture], device: torch.device | str) -> None:
        if not surfaces:
            raise ValueError("a scene renderer needs at least one surface texture")
        for picture in surfaces:
            if any(side & (side - 1) for side in picture.shape[:2]):
                raise ValueError(f"a surface texture of {picture.shape[:2]} must have sides that are powers of two")
        self.device = torch.device(device)
        self.model_count = len(models)
        self.surface_count = len(surfaces)
        self.bank = MeshBank([*models, *(_quad(picture) for picture in surfaces)], self.device)

    def render(self, scenes: SceneSet, size: tuple[int, int], samples: int = 1) -> RenderedScenes:
        """Render all scenes at (height, width). samples: rays per pixel side for the colour (antialiasing)."""
        height, width = size
        count, instances = scenes.mesh.shape
        data = self._upload(scenes)
        rgb = torch.empty((count, height, width, 3), dtype=torch.float32, device=self.device)
        depth = torch.empty((count, height, width), dtype=torch.float32, device=self.device)
        instance = torch.empty((count, height, width), dtype=torch.int32, device=self.device)
        cosine = torch.empty_like(depth)
        visible = torch.zeros((count, instances), dtype=torch.int32, device=self.device)
        whole = torch.zeros((count, instances), dtype=torch.float32, device=self.device)
        box = torch.zeros((count, instances, 4), dtype=torch.int32, device=self.device)
        box[..., :2] = 2**30
        outputs = [wp.from_torch(t) for t in (rgb, depth, instance, cosine, visible, box)]
        launch(
            render_scenes,
            dim=tiles(count, height, width),
            inputs=[self.bank.data, data, samples, *outputs],
            device=self.device,
        )
        launch(
            silhouette_areas,
            dim=(count, instances, SILHOUETTE_GRID**2),
            inputs=[self.bank.data, data, SILHOUETTE_GRID, wp.from_torch(whole)],
            device=self.device,
        )
        box[visible == 0] = 0
        return RenderedScenes(rgb, depth, instance, cosine, visible, whole, box)

    def _upload(self, scenes: SceneSet) -> SceneData:
        def put(values: NDArray[np.generic], dtype: type) -> wp.array:
            # Through torch, whose allocator orders copies and reuse of memory on the stream that the kernels run on.
            kind = np.int32 if dtype is wp.int32 else np.float32
            tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=kind)).to(self.device)
            return wp.from_torch(tensor, dtype=dtype)

        data = SceneData()
        data.mesh = put(scenes.mesh, wp.int32)
        data.pose = put(scenes.T_world_mesh, wp.mat44f)
        index = np.maximum(scenes.mesh, 0)
        center = scenes.T_world_mesh[..., :3, :3] @ self.bank.centers[index][..., None]
        center = center[..., 0] + scenes.T_world_mesh[..., :3, 3]
        # Without an instance the sphere's negative radius lies behind every ray.
        radius = np.where(scenes.mesh >= 0, self.bank.radii[index] * 1.0001, -1.0e9)
        data.sphere = put(np.concatenate([center, radius[..., None]], axis=-1), wp.vec4f)
        data.gloss = put(scenes.gloss, wp.float32)
        data.camera = put(scenes.camera, wp.vec4f)
        data.view = put(scenes.T_world_cam, wp.mat44f)
        data.room_low, data.room_high = put(scenes.room[:, 0], wp.vec3f), put(scenes.room[:, 1], wp.vec3f)
        data.table_low, data.table_high = put(scenes.table[:, 0], wp.vec3f), put(scenes.table[:, 1], wp.vec3f)
        data.surface = put(scenes.surface + self.model_count, wp.int32)
        data.tiling = put(scenes.tiling, wp.float32)
        data.light = put(scenes.light, wp.vec3f)
        data.tint = put(scenes.tint, wp.vec3f)
        data.level = put(scenes.level, wp.vec4f)
        return data


def _quad(picture: Picture) -> MeshArrays:
    """A square that only carries its texture."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return MeshArrays(
        vertices=vertices,
        faces=faces,
        normals=np.tile(np.array([0, 0, 1], np.float32), (4, 1)),
        colors=np.zeros((4, 3), np.float32),
        uv=vertices[:, :2][faces],
        texture=picture,
    )
