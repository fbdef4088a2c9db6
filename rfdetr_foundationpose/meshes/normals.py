"""Vertex normals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .raw import RawMesh

_AT_ONCE = 1 << 16
"""Faces whose angles are held at a time."""


def split(mesh: RawMesh, key: NDArray[np.integer]) -> None:
    """Make every vertex as many as its corners have different ``key`` (F, 3), non-negative."""
    if mesh.uv is not None and mesh.uv_index is None:
        mesh.uv_index = mesh.faces
    if mesh.normals is not None and mesh.normal_index is None:
        mesh.normal_index = mesh.faces
    pair = mesh.faces.astype(np.int64) * (int(key.max(initial=0)) + 1) + key
    unique, first, inverse = np.unique(pair.reshape(-1), return_index=True, return_inverse=True)
    vertex = mesh.faces.reshape(-1)[first]
    mesh.vertices = mesh.vertices[vertex]
    if mesh.colors is not None:
        mesh.colors = mesh.colors[vertex]
    mesh.faces = inverse.reshape(-1, 3).astype(np.int32)
    assert len(unique) == len(vertex)


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    """(V, 3) unit normals, faces weighted by their angle at the vertex, as trimesh does, whose normals the official
    FoundationPose renders with; 0 where all faces of a vertex have no area."""
    result = np.zeros((len(vertices), 3))
    for first in range(0, len(faces), _AT_ONCE):
        some = faces[first : first + _AT_ONCE]
        a, b, c = (vertices[some[:, i]].astype(np.float64) for i in range(3))
        edges = [b - a, c - b, a - c]
        lengths = [np.maximum(np.sqrt(np.einsum("fk,fk->f", e, e)), 1e-300) for e in edges]
        normal = np.cross(edges[0], edges[1])
        size = np.sqrt(np.einsum("fk,fk->f", normal, normal))
        normal /= np.where(size > 0, size, 1)[:, None]
        for i in range(3):
            out, back = edges[i], edges[i - 1]
            cosine = -np.einsum("fk,fk->f", out, back) / (lengths[i] * lengths[i - 1])
            angle = np.arccos(cosine.clip(-1, 1))
            for k in range(3):
                result[:, k] += np.bincount(some[:, i], normal[:, k] * angle, len(vertices))
    return result / _length(result)


def _length(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > 0, length, 1)


def take_normals(mesh: RawMesh) -> NDArray[np.float32]:
    """(V, 3) unit normals: the file's where it has them, turned to the side that the faces face, else computed.

    Splits vertices that the file gives several normals, as at the edges of a box.
    """
    given = mesh.normals
    if given is None:
        return vertex_normals(mesh.vertices, mesh.faces).astype(np.float32)
    if mesh.normal_index is not None and not np.array_equal(mesh.normal_index, mesh.faces):
        index = mesh.normal_index
        split(mesh, index)
        at = np.zeros(len(mesh.vertices), np.int64)
        at[mesh.faces.reshape(-1)] = index.reshape(-1)
        given = given[at]
    computed = vertex_normals(mesh.vertices, mesh.faces)
    given = np.nan_to_num(np.asarray(given, np.float64), posinf=0, neginf=0)
    given = given / _length(given)
    along = np.einsum("vk,vk->v", given, computed)[:, None]
    return np.where(np.abs(along) < 0.1, computed, np.sign(along) * given).astype(np.float32)
