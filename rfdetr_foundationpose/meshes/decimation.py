"""Fewer faces, where a mesh has more than any rendering of it shows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .appearance import colors_at
from .cleaning import weld
from .raw import RawMesh, Surface

MOST_FACES = 200_000
"""A network sees an object over about 110 x 110 of 160 x 160 pixels: these are eight faces to each of them."""
_BLOCK = 125_000
"""Faces that are thinned out at once: the quadrics take 350 bytes for each."""
_FIRST = 1.25
"""How many times the faces wanted the blocks leave, so that the last pass still chooses among them all."""

Points = NDArray[np.float32]
Faces = NDArray[np.int32]


def decimate(mesh: RawMesh, most: int = MOST_FACES) -> RawMesh:
    """The same surface with about ``most`` faces; its colours become colours of the vertices, which lie as close as pixels.

    By fast-simplification (quadric edge collapse, of PyVista's makers), which trimesh uses for the same.
    """
    faces = weld(mesh.vertices)[mesh.faces]
    used, faces = _used(faces, len(mesh.vertices))
    middle = mesh.vertices[used].mean(0)
    points = (mesh.vertices[used] - middle).astype(np.float32)
    fewer, kept = _simplified(points, faces, most)
    result = RawMesh(fewer.astype(np.float64) + middle, kept, mesh.surfaces, notes=mesh.notes)
    if len(mesh.surfaces) > 1 or mesh.surfaces[0].texture is not None or mesh.surfaces[0].colored:
        corner = np.zeros(len(points), np.int32)
        corner[faces.reshape(-1)] = np.arange(faces.size, dtype=np.int32)
        del faces
        shown = corner[cKDTree(points).query(fewer)[1]]
        result.colors = colors_at(mesh, shown // 3, np.eye(3)[shown % 3]).astype(np.float32)
        kinds = " + ".join(dict.fromkeys(s.kind for s in mesh.surfaces))
        sources = "; ".join(dict.fromkeys(s.source for s in mesh.surfaces))
        result.surfaces = [Surface("", kinds, sources, colored=True)]
    return result


def _used(faces: Faces, vertices: int) -> tuple[NDArray[np.int64], Faces]:
    """The vertices that faces have, and the faces in their numbers."""
    seen = np.zeros(vertices, bool)
    seen[faces.reshape(-1)] = True
    return np.flatnonzero(seen), (np.cumsum(seen, dtype=np.int32) - 1)[faces]


def _simplified(points: Points, faces: Faces, most: int) -> tuple[Points, Faces]:
    """Points and about ``most`` faces: of large meshes block after block first, whose borders stay as they are, then of all."""
    import fast_simplification

    if len(faces) > 2 * _BLOCK:
        share = min(_FIRST * most / len(faces), 1.0)
        found: list[Points] = []
        corners: list[Faces] = []
        for block in _blocks(points, faces):
            used, inside = _used(faces[block], len(points))
            target = max(int(share * len(block)), 4)
            fewer, kept = fast_simplification.simplify(points[used], inside, target_count=target, preserve_border=True)
            corners.append(kept.reshape(-1, 3).astype(np.int32) + sum(len(f) for f in found))
            found.append(fewer.astype(np.float32))
        points = np.concatenate(found)
        used, faces = _used(weld(points)[np.concatenate(corners)], len(points))
        points = points[used]
    fewer, kept = fast_simplification.simplify(points, faces, target_count=most)
    return fewer.astype(np.float32), kept.reshape(-1, 3).astype(np.int32)


def _blocks(points: Points, faces: Faces) -> Iterator[NDArray[np.int32]]:
    """Numbers of faces, up to ``_BLOCK`` that lie together at a time: halved along the longer side again and again."""
    middles = points[faces[:, 0]]
    stack = [np.arange(len(faces), dtype=np.int32)]
    while stack:
        block = stack.pop()
        if len(block) <= _BLOCK:
            yield block
            continue
        axis = int(np.ptp(middles[block], axis=0).argmax())
        half = len(block) // 2
        order = np.argpartition(middles[block, axis], half)
        stack += [block[order[half:]], block[order[:half]]]
