"""The colour of every face: of the vertices where that says it all, else one texture for the whole mesh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import atlas
from .normals import split
from .raw import GREY, RawMesh, Surface, Texture
from .srgb import decode_srgb, encode_srgb

Floats = NDArray[np.float64]


def used_surfaces(mesh: RawMesh) -> None:
    """Forget surfaces that no face has, and tell those that look the same only once."""
    if mesh.surface is None:
        mesh.surfaces = mesh.surfaces[:1]
        return
    used, again = np.unique(mesh.surface, return_inverse=True)
    mesh.surfaces = [mesh.surfaces[i] for i in used]
    mesh.surface = again.reshape(-1).astype(np.int32) if len(used) > 1 else None


def sample(texture: Texture, uv: NDArray[np.floating]) -> Floats:
    """(n, 3) sRGB in [0, 1] at (n, 2) coordinates, v up: bilinear, wrapped as the texture says."""
    height, width = texture.pixels.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    a, b = (x - x0)[:, None], (y - y0)[:, None]
    columns = [atlas.wrapped(x0 + i, width, texture.wrap[0]) for i in (0, 1)]
    rows = [atlas.wrapped(y0 + i, height, texture.wrap[1]) for i in (0, 1)]
    top = texture.pixels[rows[0], columns[0]] * (1 - a) + texture.pixels[rows[0], columns[1]] * a
    bottom = texture.pixels[rows[1], columns[0]] * (1 - a) + texture.pixels[rows[1], columns[1]] * a
    return np.asarray((top * (1 - b) + bottom * b) / 255)


def corner_uv(mesh: RawMesh, faces: NDArray[np.integer] | slice) -> NDArray[np.float32]:
    """(n, 3, 2) of the given faces."""
    assert mesh.uv is not None
    index = mesh.faces if mesh.uv_index is None else mesh.uv_index
    return np.nan_to_num(mesh.uv[index[faces]], posinf=0, neginf=0)


def colors_at(mesh: RawMesh, faces: NDArray[np.integer], weights: Floats) -> Floats:
    """(n, 3) sRGB in [0, 1] of points on ``faces`` (n,), whose corners count by ``weights`` (n, 3)."""
    result = np.zeros((len(faces), 3))
    surface = mesh.surface_of_faces()[faces]
    for i, s in enumerate(mesh.surfaces):
        rows = np.flatnonzero(surface == i)
        if not len(rows):
            continue
        value = np.broadcast_to(np.array(s.factor, np.float64), (len(rows), 3))
        if s.colored and mesh.face_colors is not None:
            value = value * mesh.face_colors[faces[rows]]
        elif s.colored and mesh.colors is not None:
            value = value * np.einsum("nck,nc->nk", mesh.colors[mesh.faces[faces[rows]]], weights[rows])
        if s.texture is not None:
            image = sample(s.texture, np.einsum("nck,nc->nk", corner_uv(mesh, faces[rows]), weights[rows]))
            value = value * (decode_srgb(image) if s.linear else image)
        result[rows] = encode_srgb(value) if s.linear else value
    return result.clip(0, 1)


def resolve(
    mesh: RawMesh,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.uint8] | None]:
    """Colours (V, 3) sRGB of the vertices, and where there is a texture, uv (F, 3, 2) and its pixels.

    Splits vertices whose faces have different colours.
    """
    if any(s.texture is not None for s in mesh.surfaces):
        uv, pixels = _one_image(mesh) or _atlas(mesh)
        return np.full((len(mesh.vertices), 3), GREY[0] / 255, np.float32), uv, pixels
    if len(mesh.surfaces) > 1 or (mesh.surfaces[0].colored and mesh.face_colors is not None):
        look = mesh.surface_of_faces().astype(np.int64)
        if mesh.face_colors is not None:
            painted = np.array([s.colored for s in mesh.surfaces])[look]
            byte = np.round(mesh.face_colors * 255).astype(np.int64)
            look = look + painted * (1 + byte @ np.array([1 << 16, 1 << 8, 1])) * len(mesh.surfaces)
        split(mesh, np.repeat(np.unique(look, return_inverse=True)[1].reshape(-1, 1), 3, axis=1))
    corner = np.zeros(len(mesh.vertices), np.int64)
    corner[mesh.faces.reshape(-1)] = np.arange(mesh.faces.size)
    return colors_at(mesh, corner // 3, np.eye(3)[corner % 3]).astype(np.float32), None, None


def tinted(surface: Surface) -> NDArray[np.uint8]:
    """The pixels of a surface's texture times its factor."""
    assert surface.texture is not None
    pixels = surface.texture.pixels
    if surface.factor == (1, 1, 1):
        return pixels
    values = np.arange(256) / 255
    result = np.empty_like(pixels)
    for k in range(3):
        scaled = encode_srgb(decode_srgb(values) * surface.factor[k]) if surface.linear else values * surface.factor[k]
        result[..., k] = np.round(255 * scaled).astype(np.uint8)[pixels[..., k]]
    return result


def _one_image(mesh: RawMesh) -> tuple[NDArray[np.float32], NDArray[np.uint8]] | None:
    """Coordinates and pixels where the whole mesh has one image that the renderer wraps as the file says."""
    s = mesh.surfaces[0]
    if s.texture is None or any(_image_key(o) != _image_key(s) for o in mesh.surfaces):
        return None
    uv = corner_uv(mesh, slice(None))
    if s.texture.wrap != ("repeat", "repeat") and (uv.min() < 0 or uv.max() > 1):
        return None
    if np.abs(uv).max(initial=0) > 8:
        uv = uv - np.floor(uv.min(1, keepdims=True))
    return uv, tinted(s)


def _image_key(s: Surface) -> object:
    """Equal for surfaces that show the same image in the same way; with colours of vertices none is."""
    if s.texture is None or s.colored:
        return object()
    return (id(s.texture.pixels), s.texture.wrap, s.factor, s.linear)


def _atlas(mesh: RawMesh) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Coordinates and pixels of one image in which every surface has its place."""
    surface = mesh.surface_of_faces()
    cells: list[atlas.Cell] = []
    images: dict[object, list[int]] = {}
    blended: list[int] = []
    for i, s in enumerate(mesh.surfaces):
        if s.texture is not None and not s.colored:
            images.setdefault(_image_key(s), []).append(i)
        else:
            blended.append(i)
    for group in images.values():
        s = mesh.surfaces[group[0]]
        assert s.texture is not None
        faces = np.flatnonzero(np.isin(surface, group))
        cells += atlas.image_cells(Texture(tinted(s), s.texture.wrap), corner_uv(mesh, faces), faces)
    cells = atlas.fitted(cells)
    faces = np.flatnonzero(np.isin(surface, blended))
    if len(faces):
        corners = np.stack([colors_at(mesh, faces, np.tile(np.eye(3)[k], (len(faces), 1))) for k in range(3)], 1)
        painted = np.array([s.texture is not None for s in mesh.surfaces])[surface[faces]]
        flat = ~painted & (np.ptp(corners, axis=1).max(1) < 0.5 / 255)
        if flat.any():
            cells.append(atlas.flat_cell(corners[flat, 0], faces[flat]))
        rest = faces[~flat]
        if len(rest):
            size = atlas.patch_size(len(rest), most=64 if painted.any() else 16)
            weights = atlas.patch_weights(size)
            at, each = np.repeat(rest, len(weights)), np.tile(weights, (len(rest), 1))
            cells.append(atlas.patch_cell(colors_at(mesh, at, each).reshape(len(rest), size, size, 3), rest))
    return atlas.packed(cells, len(mesh.faces))
