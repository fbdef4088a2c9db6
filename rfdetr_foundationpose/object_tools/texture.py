"""The scanned surface with fewer triangles and its print as a texture: sharper than colours of vertices, and faster to render.

xatlas cuts the surface into charts and packs them (jpcy/xatlas, after Thekla Atlas); each texel then gets what the views saw there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import trimesh
import warp as wp
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from ..errors import UserError
from ..warp_setup import launch, warp_device
from . import fusion_kernels as kernels
from .fusion import SURE, Surface, View, mixed, seen_colours

FACES = 8_000
"""More show nothing that a crop of 160 x 160 pixels could, and cost time in every rendering."""
TEXEL = 0.0005
"""m; finer than a pixel of a camera at half a metre, of which several views see every place."""
MOST_SIDE = 1024
FILLED = 0.6
"""Share of a texture that charts fill at least."""
PADDING = 2
"""Texels between charts, which keep them apart when colours between texels are mixed."""

Array = NDArray[np.float64]


def textured(
    surface: Surface,
    views: Sequence[View],
    voxel: float,
    device: str = "cpu",
    above: float = -np.inf,
    faces: int = FACES,
) -> trimesh.Trimesh:
    """The surface with at most about ``faces`` triangles and a texture of what the views saw.

    views, voxel, above: as ``fusion.paint`` had them. What no view saw well is coloured as the surface is.
    """
    import fast_simplification

    dense = surface.mesh
    points, corners = np.asarray(dense.vertices, np.float32), np.asarray(dense.faces, np.int32)
    if len(corners) > faces:
        points, corners = fast_simplification.simplify(points, corners, target_count=faces)
    thin = trimesh.Trimesh(points, corners, process=False)
    thin.update_faces(thin.nondegenerate_faces())
    thin.remove_unreferenced_vertices()
    which, charts, uv, (width, height) = unwrapped(thin, TEXEL)
    vertices, normals = np.asarray(thin.vertices)[which], np.asarray(thin.vertex_normals)[which]
    face, share = _texels(uv, charts, width, height, device)
    where = np.einsum("tk,tkc->tc", share, vertices[charts[face]])
    facing = np.einsum("tk,tkc->tc", share, normals[charts[face]])
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-9)
    colours, weights, _ = seen_colours(where, facing, views, voxel, device)
    colours *= surface.gain
    weights[where[:, 2] < above] = 0
    doubtful = weights < SURE
    if doubtful.any():
        assert isinstance(dense.visual, trimesh.visual.ColorVisuals)
        known = np.asarray(dense.visual.vertex_colors, np.float64)[:, :3]
        near = np.asarray(cKDTree(dense.vertices).query(where[doubtful], k=3)[1])
        colours[doubtful] = mixed(colours[doubtful], weights[doubtful], known[near].mean(1))
    picture = np.clip(np.round(colours), 0, 255).astype(np.uint8).reshape(height, width, 3)
    made = trimesh.Trimesh(vertices, charts, vertex_normals=normals, process=False)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(picture), metallicFactor=0.0, roughnessFactor=1.0
    )
    made.visual = trimesh.visual.TextureVisuals(uv=uv * (1, -1) + (0, 1), material=material)
    return made


def atlas_library() -> Any:
    """The module xatlas. Raises UserError where it is not installed."""
    try:
        import xatlas
    except ImportError as error:
        raise UserError(
            f"a scan's texture needs xatlas, which cannot be imported ({error}); install it: pip install "
            "'rfdetr_foundationpose[scan]' (on arm64 it is built from source, which takes a C++ compiler)"
        ) from error
    return xatlas


def unwrapped(
    mesh: trimesh.Trimesh, texel: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, tuple[int, int]]:
    """Charts of a mesh, whose texels are ``texel`` m unless MOST_SIDE asks for larger ones: the vertex that each new vertex was (V,),
    faces (F, 3) of new ones, their texture coordinates (V, 2), v down, and the texture's width and height."""
    xatlas = atlas_library()
    texel = max(texel, float(np.sqrt(mesh.area / FILLED)) / MOST_SIDE)
    while True:
        atlas, packing = xatlas.Atlas(), xatlas.PackOptions()
        packing.texels_per_unit, packing.padding = 1 / texel, PADDING
        atlas.add_mesh(
            *(
                np.ascontiguousarray(a, t)
                for a, t in ((mesh.vertices, np.float32), (mesh.faces, np.uint32), (mesh.vertex_normals, np.float32))
            )
        )
        atlas.generate(pack_options=packing)
        if max(atlas.width, atlas.height) <= MOST_SIDE and atlas.atlas_count == 1:
            which, corners, uv = atlas[0]
            return which.astype(np.int64), corners.astype(np.int64), uv.astype(np.float64), (atlas.width, atlas.height)
        texel *= 1.1


def _texels(
    uv: Array, corners: NDArray[np.int64], width: int, height: int, device: str
) -> tuple[NDArray[np.int32], Array]:
    """Of every texel, row by row: the nearest face (T,), and the shares of its corners (T, 3)."""
    place = warp_device(device)
    flat = np.c_[uv * (width, height), np.zeros(len(uv))].astype(np.float32)
    with wp.ScopedDevice(place):
        charts = wp.Mesh(wp.array(flat, dtype=wp.vec3f), wp.array(corners.astype(np.int32).ravel(), dtype=wp.int32))
        face = wp.zeros((height, width), dtype=wp.int32)
        share = wp.zeros((height, width), dtype=wp.vec3f)
    launch(kernels.nearest_face, face.shape, [charts.id, float(width + height), face, share], device)
    return face.numpy().ravel(), share.numpy().reshape(-1, 3).astype(np.float64)
