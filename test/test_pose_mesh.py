"""Mesh loading: formats, units, origins, colours, and what is said of meshes that cannot be used."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial.distance import pdist

from rfdetr_foundationpose.meshes import decimation, scene
from rfdetr_foundationpose.meshes.diameter import largest_distance
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pose.mesh import MeshError, load_object, read_object
from support.pose_scenes import object_of, textured_box


def spec(path: Path, **more) -> ObjectSpec:
    return ObjectSpec(name="thing", mesh=path, **more)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".stl"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"box{suffix}"
    textured_box().export(path)
    item = load_object(spec(path))
    np.testing.assert_allclose(item.extents, [0.12, 0.08, 0.05], atol=1e-6)
    assert item.diameter == pytest.approx(np.linalg.norm([0.12, 0.08, 0.05]), abs=1e-6)
    assert item.arrays.faces.shape == (48, 3)
    if suffix == ".stl":
        assert item.color_source == "uniform grey"
        assert "rendered grey" in item.warnings[0]
    else:
        assert item.color_source == ("face colours" if suffix == ".ply" else "vertex colours")
        assert len(np.unique(item.arrays.colors.round(2), axis=0)) == 6


def test_texture_found_and_missing(tmp_path):
    visual = trimesh.visual.TextureVisuals(
        uv=np.random.default_rng(0).random((8, 2)), image=Image.fromarray(np.full((8, 8, 3), 90, np.uint8))
    )
    mesh = trimesh.creation.box((0.1, 0.1, 0.1))
    trimesh.Trimesh(mesh.vertices, mesh.faces, visual=visual, process=False).export(tmp_path / "box.obj")
    item = load_object(spec(tmp_path / "box.obj"))
    assert item.color_source == "texture"
    assert item.arrays.texture is not None
    assert (item.arrays.texture == 90).all()
    assert not item.warnings
    assert item.description == (
        f"object thing: {tmp_path / 'box.obj'}: 8 vertices, 12 faces, 0.1 x 0.1 x 0.1 m; colour: texture material_0.png (8 x 8)"
    )
    for image in (*tmp_path.glob("*.png"), *tmp_path.glob("*.jp*g")):
        image.unlink()
    bare = load_object(spec(tmp_path / "box.obj"))
    assert bare.color_source == "uniform grey" and "texture" in bare.warnings[0] and "not found" in bare.warnings[0]
    assert load_object(spec(tmp_path / "box.obj", color=(255, 0, 0))).color_source == "uniform colour"


def test_millimetres_are_noticed_and_scaled(tmp_path, caplog):
    textured_box().apply_scale(1000).export(tmp_path / "mm.ply")
    with pytest.raises(MeshError, match=r"120 x 80 x 50 m; that looks like millimetres. Set scale: 0.001"):
        load_object(spec(tmp_path / "mm.ply"))
    assert load_object(spec(tmp_path / "mm.ply", scale=0.001)).diameter == pytest.approx(0.1526, abs=1e-3)
    with caplog.at_level(logging.INFO, "rfdetr_foundationpose"):
        caplog.clear()
        load_object(spec(tmp_path / "mm.ply", scale=1e-6))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert "is its unit right" in caplog.messages[1]


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


def sphere(subdivisions: int = 3) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.05)


def outward(item) -> np.ndarray:
    """Cosine between each normal and the direction from the middle."""
    v = item.arrays.vertices
    return (item.arrays.normals * v).sum(1) / np.linalg.norm(v, axis=1)


def test_faces_of_any_winding_are_turned_outwards():
    mesh = sphere()
    some = np.random.default_rng(1).random(len(mesh.faces)) < 0.4
    mixed = np.where(some[:, None], mesh.faces[:, ::-1], mesh.faces)
    for faces in (mesh.faces, mesh.faces[:, ::-1], mixed, np.concatenate([mesh.faces, mesh.faces[:, ::-1]])):
        item = object_of(trimesh.Trimesh(mesh.vertices, faces, process=False))
        assert item.arrays.faces.shape == mesh.faces.shape
        assert outward(item).min() > 0.99


def test_open_parts_are_wound_as_the_closed_ones_of_their_file():
    ball = sphere()
    flag = trimesh.Trimesh(
        [[0, 0, 0.05], [0.1, 0, 0.05], [0.1, 0, 0.1], [0, 0, 0.1]], [[0, 1, 2], [0, 2, 3]], process=False
    )
    right = trimesh.util.concatenate([ball, flag])
    inside_out = right.copy()
    inside_out.invert()
    for mesh in (right, inside_out):
        item = object_of(mesh)
        np.testing.assert_array_equal(np.sort(item.arrays.faces, axis=1), np.sort(right.faces, axis=1))
        a, b, c = (item.arrays.vertices[item.arrays.faces[-1, i]] for i in range(3))
        assert np.cross(b - a, c - a)[1] < 0, "the flag keeps the side that the file gave it"


def test_a_second_side_with_vertices_of_its_own_is_dropped():
    mesh = sphere()
    both = trimesh.util.concatenate([mesh, trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)])
    item = object_of(both)
    assert len(item.arrays.vertices) == len(mesh.vertices) and outward(item).min() > 0.99


def test_a_cavity_keeps_facing_inwards_and_an_inverted_part_does_not():
    shell, hole = sphere(), sphere()
    hole.apply_scale(0.8)
    hole.invert()
    item = object_of(trimesh.util.concatenate([shell, hole]))
    inner = np.linalg.norm(item.arrays.vertices, axis=1) < 0.045
    assert outward(item)[~inner].min() > 0.99 and outward(item)[inner].max() < -0.99
    apart = sphere()
    apart.invert()
    apart.apply_translation([0.2, 0, 0])
    item = object_of(trimesh.util.concatenate([shell, apart]))
    centers = np.where(item.arrays.vertices[:, :1] > 0, 0.1, -0.1) * [1, 0, 0]
    assert ((item.arrays.vertices - centers) * item.arrays.normals).sum(1).min() > 0.049


def test_normals_are_weighted_by_angle():
    mesh = trimesh.creation.box((0.1, 0.2, 0.3))
    np.testing.assert_allclose(object_of(mesh).arrays.normals, mesh.vertex_normals, atol=1e-6)


def test_what_no_rendering_shows_is_thinned_out(tmp_path, monkeypatch):
    monkeypatch.setattr(decimation, "MOST_FACES", 2000)
    monkeypatch.setattr(decimation.decimate, "__defaults__", (2000,))
    mesh = sphere(5)
    mesh.visual = trimesh.visual.ColorVisuals(
        mesh, vertex_colors=np.where(mesh.vertices[:, :1] > 0, [[200, 20, 20, 255]], [[20, 20, 200, 255]])
    )
    mesh.export(tmp_path / "ball.ply")
    item = load_object(spec(tmp_path / "ball.ply"))
    assert len(item.arrays.faces) <= 2000 and item.diameter == pytest.approx(0.1, rel=2e-3)
    assert "10242 vertices, 20480 faces (more than a rendering shows: thinned out to 2000 faces)" in item.description
    right = item.arrays.vertices[:, 0] > 0.005
    np.testing.assert_allclose(item.arrays.colors[right] * 255, np.tile([200, 20, 20], (right.sum(), 1)), atol=1)
    np.testing.assert_allclose(np.linalg.norm(item.arrays.vertices, axis=1), 0.05, rtol=1.5e-2)


def test_thinning_out_in_blocks_leaves_no_seams(monkeypatch):
    monkeypatch.setattr(decimation, "_BLOCK", 3000)
    mesh = sphere(5)
    points, faces = decimation._simplified(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), 2000)
    thin = trimesh.Trimesh(points, faces, process=False)
    assert 1990 <= len(faces) <= 2000 and thin.is_watertight and thin.is_winding_consistent
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.05, rtol=2e-2)


def test_a_picture_thinned_out_stays_where_it_is():
    mesh = sphere(4)
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 3, axis=2)
    uv = np.stack([mesh.vertices[:, 0] * 9 + 0.5, mesh.vertices[:, 1]], 1)
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, image=Image.fromarray(ramp))
    thin = decimation.decimate(scene.from_trimesh(mesh), 1500)
    np.testing.assert_allclose(thin.colors[:, 0], thin.vertices[:, 0] * 9 + 0.5, atol=0.06)
    assert thin.surfaces[0].kind == "texture"


def test_largest_distance_of_many_points():
    points = np.random.default_rng(3).normal(size=(30_000, 3))
    points *= 0.1 / np.linalg.norm(points, axis=1, keepdims=True)
    points[17], points[4242] = [0.100002, 0, 0], [-0.100001, 0, 0]
    assert largest_distance(points) == pytest.approx(0.200003, abs=1e-9)
    assert largest_distance(points[:100]) == pytest.approx(pdist(points[:100]).max())


@pytest.mark.parametrize("name", ["m.obj", "m.ply", "m.off", "m.stl"])
def test_a_scan_in_map_coordinates(tmp_path, name):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
    points = ball.vertices + MAP
    rows = [" ".join(f"{v:.6f}" for v in p) for p in points]
    faces = [" ".join(map(str, f)) for f in ball.faces]
    many = f"{len(rows)} {len(faces)}"
    ply = (
        f"ply\nformat ascii 1.0\nelement vertex {len(rows)}\nproperty double x\nproperty double y\nproperty double z\n"
    )
    text = {
        "m.obj": "".join(f"v {r}\n" for r in rows) + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in ball.faces),
        "m.ply": f"{ply}element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
        + "\n".join([*rows, *(f"3 {f}" for f in faces)]),
        "m.off": "\n".join(["OFF", f"{many} 0", *rows, *(f"3 {f}" for f in faces)]),
        "m.stl": "solid m\n"
        + "".join(
            "facet normal 0 0 0\nouter loop\n" + "".join(f"vertex {rows[i]}\n" for i in f) + "endloop\nendfacet\n"
            for f in ball.faces
        ),
    }[name]
    (tmp_path / name).write_text(text)
    model = read_object(ObjectSpec("ball", tmp_path / name))
    assert model.diameter == pytest.approx(0.1, abs=2e-4) and len(model.arrays.faces) == len(ball.faces)
    np.testing.assert_allclose(model.center, MAP, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(model.arrays.vertices, axis=1), 0.05, atol=1e-4)
    assert not any("damaged" in w for w in model.warnings)


def test_a_shape_that_32_bits_damaged_is_told(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
    ball.apply_translation(MAP)
    ball.export(tmp_path / "m.glb")
    model = read_object(ObjectSpec("ball", tmp_path / "m.glb"))
    assert any(
        "5.451e+06 m from its origin, where its 32-bit coordinates have steps of 0.5 m" in w for w in model.warnings
    )


MAP = np.array([456789.123, 5432100.456, 123.4])
"""Metres of UTM, as photogrammetry exports them."""


@pytest.mark.parametrize("suffix", [".off", ".3mf"])
def test_what_trimesh_writes(tmp_path, suffix):
    pytest.importorskip("lxml") if suffix == ".3mf" else None
    path = tmp_path / f"ball{suffix}"
    sphere().export(path)
    assert load_object(spec(path)).diameter == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.glb", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer.*git lfs pull"),
        ("a.obj", b"<!DOCTYPE html><html>", "web page"),
        ("a.ply", b"", "it is empty"),
        ("a.fbx", b"Kaydara FBX Binary  \0", r"\.fbx is not read; Blender"),
        ("a.step", b"ISO-10303-21;", "CAD program"),
        ("a.igs", b"igs", "CAD program"),
        ("a.obj", b"ISO-10303-21;", "it is STEP, which is not read; a CAD program"),
        ("a.stl", b"PXR-USDC", "it is USD, which is not read; name it .usd"),
        ("a.msh", b"$MeshFormat", "Gmsh or FreeCAD exports its surface as STL"),
        ("a.mtl", b"newmtl a", "material of an OBJ file; name that"),
        ("a.splat", b"x", "Gaussian splats, not a surface"),
        ("a.las", b"LASF", "it holds points"),
        ("a.zip", b"PK\x03\x04", "archive that cannot be unpacked"),
        ("a.ply.gz", b"\x1f\x8b", "unpack it"),
        (
            "a.ply",
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
            b"property float f_dc_0\nend_header\n0 0 0 1\n",
            "Gaussian splats",
        ),
        (
            "a.urdf",
            b"<robot><link><collision><geometry><mesh filename='b.stl'/></geometry></collision><visual><geometry>"
            b"<mesh filename='package://x/a.dae' scale='0.001 0.001 0.001'/></geometry></visual></link></robot>",
            "name the one that it shows: package://x/a.dae with --scale 0.001$",
        ),
        (
            "model.sdf",
            b"<?xml version='1.0'?><sdf><model><link><visual><geometry><mesh><uri>model://x/a.dae</uri></mesh></geometry>"
            b"</visual></link></model></sdf>",
            "name the one that it shows: model://x/a.dae$",
        ),
        ("a.xyzzy", b"0 0 0", "'?.xyzzy'? is not read; export it as GLB"),
        ("a.stl", b"solid nothing\nendsolid\n", "no faces"),
    ],
)
def test_files_that_are_no_mesh_are_told_apart(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MeshError, match=words):
        load_object(spec(tmp_path / name))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ("google_16k/nontextured.ply", "google_16k/textured.obj", "x_collision.glb"),
            "in it: google_16k/textured.obj, ",
        ),
        (("model.sdf", "meshes/a.dae"), "model.sdf in it: it describes a model and names no mesh"),
        (("readme.txt",), "is a folder without a mesh"),
        ([f"{i}.stl" for i in range(7)], "0.stl, 1.stl, 2.stl, 3.stl, 4.stl and 2 more"),
    ],
)
def test_a_folder_is_told_with_the_meshes_in_it(tmp_path, names, words):
    for name in names:
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text("x")
    with pytest.raises(MeshError, match=words):
        load_object(spec(tmp_path / "model"))


def test_the_only_mesh_of_an_archive_is_read_with_its_texture(tmp_path):
    (tmp_path / "made").mkdir()
    textured_box().export(tmp_path / "made" / "a.obj")
    archive = Path(shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path / "made"))
    plain, packed = load_object(spec(tmp_path / "made" / "a.obj")), load_object(spec(archive))
    np.testing.assert_array_equal(plain.arrays.colors, packed.arrays.colors)
    assert plain.color_source == packed.color_source != "uniform grey"
    np.testing.assert_array_equal(plain.arrays.vertices, packed.arrays.vertices)
    sphere().export(tmp_path / "made" / "a_collision.stl")
    archive = Path(shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path / "made"))
    assert load_object(spec(archive)).diameter == plain.diameter
    sphere().export(tmp_path / "made" / "b.stl")
    archive = Path(shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path / "made"))
    with pytest.raises(MeshError, match=r"archive with 2 meshes \(a.obj, b.stl\); unpack it"):
        load_object(spec(archive))


def test_the_reader_follows_the_content_of_glb_and_ply(tmp_path):
    textured_box().export(tmp_path / "a.glb")
    (tmp_path / "a.obj").write_bytes((tmp_path / "a.glb").read_bytes())
    assert load_object(spec(tmp_path / "a.obj")).arrays.faces.shape == (48, 3)


def test_loading_a_mesh_imports_no_torch():
    code = "import sys, rfdetr_foundationpose.pose.mesh; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_whoever_loads_a_mesh_may_take_its_lines(tmp_path, caplog):
    sphere().export(tmp_path / "ball.ply")
    lines: list[str] = []
    with caplog.at_level("INFO"):
        item = load_object(spec(tmp_path / "ball.ply"), lines.append)
    assert lines == [item.description, *item.warnings] and len(lines) == 2 and not caplog.records
    with caplog.at_level("INFO"):
        load_object(spec(tmp_path / "ball.ply"))
    assert [r.getMessage() for r in caplog.records] == lines
