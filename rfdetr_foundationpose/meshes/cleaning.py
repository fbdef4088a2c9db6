"""Faces that are seen, once each, and that face outwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .raw import MeshError, RawMesh

Ints = NDArray[np.integer]
_AT_ONCE = 1 << 15


def drop_unusable(mesh: RawMesh) -> None:
    """Drop faces that are no triangle and second copies of faces, such as the back sides of double-sided meshes, and the
    vertices that no face uses. Raises MeshError where nothing is left or a vertex is not finite."""
    faces = mesh.faces
    if not np.isfinite(mesh.vertices).all():
        bad = ~np.isfinite(mesh.vertices).all(1)
        count = int(bad[faces].any(1).sum())
        if count:
            raise MeshError(f"it has {count} faces whose vertices are not finite numbers; repair or export it again")
    place = weld(mesh.vertices)
    at = placed(faces, place)
    usable = (at[:, 0] != at[:, 1]) & (at[:, 1] != at[:, 2]) & (at[:, 2] != at[:, 0])
    usable &= _first_of_same(at, mesh)
    del at
    mesh.keep_faces(usable)
    if not len(mesh.faces):
        raise MeshError("it has no faces of any area; export it as triangles")
    if mesh.smooth:
        mesh.faces = placed(mesh.faces, place)
    counted = np.zeros(len(mesh.vertices), bool)
    counted[mesh.faces.reshape(-1)] = True
    if not counted.all():
        if mesh.uv is not None and mesh.uv_index is None:
            mesh.uv_index = mesh.faces
        if mesh.normals is not None and mesh.normal_index is None:
            mesh.normal_index = mesh.faces
        mesh.faces = (np.cumsum(counted, dtype=np.int32) - 1)[mesh.faces]
        _keep_vertices(mesh, np.flatnonzero(counted))


def _keep_vertices(mesh: RawMesh, kept: Ints) -> None:
    mesh.vertices = mesh.vertices[kept]
    if mesh.colors is not None:
        mesh.colors = mesh.colors[kept]


def weld(points: NDArray[np.floating]) -> NDArray[np.int32]:
    """(V,) for each point the first one that has the same coordinates."""
    word = np.uint32 if points.dtype.itemsize == 4 else np.uint64
    key = np.zeros(len(points), np.uint64)
    for start in range(0, len(points), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        words = np.ascontiguousarray(points[some] + 0.0).view(word)  # -0 becomes 0
        for k in range(3):
            key[some] = (key[some] ^ words[:, k].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            key[some] ^= key[some] >> np.uint64(29)
    return _first_equal(key)


def placed(faces: NDArray[np.int32], place: NDArray[np.int32]) -> NDArray[np.int32]:
    """The faces with ``place``, of ``weld``, for each of their corners; the same array where no vertex has a second copy."""
    return faces if (place == np.arange(len(place), dtype=np.int32)).all() else place[faces]


def _first_equal(key: NDArray[np.uint64]) -> NDArray[np.int32]:
    """(N,) for each entry the first one that is equal."""
    ordered = np.sort(key)
    same = bool((ordered[1:] == ordered[:-1]).any())
    del ordered
    if not same:
        return np.arange(len(key), dtype=np.int32)
    order = np.argsort(key, kind="stable").astype(np.int32)
    ordered = key[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    del ordered
    first = np.empty(len(key), np.int32)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new, dtype=np.int32) - 1]
    return first


def _first_of_same(corners: NDArray[np.int32], mesh: RawMesh) -> NDArray[np.bool_]:
    """(F,) False for faces that another one covers: of those the one with an image stays, else the first."""
    key = np.zeros(len(corners), np.uint64)  # the order of the corners does not matter
    for start in range(0, len(corners), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        for k in range(3):
            mixed = corners[some, k].astype(np.uint64) + np.uint64(1)
            mixed *= np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(32)
            key[some] += mixed
    first = _first_equal(key)
    repeated = np.flatnonzero(first != np.arange(len(first), dtype=np.int32))
    kept = np.ones(len(first), bool)
    if not len(repeated):
        return kept
    kept[repeated] = False
    painted = np.array([s.texture is not None for s in mesh.surfaces])[mesh.surface_of_faces()]
    better = repeated[painted[repeated] & ~painted[first[repeated]]]
    kept[better], kept[first[better]] = True, False
    return kept


def face_outwards(mesh: RawMesh) -> int:
    """Turn faces so that neighbours agree and closed parts face outwards; returns how many were turned.

    A closed part inside another one, such as a cavity, keeps facing inwards.
    """
    at = placed(mesh.faces, weld(mesh.vertices))
    first, second, agree, closed = _neighbours(at)
    count = len(at)
    turned = np.zeros(count, bool)
    part = _parts(count, first, second)
    if not agree.all():
        # Two copies of each face, one for each winding: neighbours link the copies that agree.
        shift = np.where(agree, 0, count)
        left = np.concatenate([first, first + count])
        right = np.concatenate([second + shift, (second + count + shift) % (2 * count)])
        side = _parts(2 * count, left, right)
        plain, reverse = side[:count], side[count:]
        turned = plain > reverse  # one of the two, consistently; a Moebius strip, whose sides are one, stays
        area = _areas(mesh)
        parts = int(part.max()) + 1
        against = np.bincount(part, np.where(turned, area, 0), parts) > np.bincount(
            part, np.where(turned, 0, area), parts
        )
        turned ^= against[part] & (plain != reverse)
    turned ^= _inside_out(mesh, turned, part, closed)
    mesh.turn_faces(turned)
    return int(turned.sum())


def _neighbours(at: NDArray[np.int32]) -> tuple[Ints, Ints, NDArray[np.bool_], NDArray[np.bool_]]:
    """Pairs of faces that share an edge with no third, whether their windings agree, and (F,) faces without a free edge."""
    start, end = at.reshape(-1), np.roll(at, -1, axis=1).reshape(-1)
    key = np.minimum(start, end).astype(np.int64)
    key *= int(at.max()) + 1
    key += np.maximum(start, end)
    order = np.argsort(key, kind="stable").astype(np.int32)
    key = key[order]
    begins = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])).astype(np.int32)
    del key
    sizes = np.diff(begins, append=np.int32(len(order)))
    pairs = begins[sizes == 2]
    one, two = order[pairs], order[pairs + 1]
    free = np.zeros(len(at), bool)
    free[order[begins[sizes == 1]] // 3] = True
    return one // 3, two // 3, start[one] != start[two], ~free


def _parts(count: int, first: Ints, second: Ints) -> NDArray[np.int32]:
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int32)


def _areas(mesh: RawMesh) -> NDArray[np.float64]:
    """(F,) twice the area of each face."""
    area = np.empty(len(mesh.faces))
    for rows, a, b, c in _corners(mesh):
        area[rows] = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return area


def _corners(
    mesh: RawMesh,
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Rows of some faces and their three corners (n, 3), so many at a time that they stay in the processor's cache."""
    for first in range(0, len(mesh.faces), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        a, b, c = (mesh.vertices[mesh.faces[rows, i]].astype(np.float64) for i in range(3))
        yield rows, a, b, c


def _inside_out(
    mesh: RawMesh, turned: NDArray[np.bool_], part: NDArray[np.int32], closed: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(F,) True for the faces of closed parts that face inwards and are in no other, and for the open
    parts where these do, or where most of the closed ones do and nothing speaks against it."""
    middle = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
    flux = np.empty(len(mesh.faces))
    for rows, a, b, c in _corners(mesh):
        flux[rows] = np.einsum("fk,fk->f", np.cross(a - middle, b - middle), c - middle)
    flux[turned] *= -1
    parts = int(part.max()) + 1
    whole = np.bincount(part, ~closed, parts) == 0
    volume = np.bincount(part, flux, parts)
    inwards = whole & (volume < 0)
    if inwards.any():
        inwards &= ~_within_another(mesh, part, whole, inwards)
    rest = ~whole[part]
    if rest.any():
        reach = float(np.linalg.norm(mesh.vertices - middle, axis=1).max())
        area = _areas(mesh)
        outwards = float(flux[rest].sum()) / max(reach * float(area[rest].sum()), 1e-300)
        against = float(area[inwards[part]].sum()) > float(area[~inwards[part] & ~rest].sum())
        if outwards < -0.1 or (against and outwards < 0.1):  # in doubt the open parts are wound as the closed ones are
            return np.asarray(inwards[part] | rest)
    return np.asarray(inwards[part])


def _within_another(
    mesh: RawMesh, part: NDArray[np.int32], whole: NDArray[np.bool_], asked: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(parts,) whether each of the parts ``asked`` lies within the box of one of the 64 largest closed parts."""
    low, high = np.full((len(whole), 3), np.inf), np.full((len(whole), 3), -np.inf)
    for rows, *corners in _corners(mesh):
        for corner in corners:
            np.minimum.at(low, part[rows], corner)
            np.maximum.at(high, part[rows], corner)
    outer = np.flatnonzero(whole & (np.prod(high - low, axis=1) > 0))
    outer = outer[np.argsort(-np.prod(high[outer] - low[outer], axis=1))][:64]
    within = np.zeros(len(whole), bool)
    for p in np.flatnonzero(asked).tolist():
        within[p] = (((low[outer] <= low[p]) & (high[outer] >= high[p])).all(1) & (outer != p)).any()
    return within
