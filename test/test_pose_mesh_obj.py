"""OBJ and MTL as programs write them: polygons, indices, materials, images that are somewhere else."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rfdetr_foundationpose.pose.mesh import MeshError
from support.mesh_files import (
    BLUE,
    GREEN,
    LEFT,
    LEFT_FACE,
    RED,
    RIGHT,
    RIGHT_FACE,
    STRIP,
    color_at,
    load,
    obj,
    png,
    stripes,
)

BOTH = LEFT_FACE + RIGHT_FACE


def strip(path, mtl, body=f"usemtl A\n{BOTH}"):
    return load(obj(path, body, mtl))


@pytest.mark.parametrize(
    "statement",
    [
        "map_Kd -blendu on -s 1 1 1 -mm 0 1 deep/wood.png",
        "map_Kd -o 0.0 0.0 wood.png",
        "map_Kd wood.png # the bark",
        "\tmap_Kd\t\\\\server\\share\\wood.png",
        "map_Kd -s 2 wood.png",
        "map_Kd -texres 512 -clamp off WOOD.PNG",
        "map_Kd deep\\Wood.png",
        'map_Kd "D:\\scans\\mug 3\\deep\\wood.png"',
        "map_Kd /Users/ann/export/tex/wood.png",
        "map_kd ../export/textures/wood.png",
        "Kd 0.8 0.8 0.8\nmap_Ka wood.png",
        "map_Kd missing.png\nmap_Ke wood.png",
    ],
)
def test_images_that_a_map_statement_means(tmp_path, statement):
    (tmp_path / "textures").mkdir()
    png(tmp_path / "textures" / "wood.png", RED)
    (tmp_path / "textures" / "deep").mkdir()
    png(tmp_path / "textures" / "deep" / "wood.png", RED)
    item, said = strip(tmp_path / "m.obj", f"newmtl A\n{statement}\n")
    assert item.color_source == "texture"
    assert color_at(item, *LEFT) == color_at(item, *RIGHT) == list(RED)
    assert "texture" in said[0]


def test_a_name_with_spaces_and_a_minus_sign(tmp_path):
    png(tmp_path / "-old my wood.png", GREEN)
    item, _ = strip(tmp_path / "m.obj", "newmtl A\nmap_Kd -old my wood.png\n")
    assert color_at(item, *LEFT) == list(GREEN)


def test_scale_and_offset_move_the_image(tmp_path):
    stripes(RED, GREEN, size=16).save(tmp_path / "two.png")
    item, _ = strip(tmp_path / "m.obj", "newmtl A\nmap_Kd -s 0.5 1 1 -o 0.5 0 0 two.png\n")
    assert [color_at(item, x, 0.1) for x in (0.01, 0.09)] == [list(GREEN)] * 2
    item, _ = strip(tmp_path / "m.obj", "newmtl A\nmap_Kd -clamp on -s 3 1 1 two.png\n")
    assert [color_at(item, x, 0.1) for x in (0.01, 0.025, 0.09)] == [list(RED), list(GREEN), list(GREEN)]


def test_what_was_looked_for_and_where_is_said(tmp_path):
    item, said = strip(tmp_path / "m.obj", "newmtl A\nKd 1 1 1\nmap_Kd C:\\scan\\wood.png\n")
    assert item.color_source == "uniform grey" and color_at(item, *LEFT) == [128] * 3
    words = "\n".join(said)
    assert "material 'A' (m.mtl: map_Kd)" in words and "C:\\\\scan\\\\wood.png" in words and str(tmp_path) in words


def test_an_image_that_is_none_is_named(tmp_path):
    (tmp_path / "wood.png").write_bytes(b"<html>404</html>" * 9)
    item, said = strip(tmp_path / "m.obj", "newmtl A\nmap_Kd wood.png\n")
    assert item.color_source == "uniform grey"
    assert "wood.png: it is no image of a known format" in "\n".join(said)


def test_colours_of_materials_are_their_own(tmp_path):
    mtl = "newmtl dark\nKd 0.05 0.05 0.05\nnewmtl blue\nKd 0.1 0.2 0.7\n"
    item, said = strip(tmp_path / "m.obj", mtl, f"usemtl dark\n{LEFT_FACE}usemtl blue\n{RIGHT_FACE}")
    assert color_at(item, *LEFT) == [13] * 3 and color_at(item, *RIGHT) == [26, 51, 178]
    assert "dark: Kd 13/13/13 of m.mtl; blue: Kd 26/51/178 of m.mtl" in said[0] and len(said) == 1


def test_a_coloured_kd_tints_its_image_and_a_grey_one_does_not(tmp_path):
    png(tmp_path / "white.png", (255, 255, 255))
    item, _ = strip(tmp_path / "m.obj", "newmtl A\nKd 1 0.2 0\nmap_Kd white.png\n")
    assert color_at(item, *LEFT) == [255, 51, 0]
    item, _ = strip(tmp_path / "m.obj", "newmtl A\nKd 0.3 0.3 0.3\nmap_Kd white.png\n")
    assert color_at(item, *LEFT) == [255] * 3


def test_materials_with_images_of_different_sizes_and_tiles(tmp_path):
    stripes(RED, GREEN, BLUE, size=30).save(tmp_path / "three.png")
    png(tmp_path / "blue.png", BLUE, 5)
    body = "vt -1 0\nvt 3 0\nvt 3 1\nvt -1 1\nusemtl A\nf 1/5 2/6 5/7 4/8\nusemtl B\nf 2/5 3/6 6/7 5/8\n"
    item, _ = strip(tmp_path / "m.obj", "newmtl A\nmap_Kd three.png\nnewmtl B\nmap_Kd blue.png\n", body)
    for turn in range(4):
        seen = [color_at(item, 0.1 * (turn + part) / 4, 0.11) for part in (0.1, 0.5, 0.9)]
        assert seen == [list(RED), list(GREEN), list(BLUE)]
    assert all(color_at(item, x, 0.07) == list(BLUE) for x in (0.11, 0.15, 0.19))


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("skin.<UDIM>.png", "skin.1001.png", "skin.1002.png"),
        ("skin_1001.png", "skin_1001.png", "skin_1002.png"),
        ("skin_<UVTILE>.png", "skin_u1_v1.png", "skin_u2_v1.png"),
        ("skin_u1_v1.png", "skin_u1_v1.png", "skin_u2_v1.png"),
    ],
)
def test_udim_tiles_are_images_of_their_own(tmp_path, name, first, second):
    png(tmp_path / first, RED)
    png(tmp_path / second, GREEN)
    body = "vt 1 0\nvt 2 0\nvt 2 1\nvt 1 1\nusemtl A\n" + LEFT_FACE + "f 2/5 3/6 6/7 5/8\n"
    item, _ = strip(tmp_path / "m.obj", f"newmtl A\nmap_Kd {name}\n", body)
    assert color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == list(GREEN)


def test_a_number_in_a_name_is_no_tile_unless_its_neighbours_are_there(tmp_path):
    png(tmp_path / "scan 1875.png", RED)
    body = "vt 4 0\nvt 5 0\nvt 5 1\nvt 4 1\nusemtl A\n" + LEFT_FACE + "f 2/5 3/6 6/7 5/8\n"
    item, said = strip(tmp_path / "m.obj", "newmtl A\nmap_Kd scan 1875.png\n", body)
    assert color_at(item, *LEFT) == color_at(item, *RIGHT) == list(RED) and len(said) == 1


def test_faces_without_coordinates_beside_textured_ones(tmp_path):
    png(tmp_path / "red.png", RED)
    mtl = "newmtl A\nKd 0 0 0.5\nmap_Kd red.png\n"
    item, _ = strip(tmp_path / "m.obj", mtl, f"usemtl A\n{LEFT_FACE}f 2 3 6 5\n")
    assert color_at(item, *LEFT) == [0, 0, 20] and color_at(item, *RIGHT) == [0, 0, 128]


@pytest.mark.parametrize(
    "lines",
    [
        "f -6/-4 -5/-3 -2/-2 -3/-1\nf -5/-4 -4/-3 -1/-2 -2/-1\n",
        "f 1/1 2/2 5/3\nf 1/1 5/3 4/4\nf 2/1 3/2 6/3 5/4\n",
        "  f 1/1\t2/2 5/3 4/4 # left\n\tf 2/1 3/2 \\\n 6/3 5/4\n",
        "f 1 2 5 4\r\nf 2//1 3//1 6//1 5//1\r\n",
        "fo 1/1 2/2 5/3 4/4\nfo 2/1 3/2 6/3 5/4\n",
    ],
)
def test_forms_of_face_lines(tmp_path, lines):
    item, _ = load(obj(tmp_path / "m.obj", "vn 0 0 1\n" + lines))
    np.testing.assert_allclose(item.extents, [0.2, 0.2, 0])
    assert item.arrays.faces.shape == (4, 3) and len(item.arrays.vertices) == 6
    np.testing.assert_allclose(np.abs(item.arrays.normals), np.tile([0, 0, 1], (6, 1)), atol=1e-6)


def test_polygons_that_are_not_convex_keep_their_outline(tmp_path):
    ring = [(0, 0), (4, 0), (4, 3), (2, 1), (0, 3)]
    arrow = [(10, 0), (12, 4), (10, 3), (8, 4)]
    lines = [f"v {x} {y} 0" for x, y in ring + arrow] + ["f 1 2 3 4 5", "f 7 8 9 6"]
    (tmp_path / "m.obj").write_text("\n".join(lines))
    item, _ = load(tmp_path / "m.obj", scale=0.01)
    a, b, c = (item.arrays.vertices[item.arrays.faces[:, i]].astype(np.float64) for i in range(3))
    areas = np.cross(b - a, c - a)[:, 2] / 2
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(1e-4 * (8 + 6), rel=1e-5)


def test_vertex_colours_with_and_without_a_material(tmp_path):
    text = "".join(f"v {x} {y} 0 0.5 0.25 1.0\n" for x, y in ((0, 0), (0.1, 0), (0, 0.1)))
    (tmp_path / "m.obj").write_text("mtllib m.mtl\n" + text + "usemtl A\nf 1 2 3\n")
    (tmp_path / "m.mtl").write_text("newmtl A\nKd 1 1 1\n")
    item, _ = load(tmp_path / "m.obj")
    assert item.color_source == "vertex colours" and color_at(item, 0.02, 0.02) == [128, 64, 255]


def test_normals_of_the_file_keep_edges_sharp(tmp_path):
    lines = ["v 0 0 0", "v 1 0 0", "v 1 1 0", "v 0 1 0", "v 1 0 -1", "v 1 1 -1", "vn 0 0 1", "vn 2 0 0"]
    (tmp_path / "m.obj").write_text("\n".join([*lines, "f 1//1 2//1 3//1 4//1", "f 2//2 5//2 6//2 3//2"]))
    item, _ = load(tmp_path / "m.obj")
    assert len(item.arrays.vertices) == 8
    assert set(map(tuple, item.arrays.normals.round(5).tolist())) == {(0, 0, 1), (1, 0, 0)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v 0 0 0\nv 1 x 0\nv 1 1 0\nf 1 2 3\n", r"line 2 is damaged: 'v 1 x 0'"),
        ("v 0 0 0\nv 1 0\nv 1 1 0\nf 1 2 3\n", "line 2 has too few numbers for 'v'"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 9\n", "asks for v 9, but the file has 3; is it cut off"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 0 1 2\n", "index 0; OBJ counts from 1"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nf -1 -2 -7\n", "counts back to before the first vertex"),
        ("v 0 0 0\nv 1 0 0\nv 1 1 0\nl 1 2\n", "no faces"),
        ("v 0 0 0\nv 1 0 0\nv nan 1 0\nf 1 2 3\n", "not finite"),
        ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 1 2\n", "no faces of any area"),
    ],
)
def test_damage_is_named_by_its_line(tmp_path, text, words):
    (tmp_path / "m.obj").write_text(text)
    with pytest.raises(MeshError, match=words):
        load(tmp_path / "m.obj")


def test_text_of_two_bytes_a_letter(tmp_path):
    path = obj(tmp_path / "m.obj", LEFT_FACE)
    path.write_bytes(path.read_text().encode("utf-16"))
    assert load(path)[0].arrays.faces.shape == (2, 3)


def test_coordinates_that_are_not_there_are_told_and_the_shape_stays(tmp_path):
    item, said = load(obj(tmp_path / "m.obj", "f 1/7 2/2 5/3 4/4\n" + RIGHT_FACE))
    assert item.arrays.faces.shape == (4, 3)
    assert "ask for 'vt' lines that the file does not have (4)" in "\n".join(said)


def test_a_library_that_is_not_there_is_told_once(tmp_path):
    path = obj(tmp_path / "m.obj", "usemtl A\n" + LEFT_FACE, "newmtl A\n")
    path.with_suffix(".mtl").rename(tmp_path / "other.mtl")
    said = load(path)[1]
    assert len(said) == 2 and "its material library 'm.mtl' was not found" in said[1]


@pytest.mark.parametrize(
    ("extra", "right"),
    [("1 {} {} {}", RED), ("{} {} {} 1", RED), ("{} {} {} 0.25", RED), ("{} {} {}", RED)],
)
def test_vertex_colours_with_weight_or_alpha(tmp_path, extra, right):
    text = extra.format(*(f"{v / 255:.6f}" for v in RED))
    lines = "".join("v {:g} {:g} {:g} {}\n".format(*p, text) for p in STRIP)
    (tmp_path / "m.obj").write_text(lines + "f 1 2 5 4\nf 2 3 6 5\n")
    assert color_at(load(tmp_path / "m.obj")[0], *LEFT) == list(right)


def test_vertices_of_which_some_have_a_colour(tmp_path):
    text = " ".join(f"{v / 255:.6f}" for v in RED)
    own = [text, text, "", text, text, ""]
    lines = "".join("v {:g} {:g} {:g} {}\n".format(*p, e) for p, e in zip(STRIP, own, strict=True))
    (tmp_path / "m.obj").write_text(lines + "f 1 2 5 4\nf 2 3 6 5\n")
    item, said = load(tmp_path / "m.obj")
    assert color_at(item, *LEFT) == list(RED)
    assert any("2 of its 6 vertices have no colour" in line for line in said)


def test_faces_whose_vertices_have_no_colour_are_of_their_material(tmp_path):
    text = " ".join(f"{v / 255:.6f}" for v in RED)
    points = [*STRIP[[0, 1, 4, 3]], *STRIP[[1, 2, 5, 4]]]
    lines = "".join("v {:g} {:g} {:g} {}\n".format(*p, text if i < 4 else "") for i, p in enumerate(points))
    (tmp_path / "m.obj").write_text(f"mtllib m.mtl\n{lines}usemtl A\nf 1 2 3 4\nusemtl A\nf 5 6 7 8\n")
    (tmp_path / "m.mtl").write_text("newmtl A\nKd 0.2 0.4 0.6\n")
    item, said = load(tmp_path / "m.obj")
    assert color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == [51, 102, 153]
    assert not any("no colour" in line for line in said)


@pytest.mark.parametrize(
    "head",
    [
        "# Blender 4.5.15 LTS MTL File: 'None'\n# www.blender.org\n",
        "# Blender MTL File: 'a.blend'\n# Material Count: 1\n",
    ],
)
def test_blender_writes_linear_light(tmp_path, head):
    path = obj(tmp_path / "m.obj", f"usemtl A\n{BOTH}", f"{head}\nnewmtl A\nKd 0.05 0.2 0.8\n")
    item, said = load(path)
    assert color_at(item, *LEFT) == [63, 124, 231] and "Kd 63/124/231 of m.mtl, Blender's linear light" in said[0]
    path = obj(tmp_path / "m.obj", f"usemtl A\n{BOTH}", "# not of Blender MTL File\nnewmtl A\nKd 0.2 0.4 0.6\n")
    assert color_at(load(path)[0], *LEFT) == [51, 102, 153]


def test_white_that_an_exporter_filled_in_hides_no_material(tmp_path):
    path = obj(tmp_path / "m.obj", f"usemtl A\n{BOTH}", "newmtl A\nKd 0.2 0.4 0.6\n")
    path.write_text(re.sub(r"^(v .*)$", r"\1 1 1 1", path.read_text(), flags=re.MULTILINE))
    assert color_at(load(path)[0], *LEFT) == [51, 102, 153]


@pytest.mark.parametrize(
    "mtl",
    [
        b"newmtl A # the bark\nmap_Kd wood.png # seen from above\n",
        "newmtl A\r\nmap_Kd wood.png\r\n".encode("utf-16"),
        b"newmtl A\rmap_Kd wood.png\r",
        b"newmtl A\nmap_Kd file:wood.png\n",
        b"newmtl A\nmap_Kd file:///home/ann/wood.png\n",
    ],
)
def test_material_files_of_other_hands(tmp_path, mtl):
    png(tmp_path / "wood.png", RED)
    assert color_at(strip(tmp_path / "m.obj", mtl)[0], *LEFT) == list(RED)


@pytest.mark.parametrize(
    "line, color", [("Kd 200 30 30", (200, 30, 30)), ("Kd 1.2 0.0 0.0", (255, 0, 0)), ("Kd 0.4", (102, 102, 102))]
)
def test_plain_colours_beyond_one_are_bytes(tmp_path, line, color):
    """Some programs write 0..255, which clamped would be white; a little above 1 is only bright."""
    item, _ = strip(tmp_path / "m.obj", f"newmtl A\n{line}\n")
    assert color_at(item, *LEFT) == list(color)
