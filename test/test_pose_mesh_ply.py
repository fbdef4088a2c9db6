"""PLY and STL as programs write them."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from rfdetr_foundationpose.pose.mesh import MeshError
from support.mesh_files import BLUE, GREEN, LEFT, QUADS, RED, RIGHT, STRIP, color_at, load, png

XYZ = "property float x\nproperty float y\nproperty float z\n"
INDICES = "property list uchar int vertex_indices\n"
FACES = [(*QUADS[0],), (1, 2, 5), (1, 5, 4)]


def ply(path, vertex="", face="", comments="", rows=(), points=None, form="ascii"):
    """rows: text of the face rows; points: extra text of the vertex rows."""
    points = points or [""] * len(STRIP)
    head = f"ply\nformat {form} 1.0\n{comments}element vertex {len(STRIP)}\n{XYZ}{vertex}element face {len(rows)}\n{INDICES}{face}end_header\n"
    body = "".join("{:g} {:g} {:g} {}\n".format(*p, extra) for p, extra in zip(STRIP, points, strict=True))
    path.write_text(head + body + "".join(f"{r}\n" for r in rows))
    return path


PLAIN = [f"{len(f)} {' '.join(map(str, f))}" for f in FACES]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("counter", [("uchar", "B"), ("int", "i"), ("ushort", "H")])
def test_binary_with_lists_of_different_lengths(tmp_path, order, counter):
    form = "binary_little_endian" if order == "<" else "binary_big_endian"
    head = f"ply\nformat {form} 1.0\nelement vertex 6\nproperty double x\nproperty double y\nproperty double z\nelement face 3\nproperty list {counter[0]} uint vertex_index\nproperty ushort tag\nelement extra 2\nproperty list uchar float data\nend_header\n"
    body = b"".join(struct.pack(f"{order}3d", *p) for p in STRIP)
    body += b"".join(struct.pack(f"{order}{counter[1]}{len(f)}IH", len(f), *f, 7) for f in FACES)
    (tmp_path / "m.ply").write_bytes(head.encode() + body + b"\1" + b"\0" * 4 + b"\0")
    item, _ = load(tmp_path / "m.ply")
    assert item.arrays.faces.shape == (4, 3)
    np.testing.assert_allclose(item.extents, [0.2, 0.2, 0], atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("uchar", "40 50 200"),
        ("ushort", "10280 12850 51400"),
        ("float", "0.15686 0.19608 0.78431"),
        ("double", "40.0 50.0 200.0"),
    ],
)
def test_vertex_colours_of_every_type(tmp_path, kind, values):
    names = "".join(f"property {kind} {n}\n" for n in ("diffuse_red", "diffuse_green", "diffuse_blue"))
    item, said = load(ply(tmp_path / "m.ply", names, rows=PLAIN, points=[values] * 6))
    np.testing.assert_allclose(color_at(item, *RIGHT), BLUE, atol=1)
    assert item.color_source == "vertex colours" and len(said) == 1


def test_face_colours_stay_crisp_where_faces_share_vertices(tmp_path):
    colors = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    rows = [f"{r} {' '.join(map(str, c))}" for r, c in zip(PLAIN, (RED, GREEN, GREEN), strict=True)]
    item, _ = load(ply(tmp_path / "m.ply", face=colors, rows=rows))
    assert item.color_source == "face colours" and len(item.arrays.vertices) == 8
    for x in (0.001, 0.05, 0.099):
        assert color_at(item, x, 0.11) == list(RED) and color_at(item, x + 0.1, 0.11) == list(GREEN)
    np.testing.assert_allclose(item.arrays.normals, np.tile([0, 0, 1], (8, 1)), atol=1e-6)


def test_images_by_number_and_faces_without_one(tmp_path):
    png(tmp_path / "a b.png", RED)
    png(tmp_path / "C.PNG", GREEN)
    comments = "comment VCGLIB generated\ncomment TextureFile a b.png\ncomment TextureFile c.png\n"
    face = "property list uchar float texcoord\nproperty int texnumber\n"
    quad, tri = "8 0 0 1 0 1 1 0 1", "6 0 0 1 0 1 1"
    rows = [f"{PLAIN[0]} {quad} 0", f"{PLAIN[1]} {tri} 1", f"{PLAIN[2]} 0 -1"]
    item, _ = load(ply(tmp_path / "m.ply", face=face, comments=comments, rows=rows))
    assert color_at(item, *LEFT) == list(RED) and color_at(item, 0.17, 0.04) == list(GREEN)
    assert color_at(item, 0.12, 0.15) == [128] * 3
    assert item.color_source == "uniform grey + texture"


@pytest.mark.parametrize("names", [("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("S", "T"), ("tu1", "tv1")])
def test_coordinates_of_vertices(tmp_path, names):
    png(tmp_path / "a.png", RED)
    vertex = "".join(f"property float {n}\n" for n in names)
    path = ply(tmp_path / "m.ply", vertex, comments="comment TextureFile a.png\n", rows=PLAIN, points=["0.5 0.5"] * 6)
    item, _ = load(path)
    assert item.color_source == "texture" and color_at(item, *LEFT) == list(RED)
    (tmp_path / "a.png").unlink()
    item, said = load(path)
    assert item.color_source == "uniform grey" and f"its texture 'a.png' was not found (looked in {tmp_path}" in said[1]


@pytest.mark.parametrize(
    ("kind", "names", "values"),
    [
        ("ushort", ("red", "green", "blue"), RED),
        ("int", ("red", "green", "blue"), [257 * v for v in RED]),
        ("char", ("red", "green", "blue"), [v - 256 * (v > 127) for v in RED]),
        ("uchar", ("ambient_red", "ambient_green", "ambient_blue"), RED),
        ("uchar", ("Red", "Green", "Blue"), RED),
    ],
)
def test_colours_of_unusual_types_and_names(tmp_path, kind, names, values):
    columns = "".join(f"property {kind} {n}\n" for n in names)
    text = " ".join(map(str, values))
    item, _ = load(ply(tmp_path / "v.ply", columns, rows=PLAIN, points=[text] * 6))
    assert color_at(item, *LEFT) == list(RED)
    item, _ = load(ply(tmp_path / "f.ply", face=columns, rows=[f"{r} {text}" for r in PLAIN]))
    assert color_at(item, *LEFT) == list(RED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vertex_indices", "vertex_indexes"),
        ("vertex_indices", "vertices"),
        ("property", "PROPERTY"),
        ("element", "Element"),
    ],
)
def test_headers_of_other_spelling(tmp_path, old, new):
    path = ply(tmp_path / "m.ply", rows=PLAIN)
    path.write_text(path.read_text().replace(old, new))
    assert load(path)[0].arrays.faces.shape == (4, 3)


def test_numbers_that_are_not_a_row_a_line(tmp_path):
    path = ply(tmp_path / "m.ply", rows=PLAIN)
    head, _, body = path.read_text().partition("end_header\n")
    path.write_text(head + "end_header\n" + " ".join(body.split()))
    assert load(path)[0].arrays.faces.shape == (4, 3)
    path.write_text(head + "end_header\n" + " ".join(body.split()[:-2]))
    with pytest.raises(MeshError, match="is it cut off"):
        load(path)


def test_images_of_photogrammetry_that_have_elements_of_their_own(tmp_path):
    png(tmp_path / "a.png", RED)
    png(tmp_path / "b.png", GREEN)
    files = "comment TextureFile a.png\ncomment TextureFile b.png\n"
    path = ply(tmp_path / "m.ply", comments=files, rows=PLAIN)
    more = "element multi_texture_vertex 4\nproperty uchar tx\nproperty float u\nproperty float v\nelement multi_texture_face 2\nproperty uchar tx\nproperty uint tn\nproperty list uchar int texture_vertex_indices\n"
    text = path.read_text().replace("end_header\n", f"{more}end_header\n")
    path.write_text(text + "0 0 0\n0 1 0\n0 1 1\n0 0 1\n1 1 3 0 1 2\n0 0 4 0 1 2 3\n")
    item, _ = load(path)
    assert color_at(item, *LEFT) == list(RED) and color_at(item, 0.17, 0.04) == list(GREEN)
    assert color_at(item, 0.12, 0.15) == [128] * 3


def test_faces_of_one_image_that_have_none(tmp_path):
    png(tmp_path / "a.png", RED)
    face = "property list uchar float texcoord\nproperty int texnumber\n"
    rows = [f"{r} {2 * int(r[0])} {'0.5 ' * 2 * int(r[0])}{n}" for r, n in zip(PLAIN, (0, -1, -1), strict=True)]
    item, _ = load(ply(tmp_path / "m.ply", face=face, comments="comment TextureFile a.png\n", rows=rows))
    assert color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == [128] * 3


def test_triangle_strips(tmp_path):
    head = f"ply\nformat ascii 1.0\nelement vertex 6\n{XYZ}element tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    body = "".join("{:g} {:g} {:g}\n".format(*p) for p in STRIP) + "9 0 1 3 4 -1 1 2 4 5\n"
    (tmp_path / "m.ply").write_text(head + body)
    item, _ = load(tmp_path / "m.ply")
    assert item.arrays.faces.shape == (4, 3) and (item.arrays.normals[:, 2] > 0.99).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[: len(t) - 20], "ends within its 3 rows of 'face'"),
        (lambda t: t.replace("1 2 5", "1 2 55"), "asks for vertex 55, but the file has 6"),
        (lambda t: t.replace("0.2 0 0", "0.2 x 0"), "'vertex' hold text that is no number"),
        (lambda t: t.replace("property float y", "property flout y"), "not understood: 'property flout y'"),
        (lambda t: t.replace("end_header", "end"), "no end_header"),
        (lambda t: t.replace("element face 3", "element face 4"), "ends within its 4 rows"),
    ],
)
def test_damage_is_named(tmp_path, change, words):
    path = ply(tmp_path / "m.ply", rows=PLAIN)
    path.write_text(change(path.read_text()))
    with pytest.raises(MeshError, match=words):
        load(path)


def stl(path, extra, header=b""):
    triangles = [(0, 1, 4), (0, 4, 3), (1, 2, 5), (1, 5, 4)]
    rows = b"".join(
        struct.pack("<12fH", 0, 0, 1, *STRIP[list(t)].reshape(-1), e) for t, e in zip(triangles, extra, strict=True)
    )
    path.write_bytes(header.ljust(80, b"\0") + struct.pack("<I", 4) + rows)
    return path


def test_colours_of_binary_stl(tmp_path):
    def packed(color, *, red_first):
        five = [round(c / 255 * 31) for c in (color if red_first else color[::-1])]
        return five[0] | five[1] << 5 | five[2] << 10

    viscam = [packed(RED, red_first=False) | 0x8000] * 2 + [0, 0]
    item, _ = load(stl(tmp_path / "v.stl", viscam))
    np.testing.assert_allclose(color_at(item, *LEFT), RED, atol=5)
    assert color_at(item, *RIGHT) == [128] * 3
    magics = [packed(GREEN, red_first=True)] * 2 + [0x8000] * 2
    item, _ = load(stl(tmp_path / "m.stl", magics, b"made COLOR=" + bytes([*BLUE, 255])))
    np.testing.assert_allclose(color_at(item, *LEFT), GREEN, atol=5)
    np.testing.assert_allclose(color_at(item, *RIGHT), BLUE, atol=1)
    item, said = load(stl(tmp_path / "p.stl", [0] * 4))
    assert item.color_source == "uniform grey" and "rendered grey" in said[1]


def test_colours_of_stl_as_meshlab_writes_them(tmp_path):
    grey = b"COLOR=\x7f\x7f\x7f MATERIAL=\x7f\x7f\x7f \x7f\x7f\x7f \x7f\x7f\x7f"
    item, said = load(stl(tmp_path / "none.stl", [0] * 4, grey.ljust(80)))
    assert item.color_source == "uniform grey" and "rendered grey" in said[1]
    item, _ = load(stl(tmp_path / "own.stl", [0x801F] * 2 + [0xFC00] * 2, grey.ljust(80)))
    assert color_at(item, *LEFT) == [255, 0, 0] and color_at(item, *RIGHT) == [0, 0, 255]
    item, _ = load(stl(tmp_path / "part.stl", [0] * 4, b"COLOR=" + bytes([*BLUE, 255])))
    np.testing.assert_allclose(color_at(item, *LEFT), BLUE, atol=1)


def test_vertices_of_an_object_without_colours_that_was_joined_with_coloured_ones(tmp_path):
    colors = "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar alpha\n"
    own = f"{' '.join(map(str, RED))} 255"
    rows = ["3 0 1 4", "3 0 4 3", "3 1 2 5"]
    item, said = load(ply(tmp_path / "m.ply", colors, rows=rows, points=[own, own, "0 0 0 0", own, own, "0 0 0 0"]))
    assert color_at(item, *LEFT) == list(RED)
    assert any("2 of its 6 vertices have no colour" in line for line in said)
    assert [128, 128, 128] in (255 * item.arrays.colors).round().astype(int).tolist()
    for clear in (["0 0 0 255"] * 6, ["0 0 0 0"] * 6, [f"{' '.join(map(str, RED))} 0"] * 6):  # alpha that says nothing
        item, said = load(ply(tmp_path / "m.ply", colors, rows=rows, points=clear))
        assert not any("no colour" in line for line in said)
        assert color_at(item, *LEFT) == [int(v) for v in clear[0].split()[:3]]


def test_stl_that_begins_like_text_or_is_cut(tmp_path):
    path = stl(tmp_path / "s.stl", [0] * 4, b"solid made by some CAD")
    assert load(path)[0].arrays.faces.shape == (4, 3)
    (tmp_path / "cut.stl").write_bytes(path.read_bytes().replace(b"solid", b"cut  ")[:-60])
    with pytest.raises(MeshError, match="224 of the 284 bytes"):
        load(tmp_path / "cut.stl")
    text = "solid x\n" + "facet normal 0 0 1\nouter loop\n" + "vertex 0 0 0\nvertex 1e-1 0 0\nvertex 0 0.1 0\n"
    (tmp_path / "t.stl").write_text(text + "endloop\nendfacet\nendsolid x\n")
    assert load(tmp_path / "t.stl")[0].arrays.faces.shape == (1, 3)
