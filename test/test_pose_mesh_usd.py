"""USD: what a stage shows, in its unit; colours as UsdPreviewSurface, Omniverse's materials and displayColor say."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rfdetr_foundationpose.pose.mesh import MeshError
from support.mesh_files import BLUE, GREEN, LEFT, QUADS, RED, RIGHT, STRIP, color_at, load, png, stripes

pytest.importorskip("pxr", reason="the extra usd is not installed")

HEAD = '#usda 1.0\n(\n    defaultPrim = "World"\n    metersPerUnit = 1\n    upAxis = "Z"\n)\n'


def linear(color):
    found = srgb(np.array(color) / 255)
    return f"({found[0]:.6f}, {found[1]:.6f}, {found[2]:.6f})"


def srgb(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def displayed(light):
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def mesh(inside="", *, name="strip", quads=QUADS, points=STRIP, kind="", scheme="none"):
    """STRIP as a mesh, with what else is said of it."""
    rows = ", ".join(str(tuple(p)) for p in np.asarray(points).tolist())
    return f"""
    def Mesh "{name}" {kind}
    {{
        point3f[] points = [{rows}]
        int[] faceVertexCounts = [{", ".join("4" for _ in quads)}]
        int[] faceVertexIndices = [{", ".join(str(i) for q in quads for i in q)}]
        uniform token subdivisionScheme = "{scheme}"
        {inside}
    }}
"""


def material(name, diffuse, more=""):
    return f"""
    def Material "{name}"
    {{
        token outputs:surface.connect = </World/{name}/pbr.outputs:surface>
        def Shader "pbr"
        {{
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor{diffuse}
            token outputs:surface
        }}
        {more}
    }}
"""


def reader(name):
    """A material that shows the primvar Col."""
    return material(
        name,
        f".connect = </World/{name}/reader.outputs:result>",
        """
        def Shader "reader"
        {
            uniform token info:id = "UsdPrimvarReader_float3"
            string inputs:varname = "Col"
            float3 outputs:result
        }
        """,
    )


def textured(name, file, *, wrap="", scale="", st="</World/{name}/st.outputs:result>", more=""):
    return material(
        name,
        f".connect = </World/{name}/tex.outputs:rgb>",
        f"""
        def Shader "tex"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @{file}@
            float2 inputs:st.connect = {st.format(name=name)}
            {wrap}
            {scale}
            float3 outputs:rgb
        }}
        def Shader "st"
        {{
            uniform token info:id = "UsdPrimvarReader_float2"
            string inputs:varname = "map1"
            float2 outputs:result
        }}
        {more}
        """,
    )


BOUND = 'prepend apiSchemas = ["MaterialBindingAPI"]'
UV = """texCoord2f[] primvars:map1 = [(0, 0), (1, 0), (1, 1), (0, 1), (1, 0), (0, 0), (0, 1), (1, 1)] (
            interpolation = "faceVarying"
        )"""


def stage(folder, *parts, head=HEAD, name="m.usda", kind=""):
    text = head + f'def Xform "World" {kind}\n{{\n' + "".join(parts) + "}\n"
    (folder / name).write_text(text)
    return folder / name


def near(seen, expected, tolerance=1):
    np.testing.assert_allclose(seen, expected, atol=tolerance)


def bound(name, more=""):
    return mesh(f"rel material:binding = </World/{name}>\n{more}", kind=f"({BOUND})")


def test_a_texture_is_placed_by_the_primvar_that_the_material_reads(tmp_path):
    stripes(RED, GREEN).save(tmp_path / "a b.png")
    item, said = load(stage(tmp_path, bound("m", UV), textured("m", "./a b.png")))
    near(color_at(item, 0.02, 0.1), RED)
    near(color_at(item, 0.08, 0.1), GREEN)
    near(color_at(item, 0.12, 0.1), GREEN)
    near(color_at(item, 0.18, 0.1), RED)
    assert "colour: texture a b.png (16 x 16)" in said[0] and item.unit == 1 and len(said) == 1


def test_an_archive_holds_its_texture(tmp_path):
    from pxr import UsdUtils

    png(tmp_path / "a.png", BLUE)
    path = stage(tmp_path, bound("m", UV), textured("m", "./a.png"))
    assert UsdUtils.CreateNewUsdzPackage(str(path), str(tmp_path / "m.usdz"))
    (tmp_path / "a.png").unlink()
    item, _ = load(tmp_path / "m.usdz")
    near(color_at(item, *LEFT), BLUE)
    from pxr import Usd

    Usd.Stage.Open(str(path)).Export(str(tmp_path / "n.usd"))  # of the binary kind
    item, said = load(tmp_path / "n.usd")
    assert "grey" in said[0] and any("turn about an axis unseen" in s and "a.png" in s for s in said)


def test_images_are_moved_repeated_and_scaled(tmp_path):
    stripes(RED, GREEN).save(tmp_path / "a.png")
    moved = """
        def Shader "move"
        {
            uniform token info:id = "UsdTransform2d"
            float2 inputs:in.connect = </World/m/st.outputs:result>
            float2 inputs:translation = (0.5, 0)
            float2 outputs:result
        }"""
    wrap = 'token inputs:wrapS = "repeat"'
    half = "float4 inputs:scale = (0.5, 0.5, 0.5, 1)"
    path = stage(
        tmp_path,
        bound("m", UV),
        textured("m", "a.png", wrap=wrap, scale=half, st="</World/m/move.outputs:result>", more=moved),
    )
    item, _ = load(path)
    dark = [round(c * 0.735) for c in GREEN]
    near(color_at(item, 0.02, 0.1), dark, 6)
    near(color_at(item, 0.08, 0.1), [round(c * 0.735) for c in RED], 6)


@pytest.mark.parametrize(
    "said, light",
    [
        ('token inputs:sourceColorSpace = "raw"', lambda v: v),
        ('token inputs:sourceColorSpace = "sRGB"', None),
        ("float4 inputs:bias = (0.1, 0, 0, 0)", lambda v: srgb(v) + [0.1, 0, 0]),
        ("float4 inputs:scale = (0.5, 2, 1, 1)\nfloat4 inputs:bias = (0.2, 0, -0.1, 0)", lambda v: srgb(v) * [0.5, 2, 1] + [0.2, 0, -0.1]),
    ],
    ids=["raw", "sRGB", "bias", "scale and bias"],
)  # fmt: skip
def test_pixels_become_light_by_colour_space_scale_and_bias(tmp_path, said, light):
    stripes(RED, GREEN).save(tmp_path / "a.png")
    item, _ = load(stage(tmp_path, bound("m", UV), textured("m", "a.png", scale=said)))
    for x, color in ((0.02, RED), (0.08, GREEN)):
        near(color_at(item, x, 0.1), color if light is None else displayed(light(np.array(color) / 255)))


@pytest.mark.parametrize("space, shown", [("auto", 188), ("sRGB", 128)])
def test_grey_images_are_light_unless_they_say_otherwise(tmp_path, space, shown):
    """As UsdUVTexture defines "auto": 8 bits of three or four channels are sRGB, all else is not."""
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save(tmp_path / "a.png")
    said = f'token inputs:sourceColorSpace = "{space}"'
    item, _ = load(stage(tmp_path, bound("m", UV), textured("m", "a.png", scale=said)))
    near(color_at(item, 0.02, 0.1), [shown] * 3)


def test_what_is_shown_without_its_image_is_its_fallback(tmp_path):
    said = f"float4 inputs:fallback = {linear(RED)[:-1]}, 1)"
    item, notes = load(stage(tmp_path, bound("m", UV), textured("m", "gone.png", scale=said)))
    near(color_at(item, 0.02, 0.1), RED)
    assert "fallback" in notes[0] and any("gone.png" in line for line in notes)


def test_images_are_the_right_way_up_and_turn_counterclockwise(tmp_path):
    stripes(RED, GREEN).transpose(Image.Transpose.ROTATE_270).save(tmp_path / "a.png")  # red above green
    item, _ = load(stage(tmp_path, bound("m", UV), textured("m", "a.png")))
    near(color_at(item, 0.05, 0.18), RED)
    near(color_at(item, 0.05, 0.02), GREEN)
    turned = """
        def Shader "move"
        {
            uniform token info:id = "UsdTransform2d"
            float2 inputs:in.connect = </World/m/st.outputs:result>
            float inputs:rotation = 90
            float2 inputs:scale = (0.4, 0.4)
            float2 inputs:translation = (0.5, 0.3)
            float2 outputs:result
        }"""  # (u, v) -> (0.5 - 0.4 v, 0.3 + 0.4 u)
    item, _ = load(
        stage(tmp_path, bound("m", UV), textured("m", "a.png", st="</World/m/move.outputs:result>", more=turned))
    )
    near(color_at(item, 0.01, 0.1), GREEN)
    near(color_at(item, 0.09, 0.1), RED)


def test_subsets_have_materials_of_their_own_and_colours_are_linear(tmp_path):
    parts = "".join(
        f"""
        def GeomSubset "{n}" ({BOUND})
        {{
            uniform token elementType = "face"
            uniform token familyName = "materialBind"
            int[] indices = [{i}]
            rel material:binding = </World/{n}>
        }}"""
        for i, n in enumerate(("red", "blue"))
    )
    path = stage(tmp_path, mesh(parts), material("red", f" = {linear(RED)}"), material("blue", f" = {linear(BLUE)}"))
    item, said = load(path)
    near(color_at(item, *LEFT), RED)
    near(color_at(item, *RIGHT), BLUE)
    assert "red: base colour 190/30/40" in said[0]
    colors = f'\ncolor3f[] primvars:Col = [{linear(BLUE)}, {linear(RED)}] (interpolation = "uniform")'
    item, said = load(stage(tmp_path, mesh(parts + colors), reader("red"), reader("blue")))
    near(color_at(item, *LEFT), BLUE)
    near(color_at(item, *RIGHT), RED)
    assert "red: Col; blue: Col" in said[0] and len(said) == 1
    _, said = load(stage(tmp_path, mesh(parts), reader("red"), reader("blue")))
    assert "its mesh has no Col" in said[0]


def test_an_image_without_coordinates_is_one_colour(tmp_path):
    """As in palettes: the texel at (0, 0), or at the place that is given, for the whole material."""
    stripes(RED, GREEN, size=16).save(tmp_path / "a.png")
    for value, color in (("", RED), (" = (0.9, 0.5)", GREEN)):
        path = stage(tmp_path, bound("m", UV), textured("m", "a.png"))
        path.write_text(
            path.read_text().replace("inputs:st.connect = </World/m/st.outputs:result>", f"inputs:st{value}")
        )
        item, said = load(path)
        near(color_at(item, *LEFT), color)
        near(color_at(item, *RIGHT), color)
        assert "of a.png" in said[0] and len(said) == 1


def test_materialx_nodes_in_the_stage_take_the_first_coordinates(tmp_path):
    stripes(RED, GREEN).save(tmp_path / "a.png")
    look = """
    def Material "m"
    {
        token outputs:mtlx:surface.connect = </World/m/s.outputs:out>
        def Shader "s"
        {
            uniform token info:id = "ND_standard_surface_surfaceshader"
            color3f inputs:base_color.connect = </World/m/i.outputs:out>
            token outputs:out
        }
        def Shader "i"
        {
            uniform token info:id = "ND_image_color3"
            asset inputs:file = @a.png@
            color3f outputs:out
        }
    }
"""
    item, _ = load(stage(tmp_path, bound("m", UV.replace("map1", "st")), look))
    near(color_at(item, 0.02, 0.1), RED)
    near(color_at(item, 0.08, 0.1), GREEN)


def test_materials_in_materialx_are_named(tmp_path):
    (tmp_path / "look.mtlx").write_text('<?xml version="1.0"?>\n<materialx version="1.38"></materialx>\n')
    path = stage(tmp_path, mesh(), 'def Scope "Looks" (prepend references = @./look.mtlx@</MaterialX>)\n{\n}\n')
    _, said = load(path)
    assert any("its materials are in MaterialX (look.mtlx)" in s for s in said)


@pytest.mark.parametrize(
    "interpolation, count", [("uniform", 2), ("vertex", 6), ("varying", 6), ("constant", 1), ("faceVarying", 8)]
)
def test_display_colours_of_every_interpolation(tmp_path, interpolation, count):
    each = [RED, RED, BLUE] * 2  # those of points: blue at the right end
    colors = {
        "uniform": [RED, BLUE],
        "vertex": each,
        "varying": each,
        "constant": [RED],
        "faceVarying": [RED] * 4 + [BLUE] * 4,
    }[interpolation]
    assert len(colors) == count
    listed = ", ".join(linear(c) for c in colors)
    said = f'color3f[] primvars:displayColor = [{listed}] (interpolation = "{interpolation}")'
    item, _ = load(stage(tmp_path, mesh(said)))
    near(color_at(item, *LEFT), RED)
    near(color_at(item, 0.1999, 0.07), colors[-1])


def test_omniverse_materials_are_read(tmp_path):
    png(tmp_path / "a.png", GREEN)
    omni = """
    def Material "m"
    {
        token outputs:mdl:surface.connect = </World/m/Shader.outputs:out>
        def Shader "Shader"
        {
            uniform token info:implementationSource = "sourceAsset"
            uniform asset info:mdl:sourceAsset = @OmniPBR.mdl@
            uniform token info:mdl:sourceAsset:subIdentifier = "OmniPBR"
            %s
            token outputs:out
        }
    }
"""
    uv = UV.replace("map1", "st")
    item, _ = load(stage(tmp_path, bound("m", uv), omni % "asset inputs:diffuse_texture = @a.png@"))
    near(color_at(item, *LEFT), GREEN)
    item, said = load(stage(tmp_path, bound("m", uv), omni % 'string inputs:diffuse_texture = "a.png"'))
    assert "its shader names no colour" in said[0]
    item, _ = load(stage(tmp_path, bound("m"), omni % f"color3f inputs:diffuse_color_constant = {linear(BLUE)}"))
    near(color_at(item, *LEFT), BLUE)


def test_only_what_is_shown_is_taken_where_it_is(tmp_path):
    moved = mesh('double3 xformOp:translate = (0, 0, 2)\nuniform token[] xformOpOrder = ["xformOp:translate"]')
    guide = mesh('uniform token purpose = "guide"', name="guide", points=STRIP * 50)
    hidden = mesh('token visibility = "invisible"', name="hidden", points=STRIP * 50)
    scaled = """
    float3 xformOp:scale = (10, 10, 10)
    uniform token[] xformOpOrder = ["xformOp:scale"]
"""
    head = HEAD.replace("metersPerUnit = 1", "metersPerUnit = 0.01")
    now = mesh('token visibility.timeSamples = {0: "invisible", 1: "inherited"}', name="later", points=STRIP * 50)
    scattered = f"""
    def PointInstancer "many"
    {{
        point3f[] positions = [(5, 0, 0)]
        int[] protoIndices = [0]
        rel prototypes = [</World/many/one>]
        {mesh(name="one", points=STRIP * 50)}
    }}
"""
    path = stage(tmp_path, scaled, moved, guide, hidden, now, scattered, head=head)
    path.write_text(path.read_text() + mesh(name="ground", points=STRIP * 500))  # beside the default prim
    item, said = load(path, scale=0.01)
    assert any("what /World/many scatters is left out" in s for s in said)
    np.testing.assert_allclose(item.extents, [0.02, 0.02, 0], atol=1e-7)
    np.testing.assert_allclose(item.center, [0.01, 0.01, 0.2], atol=1e-7)
    assert item.unit == pytest.approx(0.01)
    with pytest.raises(MeshError, match=r"its unit is 0.01 m by its own word. Set scale: 0.01"):
        load(stage(tmp_path, mesh(points=STRIP * 500), head=head))


def test_instances_are_taken_each(tmp_path):
    part = stage(tmp_path, mesh(), name="part.usda")
    places = "".join(
        f"""
    def "i{i}" (
        instanceable = true
        prepend references = @./{part.name}@
    )
    {{
        double3 xformOp:translate = ({i}, 0, 0)
        uniform token[] xformOpOrder = ["xformOp:translate"]
    }}
"""
        for i in (0, 1)
    )
    item, _ = load(stage(tmp_path, places, name="whole.usda"))
    assert len(item.arrays.faces) == 8 and item.extents[0] == pytest.approx(1.2)
    part.unlink()
    with pytest.raises(MeshError, match="shows no mesh .it refers to part.usda, which is not there; copy it too"):
        load(tmp_path / "whole.usda")


def test_left_handed_and_mirrored_faces_look_outwards(tmp_path):
    up = load(stage(tmp_path, mesh()))[0].arrays.normals
    left = 'uniform token orientation = "leftHanded"'
    mirrored = 'float3 xformOp:scale = (-1, 1, 1)\nuniform token[] xformOpOrder = ["xformOp:scale"]'
    assert (up[:, 2] > 0.99).all()
    assert (load(stage(tmp_path, mesh(left)))[0].arrays.normals[:, 2] < -0.99).all()
    assert (load(stage(tmp_path, mesh(mirrored)))[0].arrays.normals[:, 2] > 0.99).all()


@pytest.mark.parametrize(
    "shape, said, size",
    [
        ("Cube", "double size = 3", (3, 3, 3)),
        ("Sphere", "", (2, 2, 2)),
        ("Cylinder", 'uniform token axis = "X"\ndouble height = 3', (3, 2, 2)),
        ("Capsule", 'uniform token axis = "Y"\ndouble height = 3\ndouble radius = 0.5', (1, 4, 1)),
        ("Cone", "double height = 3", (2, 2, 3)),
    ],
)
def test_simple_shapes(tmp_path, shape, said, size):
    item, _ = load(stage(tmp_path, f'def {shape} "s"\n{{\n{said}\n}}\n'), scale=0.1)
    np.testing.assert_allclose(item.extents, np.array(size) / 10, atol=1e-3)
    np.testing.assert_allclose(item.center, 0, atol=1e-3)
    if shape == "Cone":
        top = item.arrays.vertices[item.arrays.vertices[:, 2] > 0.14]
        assert len(top) and np.abs(top[:, :2]).max() < 1e-6


def test_what_is_no_surface_of_faces_is_said(tmp_path):
    curves = 'def BasisCurves "hair"\n{\npoint3f[] points = [(0, 0, 0), (1, 1, 1)]\nint[] curveVertexCounts = [2]\n}\n'
    item, said = load(stage(tmp_path, mesh(), curves))
    assert len(item.arrays.faces) == 4
    assert any("/World/hair is left out, because BasisCurves is not read" in s for s in said)


def test_colours_that_nothing_shows_are_said(tmp_path):
    colors = f'color3f[] primvars:Col = [{linear(RED)}, {linear(BLUE)}] (interpolation = "uniform")'
    item, said = load(stage(tmp_path, bound("m", colors), material("m", " = (0.8, 0.8, 0.8)")))
    near(color_at(item, *LEFT), (231, 231, 231))
    assert any("colours (Col) that its material 'm' does not show" in s for s in said)


def test_points_of_another_type_are_left_out_and_said(tmp_path):
    text = stage(tmp_path, mesh(), mesh(name="odd")).read_text()
    odd = text.rindex("point3f[] points")
    text = text[:odd] + "float[] points = [1, 2, 3]" + text[text.index("\n", odd) :]
    (tmp_path / "m.usda").write_text(text)
    item, said = load(tmp_path / "m.usda")
    assert len(item.arrays.faces) == 4 and any("/World/odd has points or faces of another type" in s for s in said)


@pytest.mark.parametrize(
    "text, words",
    [
        ("#usda 1.0\ndef Mesh {", "damaged, or no USD"),
        ('#usda 1.0\ndef Xform "a"\n{\n}\n', "shows no mesh"),
        (
            HEAD
            + 'def Mesh "World"\n{\npoint3f[] points = [(0,0,0)]\nint[] faceVertexCounts = [3]\nint[] faceVertexIndices = [0,1,2]\n}',
            "a vertex that is not there",
        ),
    ],
)
def test_what_is_no_mesh_says_why(tmp_path, text, words):
    (tmp_path / "m.usda").write_text(text)
    with pytest.raises(MeshError, match=words):
        load(tmp_path / "m.usda")
