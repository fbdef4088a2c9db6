"""What a mesh reader gives: geometry, and for every face the surface that it has."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

GREY = (128, 128, 128)
"""What has no colour of its own is rendered in this one, sRGB 0..255."""


class MeshError(UserError, ValueError):
    """A mesh that cannot be used; the message names the file, the reason and the fix."""


@dataclass(frozen=True)
class MeshArrays:
    """vertices (V, 3) float32 m; faces (F, 3) int32, outward winding; normals (V, 3) float32 unit;
    colors (V, 3) float32 in [0, 1]; uv (F, 3, 2) float32 per corner, v up; texture (h, w, 3) uint8.
    uv and texture are both set or both None; with a texture, colors are unused.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    normals: NDArray[np.float32]
    colors: NDArray[np.float32]
    uv: NDArray[np.float32] | None = None
    texture: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Texture:
    """pixels (h, w, 3) uint8 sRGB, first row on top; wrap of u and of v: "repeat", "mirror" or "clamp"."""

    pixels: NDArray[np.uint8]
    wrap: tuple[str, str] = ("repeat", "repeat")


@dataclass(frozen=True)
class Surface:
    """One material of a file, resolved: colour = factor x texture x colours of the mesh, of which each may be absent.

    factor: RGB in [0, 1]. linear: factor and the mesh's colours are linear light (glTF), else sRGB. colored: the mesh's
    colours count. kind: "texture", "vertex colours", "face colours", "uniform colour" or "uniform grey". source: where the
    colour comes from, for people.
    """

    name: str
    kind: str
    source: str
    factor: tuple[float, float, float] = (1.0, 1.0, 1.0)
    linear: bool = False
    colored: bool = False
    texture: Texture | None = None


def grey_surface(name: str, why: str) -> Surface:
    """What has no colour of its own, and ``why``."""
    red, green, blue = GREY
    return Surface(name, "uniform grey", f"default grey ({why})", (red / 255, green / 255, blue / 255))


@dataclass
class RawMesh:
    """A mesh as its file has it, all parts in one, in the file's unit and frame.

    vertices: (V, 3) floating. faces: (F, 3) int32. surfaces: at least one; surface: (F,) int32 index into them, None: all 0.
    colors: (V, 3) float32 in [0, 1]; face_colors: (F, 3) float32, which take precedence. uv: (T, 2) float32, v up, with
    uv_index (F, 3), None: faces. normals: (N, 3) floating with normal_index (F, 3), None: faces. notes: what a user should
    know of it, each a sentence. smooth: equal positions are one vertex, whatever the file says (it cannot share them).
    unit: metres per unit as the file says it, None where it does not.
    """

    vertices: NDArray[np.floating]
    faces: NDArray[np.int32]
    surfaces: list[Surface]
    surface: NDArray[np.int32] | None = None
    colors: NDArray[np.float32] | None = None
    face_colors: NDArray[np.float32] | None = None
    uv: NDArray[np.float32] | None = None
    uv_index: NDArray[np.int32] | None = None
    normals: NDArray[np.floating] | None = None
    normal_index: NDArray[np.int32] | None = None
    notes: list[str] = field(default_factory=list)
    smooth: bool = False
    unit: float | None = None

    def surface_of_faces(self) -> NDArray[np.int32]:
        """(F,) int32."""
        return np.zeros(len(self.faces), np.int32) if self.surface is None else self.surface

    def keep_faces(self, kept: NDArray[np.bool_]) -> None:
        """Drop the faces where ``kept`` (F,) is False."""
        if kept.all():
            return
        self.faces = self.faces[kept]
        for name in ("surface", "face_colors", "uv_index", "normal_index"):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, values[kept])

    def turn_faces(self, turned: NDArray[np.bool_]) -> None:
        """Reverse the winding of the faces where ``turned`` (F,) is True."""
        if not turned.any():
            return
        for name in ("faces", "uv_index", "normal_index"):
            values = getattr(self, name)
            if values is not None:
                values = values.copy()
                values[turned] = values[turned][:, ::-1]
                setattr(self, name, values)


def joined(meshes: list[RawMesh]) -> RawMesh:
    """All in one. Normals are kept where all have them."""
    if len(meshes) == 1:
        return meshes[0]
    vertices = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    surfaces = np.cumsum([0, *(len(m.surfaces) for m in meshes)])
    painted = any(m.face_colors is not None for m in meshes)
    result = RawMesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + int(o) for m, o in zip(meshes, vertices[:-1], strict=True)]).astype(np.int32),
        [s for m in meshes for s in m.surfaces],
        np.concatenate([m.surface_of_faces() + int(o) for m, o in zip(meshes, surfaces[:-1], strict=True)]),
        notes=[n for m in meshes for n in m.notes],
    )
    if painted:  # face colours take precedence: colours of vertices become theirs
        result.face_colors = np.concatenate([_face_colors(m) for m in meshes])
    elif any(m.colors is not None for m in meshes):
        white = [np.ones((len(m.vertices), 3), np.float32) for m in meshes]
        result.colors = np.concatenate(
            [w if m.colors is None else m.colors for m, w in zip(meshes, white, strict=True)]
        )
    if any(m.uv is not None for m in meshes):
        uv = [np.zeros((1, 2), np.float32) if m.uv is None else m.uv for m in meshes]
        result.uv = np.concatenate(uv)
        result.uv_index = _joined_index(meshes, "uv", [len(u) for u in uv])
    if all(m.normals is not None for m in meshes):
        normals = [m.normals for m in meshes if m.normals is not None]
        result.normals = np.concatenate(normals)
        result.normal_index = _joined_index(meshes, "normal", [len(n) for n in normals])
    return result


def _face_colors(mesh: RawMesh) -> NDArray[np.float32]:
    if mesh.face_colors is not None:
        return mesh.face_colors
    return np.ones((len(mesh.faces), 3), np.float32) if mesh.colors is None else mesh.colors[mesh.faces].mean(1)


def _joined_index(meshes: list[RawMesh], name: str, sizes: list[int]) -> NDArray[np.int32]:
    """Indices of uv or normals, after one another; of a mesh without them all 0 of its own."""
    found = []
    for mesh, first in zip(meshes, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True):
        index = getattr(mesh, f"{name}_index")
        has = getattr(mesh, "uv" if name == "uv" else "normals") is not None
        own = mesh.faces if index is None else index
        found.append((own if has else np.zeros_like(mesh.faces)) + first)
    return np.concatenate(found).astype(np.int32)
