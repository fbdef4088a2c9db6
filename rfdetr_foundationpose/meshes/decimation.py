"""Fewer faces, where a mesh has more than any rendering of it shows."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from .appearance import colors_at
from .cleaning import weld
from .raw import RawMesh, Surface

MOST_FACES = 200_000
"""A network sees an object over about 110 x 110 of 160 x 160 pixels: these are eight faces to each of them."""


def decimate(mesh: RawMesh, most: int = MOST_FACES) -> RawMesh:
    """The same surface with about ``most`` faces; its colours become colours of the vertices, which lie as close as pixels.

    By fast-simplification (quadric edge collapse, of PyVista's makers), which trimesh uses for the same.
    """
    import fast_simplification

    at = weld(mesh.vertices)[mesh.faces]
    seen = np.bincount(at.reshape(-1), minlength=len(mesh.vertices)) > 0
    used = np.flatnonzero(seen)
    faces = (np.cumsum(seen, dtype=np.int32) - 1)[at]
    middle = mesh.vertices[used].mean(0)
    points = (mesh.vertices[used] - middle).astype(np.float32)
    colors = None
    if len(mesh.surfaces) > 1 or mesh.surfaces[0].texture is not None or mesh.surfaces[0].colored:
        corner = np.zeros(len(points), np.int64)
        corner[faces.reshape(-1)] = np.arange(faces.size)
        colors = colors_at(mesh, corner // 3, np.eye(3)[corner % 3])
    fewer, kept = fast_simplification.simplify(points, faces, target_count=most)
    kept = kept.reshape(-1, 3).astype(np.int32)
    result = RawMesh(fewer.astype(np.float64) + middle, kept, mesh.surfaces, notes=mesh.notes)
    if colors is not None:
        nearest = cKDTree(points).query(fewer)[1]
        result.colors = colors[nearest].astype(np.float32)
        kinds = " + ".join(dict.fromkeys(s.kind for s in mesh.surfaces))
        sources = "; ".join(dict.fromkeys(s.source for s in mesh.surfaces))
        result.surfaces = [Surface("", kinds, sources, colored=True)]
    return result
