"""Many textured triangle meshes packed for Warp kernels: one ray-cast acceleration structure each, shared attributes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray

from .. import warp_setup
from ..meshes.raw import MeshArrays
from .render_kernels import BankData

__all__ = ["MeshArrays", "MeshBank"]


class MeshBank:
    """Uploads meshes once; ``data`` is the struct that kernels take, mesh i is addressed by its index.

    rays: whether trees are built for kernels that cast rays; those that rasterize need none, and 256 of them take seconds
    on a GPU.
    """

    def __init__(self, meshes: Sequence[MeshArrays], device: torch.device | str, rays: bool = True) -> None:
        if not meshes:
            raise ValueError("a mesh bank needs at least one mesh")
        self.device = warp_setup.warp_device(device)
        self.size = len(meshes)
        self.most_faces = max(len(m.faces) for m in meshes)
        first_vertex = np.cumsum([0] + [len(m.vertices) for m in meshes])
        first_face = np.cumsum([0] + [len(m.faces) for m in meshes])
        texels = [np.zeros((0, 3), np.uint8) if m.texture is None else m.texture.reshape(-1, 3) for m in meshes]
        first_texel = np.cumsum([0] + [len(t) for t in texels])
        texture_size = [(0, 0) if m.texture is None else m.texture.shape[1::-1] for m in meshes]
        uv = [np.zeros((len(m.faces) * 3, 2), np.float32) if m.uv is None else m.uv.reshape(-1, 2) for m in meshes]

        def put(values: NDArray[np.generic], dtype: type) -> wp.array:
            return wp.array(np.ascontiguousarray(values), dtype=dtype, device=self.device)

        # Built once, asked millions of times: the slow constructor's trees are the quick ones to walk.
        self._meshes = [
            wp.Mesh(
                points=put(m.vertices.astype(np.float32), wp.vec3f),
                indices=put(m.faces.astype(np.int32).reshape(-1), wp.int32),
                bvh_constructor="sah",
            )
            for m in meshes
            if rays
        ]
        self.centers = np.stack([(m.vertices.min(0) + m.vertices.max(0)) / 2 for m in meshes]).astype(np.float32)
        self.radii = np.array(
            [np.linalg.norm(m.vertices - c, axis=1).max() for m, c in zip(meshes, self.centers, strict=True)],
            np.float32,
        )

        data = BankData()
        data.mesh = put(np.array([m.id for m in self._meshes], np.uint64), wp.uint64)
        data.vertex = put(np.concatenate([m.vertices for m in meshes]).astype(np.float32), wp.vec3f)
        data.face_count = put(np.array([len(m.faces) for m in meshes], np.int32), wp.int32)
        data.first_face = put(first_face[:-1].astype(np.int32), wp.int32)
        data.first_texel = put(first_texel[:-1].astype(np.int32), wp.int32)
        data.texture_size = put(np.array(texture_size, np.int32), wp.vec2i)
        data.corner_vertex = put(
            np.concatenate([m.faces.reshape(-1) + v for m, v in zip(meshes, first_vertex[:-1], strict=True)]).astype(
                np.int32
            ),
            wp.int32,
        )
        data.corner_uv = put(np.concatenate(uv).astype(np.float32), wp.vec2f)
        data.normal = put(np.concatenate([m.normals for m in meshes]).astype(np.float32), wp.vec3f)
        data.color = put(np.concatenate([m.colors for m in meshes]).astype(np.float32), wp.vec3f)
        packed = np.concatenate([*texels, np.zeros((1, 3), np.uint8)]).astype(np.uint32)
        data.texel = put(packed[:, 0] | packed[:, 1] << 8 | packed[:, 2] << 16, wp.uint32)
        data.center = put(self.centers, wp.vec3f)
        data.radius = put(self.radii, wp.float32)
        self.data = data
        # Uploaded on Warp's own stream; torch's streams may use it from here on.
        wp.synchronize_device(self.device)
