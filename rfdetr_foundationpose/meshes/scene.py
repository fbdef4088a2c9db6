"""Formats that trimesh reads (OFF, DAE, 3MF, ...) and meshes that are trimesh's already, one geometry at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import images
from .raw import MeshError, RawMesh, Surface, Texture, grey_surface, joined


def read(path: Path) -> RawMesh:
    """Every triangle mesh of the scene in ``path``, where its nodes put it. Raises MeshError."""
    import trimesh

    if path.suffix.lower().lstrip(".") not in trimesh.available_formats():
        raise MeshError(f"{path.suffix or 'a file without suffix'} is not read; export it as GLB, OBJ, PLY or STL")
    loaded: Any = trimesh.load_scene(str(path), process=False)
    meshes = []
    for name in loaded.graph.nodes_geometry:
        matrix, key = loaded.graph[name]
        geometry = loaded.geometry[key]
        if not isinstance(geometry, trimesh.Trimesh) or not len(geometry.faces):
            continue
        part = from_trimesh(geometry, str(key))
        part.vertices = part.vertices @ matrix[:3, :3].T + matrix[:3, 3]
        if np.linalg.det(matrix[:3, :3]) < 0:
            part.turn_faces(np.ones(len(part.faces), bool))
        meshes.append(part)
    if not meshes:
        raise MeshError("it has no faces (a point cloud or lines?); export it as triangles")
    return joined(meshes)


def from_trimesh(mesh: Any, name: str = "") -> RawMesh:
    """A trimesh.Trimesh with its colours or its image."""
    faces = np.asarray(getattr(mesh, "faces", np.zeros((0, 3))), np.int32).reshape(-1, 3)
    raw = RawMesh(np.asarray(mesh.vertices, np.float64), faces, [])
    visual = mesh.visual
    if visual.kind == "face":
        raw.face_colors = (np.asarray(visual.face_colors)[:, :3] / 255).astype(np.float32)
        raw.surfaces = [Surface(name, "face colours", "face colours", colored=True)]
    elif visual.kind == "vertex":
        raw.colors = (np.asarray(visual.vertex_colors)[:, :3] / 255).astype(np.float32)
        raw.surfaces = [Surface(name, "vertex colours", "vertex colours", colored=True)]
    elif visual.kind == "texture":
        raw.surfaces = [_material(raw, visual, name)]
    else:
        raw.surfaces = [grey_surface(name, "it has neither an image nor colours")]
    return raw


def _material(raw: RawMesh, visual: Any, name: str) -> Surface:
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is not None and visual.uv is not None:
        pixels = images.from_image(image)
        raw.uv = np.asarray(visual.uv, np.float32)
        return Surface(name, "texture", f"texture ({pixels.shape[1]} x {pixels.shape[0]})", texture=Texture(pixels))
    color = getattr(material, "baseColorFactor", None)
    if color is None:
        color = getattr(material, "diffuse", None)
    if color is None:
        return grey_surface(name, "its material has neither an image nor a colour")
    red, green, blue = (int(v) for v in np.asarray(color)[:3])
    return Surface(
        name, "uniform colour", f"material colour {red}/{green}/{blue}", (red / 255, green / 255, blue / 255)
    )
