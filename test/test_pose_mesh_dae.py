"""COLLADA: images by sampler or by name, several materials, polygons, units, mirrored nodes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rfdetr_foundationpose.pose.mesh import MeshError
from support.mesh_files import GREEN, LEFT, RED, RIGHT, STRIP, color_at, load, png, stripes

SAMPLER = """<newparam sid="s-surface"><surface type="2D"><init_from>img</init_from></surface></newparam>
<newparam sid="s-sampler"><sampler2D><source>s-surface</source></sampler2D></newparam>"""


def dae(path, texture="s-sampler", image="../materials/textures/wood.png", node="", unit="1"):
    """The strip: the left quad has the image, the right one the diffuse colour 0/0.5/1."""
    points = " ".join(f"{v:g}" for v in STRIP.reshape(-1))
    material = """<material id="{0}"><instance_effect url="#{0}-fx"/></material>"""
    effect = """<effect id="{0}-fx"><profile_COMMON>{1}<technique sid="common"><lambert><diffuse>{2}</diffuse></lambert>
</technique></profile_COMMON></effect>"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""<?xml version="1.0"?><COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
<asset><unit meter="{unit}" name="u"/><up_axis>Z_UP</up_axis></asset>
<library_images><image id="img"><init_from>{image}</init_from></image></library_images>
<library_materials>{material.format("wood")}{material.format("blue")}</library_materials>
<library_effects>{effect.format("wood", SAMPLER, f'<texture texture="{texture}" texcoord="UV"/>')}
{effect.format("blue", "", "<color>0 0.5 1 1</color>")}</library_effects>
<library_geometries><geometry id="g"><mesh>
<source id="p"><float_array id="pa" count="18">{points}</float_array><technique_common><accessor source="#pa" count="6"
stride="3"><param name="X" type="float"/><param name="Y" type="float"/><param name="Z" type="float"/></accessor></technique_common></source>
<source id="t"><float_array id="ta" count="8">0 0 1 0 1 1 0 1</float_array><technique_common><accessor source="#ta" count="4"
stride="2"><param name="S" type="float"/><param name="T" type="float"/></accessor></technique_common></source>
<vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
<polylist material="W" count="1"><input semantic="VERTEX" source="#v" offset="0"/><input semantic="TEXCOORD" source="#t"
offset="1" set="0"/><vcount>4</vcount><p>0 0 1 1 4 2 3 3</p></polylist>
<triangles material="B" count="2"><input semantic="VERTEX" source="#v" offset="0"/><p>1 2 5 1 5 4</p></triangles>
</mesh></geometry></library_geometries>
<library_visual_scenes><visual_scene id="s"><node id="n">{node}<instance_geometry url="#g"><bind_material><technique_common>
<instance_material symbol="W" target="#wood"/><instance_material symbol="B" target="#blue"/>
</technique_common></bind_material></instance_geometry></node></visual_scene></library_visual_scenes>
<scene><instance_visual_scene url="#s"/></scene></COLLADA>"""
    )
    return path


@pytest.mark.parametrize("texture", ["s-sampler", "img"])
def test_an_image_by_sampler_or_by_its_id(tmp_path, texture):
    (tmp_path / "materials" / "textures").mkdir(parents=True)
    png(tmp_path / "materials" / "textures" / "wood.png", RED)
    item, said = load(dae(tmp_path / "meshes" / "m.dae", texture))
    assert color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == [0, 128, 255]
    assert item.color_source == "texture + uniform colour" and len(said) == 1


def test_an_image_that_is_elsewhere_or_nowhere(tmp_path):
    path = dae(tmp_path / "m.dae", image="file:///C:/work/wood.PNG")
    item, said = load(path)
    assert color_at(item, *LEFT) == [128] * 3
    assert "the texture of material 'wood'" in said[1] and "was not found (looked in" in said[1]
    png(tmp_path / "wood.png", GREEN)
    assert color_at(load(path)[0], *LEFT) == list(GREEN)


def test_nodes_mirror_and_the_unit_is_told(tmp_path):
    item, said = load(dae(tmp_path / "m.dae", node="<scale>-1 1 1</scale>", unit="0.01"), scale=0.5)
    np.testing.assert_allclose(item.center, [-0.05, 0.05, 0], atol=1e-6)
    a, b, c = (item.arrays.vertices[item.arrays.faces[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()
    assert any("its unit is 0.01 m by its own word, but scale is 0.5" in line for line in said)
    assert not any("its unit is" in line for line in load(tmp_path / "m.dae", scale=0.01)[1])
    with pytest.raises(MeshError, match=r"its unit is 0.01 m by its own word. Set scale: 0.01 "):
        load(tmp_path / "m.dae", scale=100)


def test_what_is_no_mesh(tmp_path):
    path = dae(tmp_path / "m.dae")
    path.write_text(path.read_text().replace('<scene><instance_visual_scene url="#s"/></scene>', ""))
    with pytest.raises(MeshError, match=r"shows no scene|no faces"):
        load(path)
    path.write_text(path.read_text()[:500])
    with pytest.raises(MeshError, match="damaged, or not what its suffix"):
        load(path)


@pytest.mark.parametrize("number", [0, 1])
def test_the_coordinates_that_the_material_binds(tmp_path, number):
    stripes(RED, GREEN).save(tmp_path / "wood.png")
    path = dae(tmp_path / "m.dae", image="file:wood.png")
    # A second set, which is all one point of the image.
    text = (
        path.read_text()
        .replace(
            '<vertices id="v">',
            '<source id="t2"><float_array id="t2a" count="8">.9 0 .9 0 .9 1 .9 1</float_array><technique_common><accessor source="#t2a" '
            'count="4" stride="2"><param name="S" type="float"/><param name="T" type="float"/></accessor></technique_common></source>'
            '<vertices id="v">',
        )
        .replace(
            'offset="1" set="0"/>', 'offset="1" set="0"/><input semantic="TEXCOORD" source="#t2" offset="1" set="1"/>'
        )
    )
    bind = f'<bind_vertex_input semantic="UV" input_semantic="TEXCOORD" input_set="{number}"/>'
    path.write_text(text.replace('target="#wood"/>', f'target="#wood">{bind}</instance_material>'))
    item, _ = load(path)
    assert color_at(item, 0.02, 0.11) == list((RED, GREEN)[number]) and color_at(item, 0.08, 0.11) == list(GREEN)


@pytest.mark.parametrize(("mode", "right"), [("CLAMP", GREEN), ("MIRROR", GREEN), ("WRAP", RED)])
def test_wrap_modes(tmp_path, mode, right):
    stripes(RED, GREEN).save(tmp_path / "wood.png")
    path = dae(tmp_path / "m.dae", image="wood.png")
    text = path.read_text().replace("0 0 1 0 1 1 0 1</float", "0 0 2 0 2 1 0 1</float")
    path.write_text(text.replace("</source></sampler2D>", f"</source><wrap_s>{mode}</wrap_s></sampler2D>"))
    assert color_at(load(path)[0], 0.06, 0.11) == list(right)


def test_an_image_as_collada_1_5_names_it(tmp_path):
    png(tmp_path / "wood.png", RED)
    assert color_at(load(dae(tmp_path / "m.dae", image="<ref>wood.png</ref>"))[0], *LEFT) == list(RED)


def test_blender_writes_linear_light(tmp_path):
    path = dae(tmp_path / "m.dae")
    tool = "<contributor><authoring_tool>Blender 4.5.15 LTS commit date:2026-10-21</authoring_tool></contributor>"
    path.write_text(path.read_text().replace("<asset>", f"<asset>{tool}"))
    item, said = load(path)
    assert color_at(item, *RIGHT) == [0, 188, 255] and "diffuse colour 0/188/255 (Blender's linear light)" in said[0]


def test_what_only_shines(tmp_path):
    png(tmp_path / "wood.png", RED)
    path = dae(tmp_path / "m.dae", image="wood.png")
    text = path.read_text().replace("diffuse>", "emission>")
    path.write_text(
        text.replace(
            "<lambert><emission><texture", "<lambert><diffuse><color>0 0 0 1</color></diffuse><emission><texture"
        )
    )
    item, _ = load(path)
    assert color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == [0, 128, 255]


def test_vertex_colours_blend_over_a_face(tmp_path):
    path = dae(tmp_path / "m.dae", image="wood.png")
    colors = " ".join(f"{v / 255:.5f}" for c in (RED, GREEN) for v in c)
    text = path.read_text().replace(
        '<vertices id="v">',
        f'<source id="c"><float_array id="ca" count="6">{colors}</float_array><technique_common><accessor source="#ca" count="2" '
        'stride="3"><param name="R" type="float"/><param name="G" type="float"/><param name="B" type="float"/></accessor>'
        '</technique_common></source><vertices id="v">',
    )
    text = text.replace(
        '<triangles material="B" count="2"><input semantic="VERTEX" source="#v" offset="0"/><p>1 2 5 1 5 4</p>',
        '<triangles material="B" count="2"><input semantic="VERTEX" source="#v" offset="0"/><input semantic="COLOR" source="#c" '
        'offset="1"/><p>1 0 2 1 5 1 1 0 5 1 4 0</p>',
    )
    path.write_text(text)
    item, _ = load(path)
    np.testing.assert_allclose(color_at(item, 0.15, 0.1), (np.array(RED) + GREEN) / 2, atol=1)


def test_numbers_with_decimal_commas(tmp_path):
    """As programs write them on computers whose language has such numbers."""
    path = dae(tmp_path / "m.dae")
    whole, _ = load(path)
    text = path.read_text()
    numbers = re.compile(r">([\s\d.e+-]*\d\.\d[\s\d.e+-]*)<")
    assert len(numbers.findall(text)) >= 2
    path.write_text(numbers.sub(lambda found: found[0].replace(".", ","), text))
    item, _ = load(path)
    np.testing.assert_array_equal(item.arrays.vertices, whole.arrays.vertices)
    assert color_at(item, *RIGHT) == [0, 128, 255]


@pytest.mark.parametrize("how", ["not defined", "damaged"])
def test_a_material_that_is_not_there_costs_no_faces(tmp_path, how):
    path = dae(tmp_path / "m.dae", image="wood.png")
    png(tmp_path / "wood.png", RED)
    text = path.read_text()
    if how == "damaged":
        path.write_text(text.replace("0 0.5 1 1</color>", "blue</color>"))
    else:
        path.write_text(text.replace('target="#blue"', 'target="#gone"'))
    item, said = load(path)
    name = "gone" if how == "not defined" else "blue"
    assert len(item.arrays.faces) == 4 and color_at(item, *LEFT) == list(RED) and color_at(item, *RIGHT) == [128] * 3
    assert f"its materials '{name}' are not defined or damaged" in said[1]


def test_a_scene_that_shows_nothing(tmp_path):
    path = dae(tmp_path / "m.dae")
    path.write_text(path.read_text().replace('url="#g"', 'url="#other"'))
    item, said = load(path)
    assert len(item.arrays.faces) == 4 and any("its scene shows none of its geometries" in line for line in said)


SKIN = """<library_controllers><controller id="c"><skin source="#g">
<bind_shape_matrix>2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1</bind_shape_matrix>
<source id="j"><Name_array id="ja" count="1">bone</Name_array><technique_common><accessor source="#ja" count="1" stride="1"><param
name="JOINT" type="name"/></accessor></technique_common></source>
<source id="m"><float_array id="ma" count="16">1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1</float_array><technique_common><accessor source="#ma" count="1"
stride="16"><param name="TRANSFORM" type="float4x4"/></accessor></technique_common></source>
<source id="w"><float_array id="wa" count="1">1</float_array><technique_common><accessor source="#wa" count="1" stride="1"><param
name="WEIGHT" type="float"/></accessor></technique_common></source>
<joints><input semantic="JOINT" source="#j"/><input semantic="INV_BIND_MATRIX" source="#m"/></joints>
<vertex_weights count="6"><input semantic="JOINT" source="#j" offset="0"/><input semantic="WEIGHT" source="#w" offset="1"/>
<vcount>1 1 1 1 1 1</vcount><v>0 0 0 0 0 0 0 0 0 0 0 0</v></vertex_weights></skin></controller></library_controllers>"""


def test_a_skin_is_shown_as_it_was_bound(tmp_path):
    path = dae(tmp_path / "m.dae", image="wood.png")
    png(tmp_path / "wood.png", RED)
    plain, _ = load(path)
    text = path.read_text().replace("<library_visual_scenes>", SKIN + "<library_visual_scenes>")
    text = text.replace('<instance_geometry url="#g">', '<instance_controller url="#c">')
    path.write_text(text.replace("</instance_geometry>", "</instance_controller>"))
    item, said = load(path)
    np.testing.assert_allclose(item.extents, 2 * plain.extents, atol=1e-6)
    assert item.color_source == plain.color_source and any("moved by joints or targets" in line for line in said)
