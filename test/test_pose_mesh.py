"""Mesh loading: formats, units, origins, colours, and what is said of meshes that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pose.mesh import MeshError, load_object
from support.pose_scenes import object_of, textured_box


def spec(path: Path, **more) -> ObjectSpec:
    return ObjectSpec(name="thing", mesh=path, **more)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".stl"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"box{suffix}"
    textured_box().export(path)
    said: list[str] = []
    item = load_object(spec(path), said.append)
    np.testing.assert_allclose(item.extents, [0.12, 0.08, 0.05], atol=1e-6)
    assert item.diameter == pytest.approx(np.linalg.norm([0.12, 0.08, 0.05]), abs=1e-6)
    assert item.arrays.faces.shape == (48, 3)
    if suffix == ".stl":
        assert item.color_source == "uniform grey"
        assert "rendered grey" in said[0]
    else:
        assert item.color_source == "vertex colours"
        assert len(np.unique(item.arrays.colors.round(2), axis=0)) == 6


def test_texture_found_and_missing(tmp_path):
    visual = trimesh.visual.TextureVisuals(
        uv=np.random.default_rng(0).random((8, 2)), image=Image.fromarray(np.full((8, 8, 3), 90, np.uint8))
    )
    mesh = trimesh.creation.box((0.1, 0.1, 0.1))
    trimesh.Trimesh(mesh.vertices, mesh.faces, visual=visual, process=False).export(tmp_path / "box.obj")
    said: list[str] = []
    item = load_object(spec(tmp_path / "box.obj"), said.append)
    assert item.color_source == "texture"
    assert item.arrays.texture is not None
    assert (item.arrays.texture == 90).all()
    assert not said
    for image in (*tmp_path.glob("*.png"), *tmp_path.glob("*.jp*g")):
        image.unlink()
    assert load_object(spec(tmp_path / "box.obj"), said.append).color_source == "uniform grey"
    assert "texture" in said[0]
    assert "not found" in said[0]
    assert load_object(spec(tmp_path / "box.obj", color=(255, 0, 0)), said.append).color_source == "uniform colour"


def test_millimetres_are_noticed_and_scaled(tmp_path):
    textured_box().apply_scale(1000).export(tmp_path / "mm.ply")
    with pytest.raises(MeshError, match=r"120 x 80 x 50 m; that looks like millimetres. Set scale: 0.001"):
        load_object(spec(tmp_path / "mm.ply"))
    assert load_object(spec(tmp_path / "mm.ply", scale=0.001)).diameter == pytest.approx(0.1526, abs=1e-3)
    said: list[str] = []
    load_object(spec(tmp_path / "mm.ply", scale=1e-6), said.append)
    assert "is its unit right" in said[0]


def test_meshes_that_cannot_be_used(tmp_path):
    with pytest.raises(MeshError, match="does not exist"):
        load_object(spec(tmp_path / "none.obj"))
    (tmp_path / "junk.ply").write_bytes(b"ply\nnot really")
    with pytest.raises(MeshError, match="cannot be read"):
        load_object(spec(tmp_path / "junk.ply"))
    trimesh.PointCloud(np.random.default_rng(0).random((10, 3))).export(tmp_path / "cloud.ply")
    with pytest.raises(MeshError, match=r"no faces|cannot be read"):
        load_object(spec(tmp_path / "cloud.ply"))
    broken = textured_box()
    broken.vertices[3] = np.nan
    with pytest.raises(MeshError, match="not finite"):
        object_of(broken)


def test_origin_does_not_matter_inside():
    near, far = object_of(textured_box()), object_of(textured_box((3.0, -1.0, 0.5)))
    np.testing.assert_allclose(near.arrays.vertices, far.arrays.vertices, atol=1e-6)
    assert near.diameter == pytest.approx(far.diameter)
    T = trimesh.transformations.random_rotation_matrix()
    T[:3, 3] = [0.1, 0.2, 0.9]
    np.testing.assert_allclose(far.from_centered(far.to_centered(T)), T, atol=1e-12)
    point = np.array([3.0, -1.0, 0.5, 1.0])
    np.testing.assert_allclose(T @ point, far.to_centered(T) @ [0, 0, 0, 1], atol=1e-9)


def test_diameter_is_exact_for_curved_and_flat_meshes():
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.07)
    assert object_of(mesh).diameter == pytest.approx(0.14, abs=1e-6)
    flat = trimesh.Trimesh([[0, 0, 0], [0.3, 0, 0], [0.3, 0.4, 0], [0, 0.4, 0]], [[0, 1, 2], [0, 2, 3]])
    assert object_of(flat).diameter == pytest.approx(0.5)
