"""OFF, 3MF and STL as programs write them: colours, headers and counts of every kind."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest

from rfdetr_foundationpose.pose.mesh import MeshError
from support.mesh_files import BLUE, LEFT, QUADS, RED, RIGHT, STRIP, color_at, load, stripes

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
MATERIAL = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
TRIANGLES = [(0, 1, 4), (0, 4, 3), (1, 2, 5), (1, 5, 4)]
FLOATS = " ".join(f"{v / 255:.6f}" for v in RED)
BYTES = " ".join(map(str, RED))


def off(path, head="OFF", vertex="", face=("", ""), counts="6 2 0"):
    rows = "".join("{:g} {:g} {:g} {}\n".format(*p, vertex) for p in STRIP)
    faces = "".join(f"4 {' '.join(map(str, q))} {extra}\n" for q, extra in zip(QUADS, face, strict=True))
    path.write_text(f"{head}\n{counts}\n{rows}# the faces\n{faces}")
    return path


@pytest.mark.parametrize(
    ("head", "counts"),
    [("OFF", "6 2 0"), ("off", "6 2"), ("OFF # by hand", "\n6 2 7 # n"), ("", "6 2 0"), (" \tOFF6 2 0", "# n")],
)
def test_heads_of_off(tmp_path, head, counts):
    item, said = load(off(tmp_path / "m.off", head, counts=counts))
    assert item.arrays.faces.shape == (4, 3) and "default grey (it has no colours)" in said[0]


@pytest.mark.parametrize(
    ("head", "extra"),
    [
        ("COFF", f"{BYTES} 255"),
        ("COFF", f"{FLOATS} 1"),
        ("NCOFF", f"0 0 1 {BYTES} 255"),
        ("CNOFF", f"-0.6 0 0.8 {BYTES} 255"),
        ("CNOFF", f"0 0 1 {FLOATS} 1"),
        ("NCOFF", f"{BYTES} 255 -1.2 -1 1.9"),  # MeshLab's order
        ("NCSTOFF", f"{BYTES} 255 0.3 -1 0 0.5 0.25"),
        ("OFF", BYTES),
    ],
)
def test_vertex_colours_of_off(tmp_path, head, extra):
    item, _ = load(off(tmp_path / "m.off", head, extra))
    assert item.color_source == "vertex colours" and color_at(item, *LEFT) == list(RED)


@pytest.mark.parametrize("left", [BYTES, f"{BYTES} 255", FLOATS, f"{FLOATS} 1.0"])
def test_face_colours_of_off_and_faces_without(tmp_path, left):
    item, _ = load(off(tmp_path / "m.off", face=(left, "3")))
    assert color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == [128] * 3


@pytest.mark.parametrize("head", ["OFF", "COFF"])
def test_rows_of_off_that_are_broken_into_lines(tmp_path, head):
    extra = f"{BYTES} 255" if head == "COFF" else ""
    whole, _ = load(off(tmp_path / "m.off", head, extra))
    words = [w for line in (tmp_path / "m.off").read_text().split("\n")[1:] for w in line.partition("#")[0].split()]
    for step in (1, 5, 1000):
        rows = [" ".join(words[i : i + step]) for i in range(3, len(words), step)]
        (tmp_path / "m.off").write_text("\n".join([head, " ".join(words[:3]), *rows]))
        item, _ = load(tmp_path / "m.off")
        np.testing.assert_array_equal(item.arrays.faces, whole.arrays.faces)
        np.testing.assert_allclose(item.arrays.vertices, whole.arrays.vertices)
        assert item.color_source == whole.color_source
    (tmp_path / "m.off").write_text("\n".join([head, " ".join(words[:3]), *words[3:-2]]))
    with pytest.raises(MeshError, match=r"damaged|cut off|fewer than"):
        load(tmp_path / "m.off")


def test_polygons_of_off_keep_their_outline(tmp_path):
    outline = np.array([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]) * 0.05
    rows = "".join(f"{x:g} {y:g} 0\n" for x, y in outline)
    (tmp_path / "l.off").write_text(f"OFF 6 1 6\n{rows}6 0 1 2 3 4 5\n")
    arrays = load(tmp_path / "l.off")[0].arrays
    a, b, c = (arrays.vertices[arrays.faces[:, i]] for i in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2 == pytest.approx(3 * 0.05**2, rel=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("6 2 0", "9 2 0", "is it cut off"),
        ("6 2 0", "six", "no numbers of vertices"),
        ("4 0 1", "4 0 9", "asks for vertex 9"),
        ("4 0 1", "7 0 1", "face 0 is damaged"),
        ("0.1 0 0", "0.1 0", "fewer than three"),
        ("0.1 0 0", "0.1 x 0", "damaged"),
        ("OFF\n", "OFF BINARY\n", "export it as PLY"),
    ],
)
def test_damage_to_off_is_named(tmp_path, old, new, words):
    path = off(tmp_path / "m.off")
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(MeshError, match=words):
        load(path)


def three_mf(
    path, resources="", thing="", left="", right="", unit="millimeter", build='<item objectid="1"/>', files=None
):
    """The strip; ``thing``, ``left`` and ``right`` are attributes of the object and of the triangles of its quads."""
    vertices = "".join('<vertex x="{:g}" y="{:g}" z="{:g}"/>'.format(*(1000 * p)) for p in STRIP)
    triangles = "".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" {(left if i < 2 else right).format(*((0, 1, 2), (0, 2, 3))[i % 2])}/>'
        for i, (a, b, c) in enumerate(TRIANGLES)
    )
    with zipfile.ZipFile(path, "w") as package:
        package.writestr(
            "3D/3dmodel.model",
            f'<model unit="{unit}" xmlns="{CORE}" xmlns:m="{MATERIAL}"><resources>{resources}<object id="1" {thing}><mesh>'
            f"<vertices>{vertices}</vertices><triangles>{triangles}</triangles></mesh></object>"
            f'<object id="2"><components><component objectid="1" transform="1 0 0 0 1 0 0 0 1 0 0 50"/></components></object>'
            f"</resources><build>{build}</build></model>",
        )
        for name, data in (files or {}).items():
            package.writestr(name, data)
    return path


HEX = "#{:02X}{:02X}{:02X}"
BASE = f'<basematerials id="5"><base name="a" displaycolor="{HEX.format(*RED)}"/><base name="b" displaycolor="{HEX.format(*BLUE)}FF"/></basematerials>'
COLORS = (
    f'<m:colorgroup id="5"><m:color color="{HEX.format(*RED)}"/><m:color color="{HEX.format(*BLUE)}80"/></m:colorgroup>'
)


@pytest.mark.parametrize("resources", [BASE, COLORS])
def test_colours_of_3mf(tmp_path, resources):
    path = three_mf(tmp_path / "m.3mf", resources, 'pid="5" pindex="1"', left='pid="5" p1="0"')
    item, said = load(path, scale=0.001)
    assert color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == list(BLUE)
    assert item.color_source == "face colours" and len(said) == 1
    np.testing.assert_allclose(item.extents, [0.2, 0.2, 0], atol=1e-7)


def test_a_colour_for_each_corner_of_3mf(tmp_path):
    path = three_mf(tmp_path / "m.3mf", COLORS, left='pid="5" p1="0" p2="1" p3="1"', right='pid="5" p1="0"')
    item, _ = load(path, scale=0.001)
    assert item.color_source == "vertex colours" and color_at(item, *RIGHT) == list(RED)
    np.testing.assert_allclose(color_at(item, 0.05, 0.025), (np.array(RED) + BLUE) / 2, atol=1)


def test_a_texture_of_3mf(tmp_path):
    picture = io.BytesIO()
    stripes(RED, BLUE).save(picture, "PNG")
    corners = "".join(f'<m:tex2coord u="{u}" v="{v}"/>' for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)))
    resources = f'<m:texture2d id="4" path="/3D/a.png" contenttype="image/png"/><m:texture2dgroup id="5" texid="4">{corners}</m:texture2dgroup>'
    use = 'pid="5" p1="{}" p2="{}" p3="{}"'
    path = three_mf(tmp_path / "m.3mf", resources, left=use, right=use, files={"3D/a.png": picture.getvalue()})
    item, said = load(path, scale=0.001)
    assert color_at(item, 0.02, 0.11) == list(RED) and color_at(item, 0.08, 0.11) == list(BLUE)
    assert "texture a.png (16 x 16)" in said[0]
    item, said = load(three_mf(tmp_path / "m.3mf", resources, left=use, right=use), scale=0.001)
    assert item.color_source == "uniform grey" and "its texture '/3D/a.png' is not in the archive" in said[1]


MIXED = '<m:compositematerials id="6" matid="5" matindices="0 1"><m:composite values="0.5 0.5"/><m:composite values="2 0"/></m:compositematerials>'
LAYERS = '<m:multiproperties id="6" pids="5 7" blendmethods="{}"><m:multi pindices="0 0"/><multi pindices="1 1"/></m:multiproperties>'
OVER = '<m:colorgroup id="7"><m:color color="#00FF0080"/><m:color color="#00FF00"/></m:colorgroup>'


@pytest.mark.parametrize(
    ("resources", "left", "right"),
    [
        (BASE + MIXED, (np.array(RED) + BLUE) / 2, RED),
        (MIXED + BASE, (np.array(RED) + BLUE) / 2, RED),
        (
            BASE + OVER + LAYERS.format("mix"),
            np.array(RED) * 127 / 255 + np.array([0, 255, 0]) * 128 / 255,
            [0, 255, 0],
        ),
        (BASE + OVER + LAYERS.format("multiply"), [0, RED[1], 0], [0, BLUE[1], 0]),
    ],
)
def test_mixtures_and_layers_of_3mf(tmp_path, resources, left, right):
    path = three_mf(tmp_path / "m.3mf", resources, 'pid="6" pindex="1"', left='pid="6" p1="0"')
    item, said = load(path, scale=0.001)
    np.testing.assert_allclose(color_at(item, *LEFT), left, atol=2)
    np.testing.assert_allclose(color_at(item, *RIGHT), right, atol=2)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (MIXED.replace('"0 1"', '"0 9"'), "material 6 asks for entry 9 of another one, which has 2"),
        (MIXED.replace('"0.5 0.5"', '"0.5"'), "a composite of it has another count of numbers than others"),
        (MIXED.replace('matid="5"', 'matid="8"'), "a mixture refers to base materials '8'"),
        (COLORS.replace('"5"', '"6"').replace("#BE", "#?E"), "has the colour '#?E1E28', expected #RRGGBB"),
    ],
)
def test_a_damaged_material_of_3mf_costs_its_colour_alone(tmp_path, resources, words):
    path = three_mf(tmp_path / "m.3mf", BASE + resources, 'pid="5" pindex="1"', left='pid="6" p1="0"')
    item, said = load(path, scale=0.001)
    assert color_at(item, *LEFT) == [128] * 3 and color_at(item, *RIGHT) == list(BLUE)
    assert words in said[1] and "what has that is rendered grey" in said[1] and "its material is damaged" in said[0]


def picture(*colors, alpha=255):
    image = stripes(*colors)
    image.putalpha(alpha)
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("method", "alpha", "colors"),
    [("", 128, (0.5, 0.5)), ("mix", 255, (0, 1)), ("multiply", 128, None), ("mix", 0, (1, 0))],
)
def test_an_image_over_a_colour_of_3mf(tmp_path, method, alpha, colors):
    """As a sticker on a painted box: the sample files of the 3MF consortium do so."""
    corners = "".join(f'<m:tex2coord u="{u}" v="{v}"/>' for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)))
    multi = "".join(f'<m:multi pindices="1 {i}"/>' for i in range(4))
    resources = (
        f'{COLORS}<m:texture2d id="3" path="/3D/a.png" contenttype="image/png"/><m:texture2dgroup id="4" texid="3">{corners}</m:texture2dgroup>'
        f'<m:multiproperties id="6" pids="5 4" blendmethods="{method}">{multi}</m:multiproperties>'
    ).replace("80", "")
    use = 'pid="6" p1="{}" p2="{}" p3="{}"'
    files = {"3D/a.png": picture(RED, RED, alpha=alpha)}
    path = three_mf(tmp_path / "m.3mf", resources, left=use, right='pid="5" p1="0"', files=files)
    item, said = load(path, scale=0.001)
    below, above = np.array(BLUE, float), np.array(RED, float)
    expected = below * above / 255 if colors is None else colors[0] * below + colors[1] * above
    np.testing.assert_allclose(color_at(item, *LEFT), expected, atol=3)
    assert color_at(item, *RIGHT) == list(RED) and "colour group + texture a.png (16 x 16)" in said[0]


def test_what_is_not_read_of_3mf_is_said(tmp_path):
    path = three_mf(tmp_path / "m.3mf", thing='name="ring" xmlns:s="slices" s:slicestackid="9"')
    _, said = load(path, scale=0.001)
    assert any("ring is described by slices" in line for line in said)
    undeclared = '<x:unknown id="9"><x:entry y:value="1"/></x:unknown>'
    item, _ = load(three_mf(tmp_path / "m.3mf", undeclared + BASE, 'pid="5" pindex="1"'), scale=0.001)
    assert color_at(item, *LEFT) == list(BLUE)
    with zipfile.ZipFile(path, "w") as package:
        mesh = '<mesh><vertices/><triangles/><b:beamlattice xmlns:b="beams"/></mesh>'
        package.writestr(
            "3D/3dmodel.model",
            f'<model xmlns="{CORE}"><resources><object id="1">{mesh}</object></resources><build><item objectid="1"/></build></model>',
        )
    with pytest.raises(MeshError, match="lattice of beams, which are not read; export it as triangles"):
        load(path, scale=0.001)


def test_items_components_and_units_of_3mf(tmp_path):
    build = '<item objectid="1"/><item objectid="2" transform="2 0 0 0 2 0 0 0 2 10 0 0"/>'
    item, said = load(three_mf(tmp_path / "m.3mf", build=build, unit="inch"), scale=0.001)
    np.testing.assert_allclose(item.extents, [0.41, 0.4, 0.1], atol=1e-6)
    assert any("its unit is 0.0254 m by its own word, but scale is 0.001" in line for line in said)


@pytest.mark.parametrize(
    ("build", "left", "words"),
    [
        ('<item objectid="7"/>', "", "refers to object '7'"),
        ('<item objectid="1"/>', 'pid="5" p1="9"', "asks for entry 9 of material 5"),
        ('<item objectid="1" transform="1 2"/>', "", "expected twelve numbers"),
        ('<item objectid="1"/>', 'pid="5" p1="x"', "a triangle of it has 'x' where a number belongs"),
        (
            '<item objectid="1"/>',
            'pid="5" p1="99999999999999999999"',
            "a triangle of it has a number that is too large",
        ),
    ],
)
def test_damage_to_3mf_is_named(tmp_path, build, left, words):
    path = three_mf(tmp_path / "m.3mf", BASE, left=left, build=build)
    with pytest.raises(MeshError, match=words):
        load(path, scale=0.001)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(MeshError, match="archive is damaged"):
        load(path, scale=0.001)


def test_damage_within_the_archive_of_a_3mf(tmp_path):
    """The model is lost with its part; an image alone is not missed for the shape."""
    picture = io.BytesIO()
    stripes(RED, BLUE).save(picture, "PNG")
    resources = '<m:texture2d id="4" path="/3D/a.png" contenttype="image/png"/><m:texture2dgroup id="5" texid="4"><m:tex2coord u="0" v="0"/></m:texture2dgroup>'
    path = three_mf(tmp_path / "m.3mf", resources, left='pid="5" p1="0"', files={"3D/a.png": picture.getvalue()})
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"IDAT", b"JDAT"))
    item, said = load(path, scale=0.001)
    assert "its texture '/3D/a.png' is damaged in the archive" in said[1] and len(item.arrays.faces) == 4
    path.write_bytes(whole.replace(b"<vertices>", b"<verticez>"))
    with pytest.raises(MeshError, match=r"archive is damaged at '3D.3dmodel.model' \(Bad CRC-32"):
        load(path, scale=0.001)


def config(volumes, *, bambu=False, extruder=0):
    """volumes: attributes, name, kind and filament of each."""
    rows = "".join(
        f'<{"part" if bambu else "volume"} {attributes}><metadata key="name" value="{name}"/>'
        + (f'<metadata type="volume" key="volume_type" value="{kind}"/>' if kind and not bambu else "")
        + f'<metadata key="extruder" value="{filament}"/></{"part" if bambu else "volume"}>'
        for attributes, name, kind, filament in volumes
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{head}<config><object id="{9 if bambu else 1}"><metadata key="extruder" value="{extruder}"/>{rows}</object></config>'


PRUSA_COLORS = "; extruder_colour = ;\n; filament_colour = #{:02X}{:02X}{:02X};#{:02X}{:02X}{:02X}\n".format(
    *RED, *BLUE
)
BAMBU_COLORS = json.dumps({"filament_colour": [c.strip() for c in PRUSA_COLORS.split("=")[-1].split(";")]})


def sliced(path, volumes, colors=PRUSA_COLORS, **more):
    """As PrusaSlicer has it: one mesh, and which of its triangles are which."""
    files = {"Metadata/Slic3r_PE_model.config": config(volumes), "Metadata/Slic3r_PE.config": colors}
    return three_mf(path, files=files, **more)


def test_filaments_of_prusaslicer_are_colours(tmp_path):
    volumes = [('firstid="0" lastid="1"', "a", "ModelPart", 1), ('firstid="2" lastid="3"', "b", "ModelPart", 2)]
    item, said = load(sliced(tmp_path / "m.3mf", volumes), scale=0.001)
    assert color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == list(BLUE)
    assert "filament colours of the slicer" in said[0] and len(said) == 1
    item, said = load(sliced(tmp_path / "m.3mf", [(v[0], v[1], v[2], 2) for v in volumes]), scale=0.001)
    assert color_at(item, *LEFT) == [128] * 3
    assert "default grey (it has no colour; the slicer's filament is {}/{}/{})".format(*BLUE) in said[0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("ParameterModifier", "is not printed, and is left out"),
        ("SupportBlocker", "is not printed, and is left out"),
        ("NegativeVolume", "is left out, and what it cuts away stays"),
    ],
)
def test_volumes_of_a_slicer_that_are_not_printed_are_no_part_of_the_object(tmp_path, kind, words):
    volumes = [('firstid="0" lastid="1"', "a", "ModelPart", 0), ('firstid="2" lastid="3"', "box", kind, 0)]
    item, said = load(sliced(tmp_path / "m.3mf", volumes), scale=0.001)
    assert len(item.arrays.faces) == 2 and item.extents[0] == pytest.approx(0.1)
    assert any(f"its part 'box' ({kind} of the slicer) {words}" in line for line in said)
    old = config(volumes).replace(f'<metadata type="volume" key="volume_type" value="{kind}"/>', "")
    old = old.replace('key="name" value="box"/>', 'key="name" value="box"/><metadata key="modifier" value="1"/>')
    item, _ = load(three_mf(tmp_path / "m.3mf", files={"Metadata/Slic3r_PE_model.config": old}), scale=0.001)
    assert len(item.arrays.faces) == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [("8", BLUE), ("4", RED), ("", RED), ("0C", BLUE), ("8883", BLUE), ("48883", BLUE), ("8444C83", RED), ("zz", RED)],
)
def test_painted_triangles_have_the_filament_that_covers_most_of_them(tmp_path, text, shown):
    """``0C`` is the third filament, of two: the last one there is; splits end in 1, 2 or 3."""
    volumes = [('firstid="0" lastid="3"', "a", "ModelPart", 1)]
    left, right = (f'slic3rpe:mmu_segmentation="{code}"' for code in ("4" if shown == BLUE else "8", text))
    item, _ = load(sliced(tmp_path / "m.3mf", volumes, left=left, right=right), scale=0.001)
    assert color_at(item, *LEFT) == list(RED if shown == BLUE else BLUE) and color_at(item, *RIGHT) == list(shown)


def test_parts_of_bambu_studio(tmp_path):
    """Components in a model part of their own, and what they are in model_settings.config."""
    files = {
        "Metadata/model_settings.config": config(
            [('id="1" subtype="normal_part"', "a", "", 2), ('id="3" subtype="support_enforcer"', "b", "", 1)],
            bambu=True,
        ),
        "Metadata/project_settings.config": BAMBU_COLORS,
    }
    whole = '<object id="9" type="model"><components><component objectid="1"/><component objectid="3"/></components></object>'
    box = '<object id="3" type="model"><mesh><vertices><vertex x="0" y="0" z="0"/><vertex x="900" y="0" z="0"/><vertex x="0" y="900" z="0"/></vertices><triangles><triangle v1="0" v2="1" v3="2"/></triangles></mesh></object>'
    path = three_mf(
        tmp_path / "m.3mf", box, left='paint_color="4"', build='<item objectid="9" printable="1"/>', files=files
    )
    with zipfile.ZipFile(path) as package:
        every = {n: package.read(n) for n in package.namelist()}
    every["3D/3dmodel.model"] = every["3D/3dmodel.model"].replace(b"</resources>", whole.encode() + b"</resources>")
    with zipfile.ZipFile(path, "w") as package:
        for name, data in every.items():
            package.writestr(name, data)
    item, said = load(path, scale=0.001)
    assert len(item.arrays.faces) == 4 and item.extents[0] == pytest.approx(0.2)
    assert color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == list(BLUE)
    assert any("its part 'b' (support_enforcer of the slicer) is not printed" in line for line in said)


def test_several_objects_on_a_plate_are_said(tmp_path):
    volumes = [('firstid="0" lastid="3"', "a", "ModelPart", 1)]
    twice = '<item objectid="1"/><item objectid="1" transform="1 0 0 0 1 0 0 0 1 900 0 0"/>'
    _, said = load(sliced(tmp_path / "m.3mf", volumes, build=twice), scale=0.001)
    assert any("2 objects lie on the slicer's plate, and are taken for one" in line for line in said)
    _, said = load(three_mf(tmp_path / "m.3mf", build=twice), scale=0.001)  # an assembly of a CAD program
    assert len(said) == 2 and "plate" not in said[1]


def test_meshes_of_cura_that_are_settings_are_no_part_of_the_object(tmp_path):
    said = '<metadatagroup><metadata name="cura:anti_overhang_mesh" preserve="true" type="xs:boolean">True</metadata></metadatagroup>'
    blocker = f'<object id="3" name="box" type="model">{said}<mesh><vertices><vertex x="0" y="0" z="0"/><vertex x="900" y="0" z="0"/><vertex x="0" y="900" z="0"/></vertices><triangles><triangle v1="0" v2="1" v3="2"/></triangles></mesh></object>'
    items = '<item objectid="1"/><item objectid="3"/>'
    item, notes = load(three_mf(tmp_path / "m.3mf", blocker, build=items), scale=0.001)
    assert item.extents[0] == pytest.approx(0.2) and any("its part 'box' (cura:anti_overhang_mesh)" in n for n in notes)
    item, notes = load(three_mf(tmp_path / "m.3mf", blocker.replace(">True<", ">False<"), build=items), scale=0.001)
    assert item.extents[0] == pytest.approx(0.9)


def test_damaged_notes_of_a_slicer_cost_these_alone(tmp_path):
    files = {"Metadata/Slic3r_PE_model.config": "<config><object", "Metadata/project_settings.config": "{"}
    item, said = load(three_mf(tmp_path / "m.3mf", files=files), scale=0.001)
    assert len(item.arrays.faces) == 4 and any("what the slicer says of its parts is damaged" in line for line in said)


def text_stl(name="my part"):
    facets = "".join(
        " facet normal 0 0 1\n  outer loop\n"
        + "".join("   vertex {:g} {:g} {:g}\n".format(*STRIP[i]) for i in t)
        + "  endloop\n endfacet\n"
        for t in TRIANGLES
    )
    return f"solid {name}\n{facets}endsolid {name}\n"


@pytest.mark.parametrize(
    "text",
    [
        text_stl("a facet with a vertex 1 2 3"),
        "\ufeff" + text_stl(),
        "\n  " + text_stl(),
        text_stl().upper(),
        text_stl().replace("\n", "\r"),
        text_stl().replace("\n", "\r\n"),
    ],
)
def test_text_of_stl(tmp_path, text):
    (tmp_path / "m.stl").write_bytes(text.encode())
    assert load(tmp_path / "m.stl")[0].arrays.faces.shape == (4, 3)


@pytest.mark.parametrize("count", [0, 0xFFFFFFFF, 4])
def test_binary_stl_that_was_written_as_a_stream(tmp_path, count):
    rows = b"".join(struct.pack("<12fH", 0, 0, 1, *STRIP[list(t)].reshape(-1), 0) for t in TRIANGLES)
    (tmp_path / "m.stl").write_bytes(b"solid facet".ljust(80) + struct.pack("<I", count) + rows)
    assert load(tmp_path / "m.stl")[0].arrays.faces.shape == (4, 3)
