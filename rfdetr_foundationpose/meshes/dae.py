"""COLLADA, the format of most ROS robot descriptions and Gazebo models.

Parsed by pycollada, which trimesh reads it with too; images are resolved here, since what it cannot find becomes white.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import images
from .polygons import triangulate
from .raw import MeshError, RawMesh, Surface, Texture, grey_surface, joined


def read(path: Path) -> RawMesh:
    """All polygons of the scene, in the file's unit and axes. Raises MeshError."""
    try:
        import collada
    except ImportError as error:
        raise MeshError("COLLADA needs pycollada: pip install pycollada; or export it as GLB") from error
    document: Any = collada.Collada(str(path), ignore=[collada.common.DaeError])
    notes: list[str] = []
    looks = _Looks(path, document, notes)
    parts = []
    if document.scene is None:
        raise MeshError("it shows no scene; export it as GLB")
    for geometry in document.scene.objects("geometry"):
        for primitive in geometry.primitives():
            part = _part(primitive, np.asarray(geometry.matrix), looks)
            if part is not None:
                parts.append(part)
    if not parts:
        raise MeshError("it has no faces (lines only, or nothing in its scene?); export it as triangles")
    mesh = joined(parts)
    mesh.notes += notes
    mesh.unit = None if document.assetInfo is None else document.assetInfo.unitmeter
    return mesh


def _part(primitive: Any, matrix: NDArray[np.floating], looks: _Looks) -> RawMesh | None:
    """A primitive of triangles or polygons; None of lines and of nothing. matrix: (4, 4), which pycollada has applied."""
    vertices, index = primitive.vertex, primitive.vertex_index
    if vertices is None or index is None or not len(index):
        return None
    if hasattr(primitive, "polyindex"):
        counts = np.diff(np.asarray(primitive.polyindex), axis=1)[:, 0]
    elif np.asarray(index).ndim == 2 and index.shape[1] == 3:
        counts = np.full(len(index), 3)
    else:
        return None
    corners = np.asarray(index).reshape(-1)
    if not len(corners) or int(corners.min()) < 0 or int(corners.max()) >= len(vertices):
        raise MeshError("a face of it asks for a vertex that is not there; is it cut off?")
    triangles, _ = triangulate(counts, corners, np.asarray(vertices, np.float64))
    if not len(triangles):
        return None
    mesh = RawMesh(np.asarray(vertices, np.float64), corners.astype(np.int32)[triangles], [])
    if primitive.texcoordset:
        mesh.uv = np.asarray(primitive.texcoordset[0], np.float32)[:, :2]
        mesh.uv_index = _picked(primitive.texcoord_indexset[0], triangles, len(mesh.uv))
        if mesh.uv_index is None:
            mesh.uv = None
    if primitive.normal is not None and primitive.normal_index is not None:
        mesh.normals = np.asarray(primitive.normal, np.float32)
        mesh.normal_index = _picked(primitive.normal_index, triangles, len(mesh.normals))
        if mesh.normal_index is None:
            mesh.normals = None
    mesh.face_colors = _colors(primitive, triangles)
    if np.linalg.det(matrix[:3, :3]) < 0:
        mesh.turn_faces(np.ones(len(mesh.faces), bool))
    mesh.surfaces = [looks.surface(primitive, mesh)]
    return mesh


def _picked(index: Any, triangles: NDArray[np.signedinteger], size: int) -> NDArray[np.int32] | None:
    flat = np.asarray(index).reshape(-1)
    if int(triangles.max()) >= len(flat) or not len(flat) or not 0 <= int(flat.min()) <= int(flat.max()) < size:
        return None
    return np.asarray(flat[triangles], np.int32)


def _colors(primitive: Any, triangles: NDArray[np.signedinteger]) -> NDArray[np.float32] | None:
    """(F, 3) mean colours of the corners, which COLLADA indexes of their own."""
    given = primitive.original.sources.get("COLOR") if hasattr(primitive, "original") else None
    if not given:
        return None
    offset, _, _, _, source = given[0]
    table = np.asarray(source.data, np.float32)
    index = np.asarray(primitive.index).reshape(-1, np.asarray(primitive.index).shape[-1])
    if offset >= index.shape[1] or table.ndim != 2 or table.shape[1] < 3 or int(index[:, offset].max()) >= len(table):
        return None
    colors = np.asarray(table[index[:, offset]][triangles][..., :3].mean(1).clip(0, 1), np.float32)
    return None if (colors == 1).all() else colors  # white is what exporters fill in


class _Looks:
    """Surfaces by effect."""

    def __init__(self, path: Path, document: Any, notes: list[str]) -> None:
        self.path, self.notes = path, notes
        self.files = {image.id: str(image.path) for image in document.images}
        self._textures: dict[str, Texture | None] = {}

    def surface(self, primitive: Any, mesh: RawMesh) -> Surface:
        material = primitive.material
        effect = getattr(material, "effect", material)
        name = str(getattr(material, "name", None) or getattr(material, "id", None) or "")
        reference = None if effect is None else self._image_of(effect)
        if reference is not None and mesh.uv is not None:
            texture = self._texture(reference, name)
            if texture is not None:
                height, width = texture.pixels.shape[:2]
                file = reference.replace("\\", "/").rpartition("/")[2]
                return Surface(name, "texture", f"texture {file} ({width} x {height})", texture=texture)
        if mesh.face_colors is not None:
            return Surface(name, "face colours", "vertex colours, of each face their mean", colored=True)
        color = getattr(effect, "diffuse", None)
        if isinstance(color, tuple) and len(color) >= 3:
            red, green, blue = (min(max(float(v), 0.0), 1.0) for v in color[:3])
            shown = "/".join(str(round(255 * v)) for v in (red, green, blue))
            return Surface(name, "uniform colour", f"diffuse colour {shown}", (red, green, blue))
        return grey_surface(
            name, "its image is missing" if reference else "its material has neither an image nor a colour"
        )

    def _texture(self, reference: str, name: str) -> Texture | None:
        if reference not in self._textures:
            try:
                self._textures[reference] = Texture(images.read(images.find(reference, self.path.parent)))
            except images.ImageError as error:
                self._textures[reference] = None
                self.notes.append(
                    f"the texture of material {name!r} {error}; that part is rendered without it and may turn about an "
                    "axis unseen"
                )
        return self._textures[reference]

    def _image_of(self, effect: Any) -> str | None:
        """File of the diffuse image: by sampler and surface as the format has it, or by its id as MeshLab writes it."""
        node = effect.xmlnode
        nodes = {} if node is None else {n.get("sid"): n for n in node.iter() if n.get("sid")}
        used = None if node is None else next((n for n in node.iter() if _tag(n) == "diffuse"), None)
        texture = None if used is None else next((n for n in used if _tag(n) == "texture"), None)
        name = "" if texture is None else str(texture.get("texture"))
        for _ in range(4):
            if name in self.files:
                return self.files[name]
            step = nodes.get(name)
            found = None if step is None else next((n for n in step.iter() if _tag(n) in ("source", "init_from")), None)
            if found is None or not found.text:
                return name if "." in name else None
            name = found.text.strip()
        return None


def _tag(node: Any) -> str:
    return str(node.tag).rpartition("}")[2]
