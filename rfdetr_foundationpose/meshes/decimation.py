"""Fewer faces, where a mesh has more than any rendering of it shows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .appearance import colors_at
from .cleaning import placed, weld
from .raw import RawMesh, Surface

MOST_FACES = 200_000
"""A network sees an object over about 110 x 110 of 160 x 160 pixels: these are eight faces to each of them."""
_BLOCK = 62_500
"""Faces that are thinned out at once: the quadrics take 350 bytes for each."""
_FIRST = 1.25
"""How many times the faces wanted the first blocks leave, so that the second ones, cut elsewhere, still choose at those borders."""
_CUTS = (0.5, 0.38)
"""Where blocks are halved: a border of the first pass lies within a block of the second."""

Points = NDArray[np.float32]
Faces = NDArray[np.int32]


def decimate(mesh: RawMesh, most: int = MOST_FACES) -> RawMesh:
    """The same surface with about ``most`` faces; its colours become colours of the vertices, which lie as close as pixels.

    By fast-simplification (quadric edge collapse, of PyVista's makers), which trimesh uses for the same. ``mesh`` loses its
    vertices on the way: they are not kept beside those that are thinned out.
    """
    used, faces = _used(placed(mesh.faces, weld(mesh.vertices)), len(mesh.vertices))
    points = mesh.vertices if used is None else mesh.vertices[used]
    middle = (points.min(0) + points.max(0)) / 2
    points = (points - middle).astype(np.float32)
    mesh.vertices = mesh.vertices[:0]
    fewer, kept = _simplified(points, faces, most)
    result = RawMesh(fewer.astype(np.float64) + middle, kept, mesh.surfaces, notes=mesh.notes)
    if len(mesh.surfaces) > 1 or mesh.surfaces[0].texture is not None or mesh.surfaces[0].colored:
        corner = np.zeros(len(points), np.int32)
        corner[faces.reshape(-1)] = np.arange(faces.size, dtype=np.int32)
        del faces
        shown = corner[cKDTree(points, balanced_tree=False, compact_nodes=False).query(fewer)[1]]
        result.colors = colors_at(mesh, shown // 3, np.eye(3)[shown % 3]).astype(np.float32)
        kinds = " + ".join(dict.fromkeys(s.kind for s in mesh.surfaces))
        sources = "; ".join(dict.fromkeys(s.source for s in mesh.surfaces))
        result.surfaces = [Surface("", kinds, sources, colored=True)]
    return result


def _used(faces: Faces, vertices: int) -> tuple[NDArray[np.int32] | None, Faces]:
    """The vertices that faces have, None for all, and the faces in their numbers."""
    seen = np.zeros(vertices, bool)
    seen[faces.reshape(-1)] = True
    if seen.all():
        return None, faces
    return np.flatnonzero(seen).astype(np.int32), (np.cumsum(seen, dtype=np.int32) - 1)[faces]


def _simplified(points: Points, faces: Faces, most: int) -> tuple[Points, Faces]:
    """Points and about ``most`` faces: of large meshes block after block, whose borders stay as they are, then in other blocks."""
    import fast_simplification

    if len(faces) > 2 * _BLOCK:
        for target, cut in zip((_FIRST * most, most), _CUTS, strict=True):
            if target < len(faces):
                points, faces = _in_blocks(points, faces, target / len(faces), cut)
        return points, faces
    fewer, kept = fast_simplification.simplify(points, faces, target_count=most)
    return fewer.astype(np.float32), kept.reshape(-1, 3).astype(np.int32)


def _in_blocks(points: Points, faces: Faces, share: float, cut: float) -> tuple[Points, Faces]:
    """Thinned out to about ``share`` of the faces, block after block."""
    import fast_simplification

    found: list[Points] = []
    corners: list[Faces] = []
    seen, place = np.zeros(len(points), bool), np.empty(len(points), np.int32)
    for block in _blocks(points, faces, cut):
        inside = faces[block]
        seen[inside] = True
        used = np.flatnonzero(seen)
        seen[used] = False
        place[used] = np.arange(len(used), dtype=np.int32)
        fewer, kept = fast_simplification.simplify(
            points[used], place[inside], target_count=max(int(share * len(block)), 4), preserve_border=True
        )
        corners.append(kept.reshape(-1, 3).astype(np.int32) + sum(len(f) for f in found))
        found.append(fewer.astype(np.float32))
    points = np.concatenate(found)
    used_points, faces = _used(weld(points)[np.concatenate(corners)], len(points))
    return (points if used_points is None else points[used_points]), faces


def _blocks(points: Points, faces: Faces, cut: float) -> Iterator[NDArray[np.int32]]:
    """Numbers of faces, up to ``_BLOCK`` that lie together at a time: cut across the longer side again and again."""
    first = np.ascontiguousarray(faces[:, 0])
    stack = [np.arange(len(faces), dtype=np.int32)]
    while stack:
        block = stack.pop()
        if len(block) <= _BLOCK:
            yield block
            continue
        some = points[first[block[:: len(block) // 1000]]]
        axis = int((some.max(0) - some.min(0)).argmax())
        part = int(cut * len(block))
        order = np.argpartition(points[first[block], axis], part).astype(np.int32)
        stack += [block[order[part:]], block[order[:part]]]
