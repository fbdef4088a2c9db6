"""Object meshes as the pose stage needs them: metres, welded normals, a colour source, diameter and symmetries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from ..errors import UserError
from ..objects import ObjectSpec
from .mesh_bank import MeshArrays
from .symmetry import symmetry_transforms

MAX_PLAUSIBLE_DIAMETER = 5.0
MAX_TEXTURE = 1024


class MeshError(UserError, ValueError):
    """A mesh that cannot be used; the message names the file, the reason and the fix."""


@dataclass(frozen=True)
class ObjectModel:
    """A loaded object. Arrays are of the mesh moved to its model centre (middle of its bounding box), metres.

    center: (3,) float64, the model centre in the mesh as loaded. diameter: largest vertex distance, m.
    extents: (3,) bounding box size, m. symmetries: (K, 4, 4) float64 about the model centre, identity first.
    color_source: "texture", "vertex colours" or "uniform grey"/"uniform colour".
    """

    name: str
    arrays: MeshArrays
    center: NDArray[np.float64]
    diameter: float
    extents: NDArray[np.float64]
    symmetries: NDArray[np.float64]
    color_source: str

    def to_centered(self, T_cam_obj: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pose of the mesh as loaded -> pose of the mesh moved to its model centre."""
        T = np.array(T_cam_obj, dtype=np.float64)
        T[:3, 3] += T[:3, :3] @ self.center
        return T

    def from_centered(self, T_cam_center: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pose of the mesh moved to its model centre -> pose of the mesh as loaded."""
        T = np.array(T_cam_center, dtype=np.float64)
        T[:3, 3] -= T[:3, :3] @ self.center
        return T


def load_object(spec: ObjectSpec, log: Callable[[str], None] = print) -> ObjectModel:
    """Load the mesh of an objects.yaml entry (OBJ, PLY, GLB, STL, ...). Raises MeshError; ``log`` gets warnings."""
    if not Path(spec.mesh).is_file():
        raise MeshError(f"object {spec.name}: mesh {spec.mesh} does not exist; mesh paths are relative to objects.yaml")
    try:
        mesh: Any = trimesh.load(str(spec.mesh), force="mesh", process=False)
    except Exception as error:
        raise MeshError(f"object {spec.name}: mesh {spec.mesh} cannot be read: {error}") from error
    return make_object(spec, mesh, log)


def make_object(spec: ObjectSpec, mesh: Any, log: Callable[[str], None]) -> ObjectModel:
    """ObjectModel from a trimesh.Trimesh in the units of ``spec.scale``. Raises MeshError."""
    faces = np.asarray(getattr(mesh, "faces", np.zeros((0, 3))), np.int32)
    if len(faces) == 0:
        raise MeshError(f"object {spec.name}: mesh {spec.mesh} has no faces (a point cloud?); export it as triangles")
    vertices = np.asarray(mesh.vertices, np.float64) * spec.scale
    if not np.isfinite(vertices).all():
        raise MeshError(f"object {spec.name}: mesh {spec.mesh} has vertices that are not finite")
    used = vertices[np.unique(faces)]
    low, high = used.min(0), used.max(0)
    diameter = _diameter(used)
    extents = high - low
    if diameter > MAX_PLAUSIBLE_DIAMETER:
        raise MeshError(
            f"object {spec.name}: mesh {spec.mesh} measures {_size(extents)} m; that looks like millimetres. "
            f"Set scale: {spec.scale * 0.001:g} for it in objects.yaml"
        )
    if diameter < 0.005:
        log(
            f"object {spec.name}: mesh {spec.mesh} measures only {_size(extents)} m; is its unit right? scale is {spec.scale:g} metres per mesh unit"
        )
    center = (low + high) / 2
    colors, uv, texture, source = _appearance(spec, mesh, log)
    arrays = MeshArrays(
        vertices=(vertices - center).astype(np.float32),
        faces=faces,
        normals=_welded_normals(vertices, faces),
        colors=colors,
        uv=uv,
        texture=texture,
    )
    return ObjectModel(
        spec.name,
        arrays,
        center,
        diameter,
        extents,
        symmetry_transforms(spec.discrete, spec.continuous, center),
        source,
    )


def _size(extents: NDArray[np.float64]) -> str:
    return " x ".join(f"{v:.4g}" for v in extents)


def _diameter(points: NDArray[np.float64]) -> float:
    """Exact largest distance, through the convex hull."""
    if len(points) > 64:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # flat meshes have no 3-D hull
            points = np.unique(points, axis=0)
    if len(points) > 5000:
        points = points[:: len(points) // 5000 + 1]
    return float(pdist(points).max()) if len(points) > 1 else 0.0


def _welded_normals(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Unit vertex normals, averaged by area over the faces that share the vertex index."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    weighted = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(normals, faces[:, i], weighted)
    norms = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.where(norms > 0, norms, 1)).astype(np.float32)


def _appearance(
    spec: ObjectSpec, mesh: Any, log: Callable[[str], None]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.uint8] | None, str]:
    n = len(mesh.vertices)
    grey = np.full((n, 3), 128 / 255, np.float32)
    if spec.color is not None:
        return np.tile(np.array(spec.color, np.float32) / 255, (n, 1)), None, None, "uniform colour"
    visual = mesh.visual
    if visual.kind == "texture":
        image = _texture_image(visual.material)
        if image is not None and visual.uv is not None:
            uv = np.asarray(visual.uv, np.float32)[mesh.faces]
            return grey, uv, np.asarray(image, np.uint8), "texture"
        base = getattr(visual.material, "main_color", None)
        if image is None and base is not None and not _is_default_grey(base):
            return np.tile(np.array(base[:3], np.float32) / 255, (n, 1)), None, None, "uniform colour"
        log(
            f"object {spec.name}: the texture of {spec.mesh} was not found, so it is rendered grey and may turn about an axis "
            "unseen; put the image where the material (.mtl) names it, or set color"
        )
        return grey, None, None, "uniform grey"
    if visual.kind in ("vertex", "face"):
        colors = np.asarray(visual.vertex_colors, np.float32)[:, :3] / 255
        return np.ascontiguousarray(colors), None, None, "vertex colours"
    log(
        f"object {spec.name}: {spec.mesh} has neither texture nor vertex colours, so it is rendered grey; set color if it has one"
    )
    return grey, None, None, "uniform grey"


def _texture_image(material: Any) -> Image.Image | None:
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None:
        return None
    image = image.convert("RGB")
    if max(image.size) > MAX_TEXTURE:
        image.thumbnail((MAX_TEXTURE, MAX_TEXTURE), Image.Resampling.LANCZOS)
    return image  # type: ignore[no-any-return]


def _is_default_grey(color: Any) -> bool:
    return bool(np.ptp(np.asarray(color[:3], np.int32)) == 0)
