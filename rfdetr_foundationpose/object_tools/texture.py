"""The scanned surface with fewer triangles and its print as a texture: sharper than colours of vertices, and faster to render.

Two triangles share a square of the texture each, whose side is that of the triangles in texels, so that no texel is larger than
TEXEL unless all of them are; no chart crosses an edge, so nothing is stretched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from .fusion import Surface, View, seen_colours

FACES = 8_000
"""More show nothing that a crop of 160 x 160 pixels could, and cost time in every rendering."""
TEXEL = 0.0007
"""m; a camera at half a metre sees about that."""
MOST_SIDE = 1024
GAP = 3
"""A square is so many texels longer than its triangles, which keeps the two of it apart when colours between texels are mixed."""
SIDES = (5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 29, 35, 42, 51, 62, 75, 91, 110, 133, 161, 195, 236, 286, 346, 419, 507)
"""Squares have one of these sides, so that they fill rows."""

Array = NDArray[np.float64]


def textured(
    surface: Surface, views: Sequence[View], voxel: float, device: str = "cpu", above: float = 0.0, faces: int = FACES
) -> trimesh.Trimesh:
    """The surface with at most about ``faces`` triangles, whose vertices are not shared, and a texture of what the views saw.

    views, voxel, above: as ``fusion.paint`` had them. What no view saw is coloured as the surface is.
    """
    import fast_simplification

    dense = surface.mesh
    points, corners = np.asarray(dense.vertices, np.float32), np.asarray(dense.faces, np.int32)
    if len(corners) > faces:
        points, corners = fast_simplification.simplify(points, corners, target_count=faces)
    thin = trimesh.Trimesh(points, corners, process=False)
    thin.update_faces(thin.nondegenerate_faces())
    corners = _longest_last(np.asarray(thin.vertices), np.asarray(thin.faces, np.int32))
    vertices, normals = np.asarray(thin.vertices, np.float64), np.asarray(thin.vertex_normals, np.float64)
    place, sides, size = _layout(vertices[corners])
    face, texel, share = _texels(place, sides)
    where = np.einsum("tk,tkc->tc", share, vertices[corners[face]])
    facing = np.einsum("tk,tkc->tc", share, normals[corners[face]])
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-9)
    colours, weights, _ = seen_colours(where, facing, views, voxel, device)
    colours *= surface.gain
    unseen = (weights <= 0) | (where[:, 2] < above)
    if unseen.any():
        assert isinstance(dense.visual, trimesh.visual.ColorVisuals)
        known = np.asarray(dense.visual.vertex_colors, np.float64)[:, :3]
        near = np.asarray(cKDTree(dense.vertices).query(where[unseen], k=3)[1])
        colours[unseen] = known[near].mean(1)
    picture = np.zeros((size, size, 3), np.uint8)
    picture[texel[:, 1], texel[:, 0]] = np.clip(np.round(colours), 0, 255)
    first = np.array([[0, 0], [1, 0], [0, 1]])[None] * (sides[:, None, None] - GAP)
    second = (sides[:, None, None] - 1) - first
    odd = (np.arange(len(corners)) % 2 == 1)[:, None, None]
    uv = (place[:, None] + np.where(odd, second, first) + 0.5) / size
    uv[..., 1] = 1 - uv[..., 1]
    made = trimesh.Trimesh(
        vertices[corners].reshape(-1, 3),
        np.arange(corners.size).reshape(-1, 3),
        vertex_normals=normals[corners].reshape(-1, 3),
        process=False,
    )
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(picture), metallicFactor=0.0, roughnessFactor=1.0
    )
    made.visual = trimesh.visual.TextureVisuals(uv=uv.reshape(-1, 2), material=material)
    return made


def _longest_last(vertices: Array, faces: NDArray[np.int32]) -> NDArray[np.int32]:
    """Faces turned so that the edge from their second corner to their third is the longest; sorted by length, longest first."""
    p = vertices[faces]
    length = np.linalg.norm(np.roll(p, -2, 1) - np.roll(p, -1, 1), axis=2)  # of the edge across from each corner
    turn = (length.argmax(1)[:, None] + np.arange(3)) % 3
    legs = np.sort(length, axis=1)[:, 1]
    return np.take_along_axis(faces, turn, 1)[np.argsort(-legs, kind="stable")]


def _layout(p: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Of sorted triangles (F, 3, 3): the lower corner of the square of each (F, 2), its side (F,), and the texture's side."""
    legs = np.maximum(np.linalg.norm(p[:, 1] - p[:, 0], axis=1), np.linalg.norm(p[:, 2] - p[:, 0], axis=1))
    legs[1::2] = legs[: len(legs) - len(legs) % 2 : 2]  # both of a square have its side
    known, texel = np.array(SIDES), TEXEL
    while True:
        sides = known[np.searchsorted(known, np.minimum(legs / texel + GAP, known[-1]))]
        for size in (256, 512, MOST_SIDE):
            place = _shelves(sides, size)
            if place is not None:
                return place, sides, size
        texel *= 1.1


def _shelves(sides: NDArray[np.int64], size: int) -> NDArray[np.int64] | None:
    """Squares in rows, equal ones side by side; None where a texture of that size has no room for them."""
    place = np.zeros((len(sides), 2), np.int64)
    y = 0
    for side in np.unique(sides)[::-1]:
        which = np.flatnonzero(sides == side)
        square = (which - which[0] + which[0] % 2) // 2
        columns = size // side
        if columns == 0:
            return None
        place[which] = np.stack([square % columns * side, y + square // columns * side], 1)
        y += int(side) * (int(square[-1]) // columns + 1)
        if y > size:
            return None
    return place


def _texels(place: NDArray[np.int64], sides: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """All texels (T): their face, column and row (T, 2), and the shares of its corners (T, 3)."""
    faces, texels, shares = [], [], []
    for side in np.unique(sides):
        which = np.flatnonzero(sides == side)
        i, j = (v.ravel() for v in np.mgrid[0:side, 0:side])
        near = i + j <= side - 1
        i, j = i[near], j[near]
        a, b = i / (side - GAP), j / (side - GAP)
        over = np.maximum(a + b - 1, 0) / 2
        a, b = np.clip(a - over, 0, 1), np.clip(b - over, 0, 1)
        share = np.stack([1 - a - b, a, b], 1).clip(0)
        local = np.stack([i, j], 1)
        odd = (which % 2 == 1)[:, None, None]
        local = np.where(odd, side - 1 - local, local)
        faces.append(np.repeat(which, len(i)))
        texels.append((place[which][:, None] + local).reshape(-1, 2))
        shares.append(np.tile(share / share.sum(1, keepdims=True), (len(which), 1)))
    return np.concatenate(faces), np.concatenate(texels), np.concatenate(shares)
