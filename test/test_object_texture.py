"""A scanned surface with fewer triangles: its texture shows at every point what the surface showed there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from rfdetr_foundationpose.errors import UserError
from rfdetr_foundationpose.object_tools.board import BOARDS
from rfdetr_foundationpose.object_tools.fusion import Surface, View
from rfdetr_foundationpose.object_tools.scan import scan
from rfdetr_foundationpose.object_tools.texture import MOST_SIDE, TEXEL, _texels, textured, unwrapped
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pose.mesh import load_object
from rfdetr_foundationpose.types import CameraIntrinsics


def pattern(points):
    """A colour that changes slowly with the place."""
    return 128 + 100 * np.sin(points * (60, 45, 80) + (0.3, 1.0, 2.0))


def ball(radius=0.05, detail=5):
    mesh = trimesh.creation.icosphere(detail, radius)
    colours = np.c_[pattern(mesh.vertices), np.full(len(mesh.vertices), 255)].astype(np.uint8)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colours)
    return mesh


def sampled(arrays, faces, shares):
    """Colours where the renderer would take them: between texels."""
    picture = np.asarray(arrays.texture, float)
    height, width = picture.shape[:2]
    uv = np.einsum("nk,nkc->nc", shares, np.asarray(arrays.uv).reshape(-1, 3, 2)[faces])
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    i, j = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = (x - i)[:, None], (y - j)[:, None]
    pick = [[picture[np.clip(j + d, 0, height - 1), np.clip(i + e, 0, width - 1)] for e in (0, 1)] for d in (0, 1)]
    return (1 - b) * ((1 - a) * pick[0][0] + a * pick[0][1]) + b * ((1 - a) * pick[1][0] + a * pick[1][1])


@pytest.mark.parametrize("faces", [1501, 4000, 50_000])
def test_the_texture_has_the_surfaces_colours_through_a_file(tmp_path, faces):
    mesh = ball()
    made = textured(Surface(mesh, np.ones(len(mesh.vertices), np.int32)), [], 0.001, faces=faces)
    path = tmp_path / "ball.glb"
    made.export(path)
    model = load_object(ObjectSpec("ball", Path(path)))
    assert model.color_source == "texture"
    arrays = model.arrays
    assert (
        len(arrays.faces) <= faces
        and len(arrays.vertices) < len(arrays.faces)
        and max(arrays.texture.shape[:2]) <= MOST_SIDE
    )
    np.testing.assert_allclose(model.extents, 0.1, atol=5e-4)
    rng = np.random.default_rng(1)
    which = rng.integers(len(arrays.faces), size=4000)
    shares = rng.dirichlet((1, 1, 1), 4000)
    shares[:900] = np.eye(3)[rng.integers(3, size=900)]  # corners, where a neighbour's square would show
    points = np.einsum("nk,nkc->nc", shares, arrays.vertices[arrays.faces[which]].astype(float)) + model.center
    wrong = np.abs(sampled(arrays, which, shares) - pattern(points)).max(1)
    assert np.quantile(wrong, 0.99) < 12 and wrong.max() < 40
    # Outwards, and smooth: normals are those of the ball.
    normals = np.asarray(arrays.normals)[arrays.faces[which, 0]]
    ball_normals = arrays.vertices[arrays.faces[which, 0]] / 0.05
    assert ((normals * ball_normals).sum(1) > 0.97).mean() > 0.99


@pytest.mark.parametrize("size", [0.02, 2.0])
def test_charts_keep_apart_and_large_things_get_larger_texels(size):
    mesh = trimesh.creation.torus(size / 2, size / 5, 60, 40)
    which, corners, uv, (width, height) = unwrapped(mesh, TEXEL)
    assert max(width, height) <= MOST_SIDE
    np.testing.assert_array_equal(which[corners], mesh.faces)
    assert uv.min() >= 0 and uv.max() <= 1
    edges = uv[corners] * (width, height)
    areas = np.abs(np.linalg.det(edges[:, 1:] - edges[:, :1])) / 2
    texel = np.sqrt(mesh.area / areas.sum())
    assert texel < 1.2 * TEXEL if size < 0.1 else texel > TEXEL and areas.sum() > 0.4 * MOST_SIDE**2
    # Each chart is taken to its own colour: none shows beside it another's.
    parts = trimesh.Trimesh(np.c_[uv, np.zeros(len(uv))], corners, process=False)
    labels = trimesh.graph.connected_component_labels(parts.edges, node_count=len(uv))
    face, share = _texels(uv, corners, width, height, "cpu")
    np.testing.assert_allclose(share.sum(1), 1, atol=1e-5)
    owner = labels[corners[face][:, 0]].reshape(height, width)
    rng = np.random.default_rng(0)
    some = rng.integers(len(corners), size=4000)
    spots = np.einsum("nk,nkc->nc", rng.dirichlet((0.3, 0.3, 0.3), 4000), edges[some]) - 0.5
    i, j = np.floor(spots).astype(int).T
    mixed = [owner[np.clip(j + d, 0, height - 1), np.clip(i + e, 0, width - 1)] for d in (0, 1) for e in (0, 1)]
    assert (np.stack(mixed) == labels[corners[some][:, 0]]).all(0).mean() > 0.999


def test_a_missing_library_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "xatlas", None)
    with pytest.raises(UserError, match=r"pip install 'rfdetr_foundationpose\[scan\]'"):
        scan([iter(lambda: pytest.fail("a frame was read"), None)], BOARDS["a4"])


def test_what_a_view_saw_is_sharper_than_the_vertices():
    """A line of 4 mm on a plate whose vertices are 20 mm apart."""
    mesh = trimesh.creation.box((0.16, 0.16, 0.02)).subdivide_to_size(0.03)
    mesh.apply_translation((0, 0, -0.01))
    mesh.visual = trimesh.visual.ColorVisuals(
        mesh, vertex_colors=np.tile(np.uint8([90, 90, 90, 255]), (len(mesh.vertices), 1))
    )
    camera = CameraIntrinsics(500.0, 500.0, 159.5, 159.5, 320, 320)
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[2, 3] = 0.5
    rgb = np.full((320, 320, 3), 100, np.uint8)
    rgb[:, 158:162] = 220  # 1 mm a pixel
    view = View(rgb, np.full((320, 320), 0.5, np.float32), camera, T)
    made = textured(Surface(mesh, np.ones(len(mesh.vertices), np.int32)), [view], 0.001)
    picture = np.asarray(made.visual.material.baseColorTexture)
    assert (np.abs(picture.astype(int) - 220).max(2) < 12).sum() > 200
    assert (np.abs(picture.astype(int) - 100).max(2) < 12).sum() > 5000
