"""glTF: base colours as the specification multiplies them, coordinates, stored types, transforms, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from rfdetr_foundationpose.pose.mesh import MeshError
from support.mesh_files import BLUE, GREEN, LEFT, RED, RIGHT, STRIP, Gltf, color_at, load, png, stripes

WHITE = Image.new("RGB", (4, 4), (255, 255, 255))


def srgb(linear: float) -> int:
    return round(255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055))


def near(seen, expected, tolerance=1):
    np.testing.assert_allclose(seen, expected, atol=tolerance)


def test_factor_texture_and_vertex_colours_are_multiplied_in_linear_light(tmp_path):
    g = Gltf()
    half = Image.new("RGB", (4, 4), (188, 188, 188))  # linear 0.5029
    colors = g.accessor(np.tile([[0.3, 0.9, 0.77]], (4, 1)).astype("f4"))
    material = g.material(baseColorTexture={"index": g.image(half)}, baseColorFactor=[0.5, 1, 0.25, 1])
    g.mesh(g.quad(0, material, COLOR_0=colors), g.quad(1, material))
    item, said = load(g.save(tmp_path / "m.glb"))
    near(color_at(item, *LEFT), [srgb(0.5029 * 0.5 * 0.3), srgb(0.5029 * 0.9), srgb(0.5029 * 0.25 * 0.77)])
    near(color_at(item, *RIGHT), [srgb(0.5029 * 0.5), 188, srgb(0.5029 * 0.25)])
    assert "x vertex colours" in said[0]


def test_vertex_colours_that_vary_over_a_textured_face(tmp_path):
    g = Gltf()
    ramp = np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0]], "f4") * 0.9
    g.mesh(g.quad(0, g.material(baseColorTexture={"index": g.image(WHITE)}), COLOR_0=g.accessor(ramp)), g.quad(1))
    item, _ = load(g.save(tmp_path / "m.glb"))
    for x in (0.02, 0.05, 0.08):
        near(color_at(item, x, 0.09), [srgb(0.9 * x / 0.1)] * 3, 6)
    assert color_at(item, *RIGHT) == [128] * 3 and item.color_source == "texture + uniform grey"


@pytest.mark.parametrize(
    "colors",
    [
        np.array([[40, 50, 200, 255]], "u1"),
        np.array([[40, 50, 200]], "u1"),
        (np.array([[40, 50, 200]]) / 255).astype("f4"),
        (np.array([[40, 50, 200, 255]]) * 257).astype("u2"),
    ],
)
def test_bytes_of_an_image_stay_what_they_are(tmp_path, colors):
    g = Gltf()
    g.mesh(g.quad(0, COLOR_0=g.accessor(np.tile(colors, (4, 1)), normalized=True)), g.quad(1))
    item, _ = load(g.save(tmp_path / "m.glb"))
    near(color_at(item, *LEFT), BLUE)


@pytest.mark.parametrize(
    "said", [{"asset": {"version": "2.0", "generator": "gltfpack 0.20"}}, {"extensionsUsed": ["KHR_mesh_quantization"]}]
)
def test_packers_store_linear_light_in_bytes(tmp_path, said):
    g = Gltf()
    g.json.update(said)
    g.mesh(g.quad(0, COLOR_0=g.accessor(np.tile(np.array([[55, 0, 255]], "u1"), (4, 1)), normalized=True)))
    item, _ = load(g.save(tmp_path / "m.glb"))
    near(color_at(item, *LEFT), [srgb(55 / 255), 0, 255])


def test_vtk_writes_colours_as_it_shows_them_and_one_beside_those_of_vertices(tmp_path):
    g = Gltf()
    g.json["asset"]["generator"] = "VTK"
    orange = g.accessor(np.tile(np.array([[255, 128, 0, 255]], "u1"), (4, 1)), normalized=True)
    light_blue = g.material(baseColorFactor=[173 / 255, 216 / 255, 230 / 255, 1])
    g.mesh(g.quad(0, light_blue, COLOR_0=orange), g.quad(1, light_blue))
    item, _ = load(g.save(tmp_path / "m.glb"))
    near(color_at(item, *LEFT), [255, 128, 0])
    near(color_at(item, *RIGHT), [173, 216, 230])


@pytest.mark.parametrize(("generator", "red"), [("https://github.com/mikedh/trimesh", RED[0]), ("Blender", 123)])
def test_the_grey_that_trimesh_writes_beside_an_image_is_no_factor(tmp_path, generator, red):
    g = Gltf()
    g.json["asset"]["generator"] = generator
    image = g.image(Image.new("RGB", (4, 4), RED))
    g.mesh(g.quad(0, g.material(baseColorTexture={"index": image}, baseColorFactor=[0.4, 0.4, 0.4, 1])))
    near(color_at(load(g.save(tmp_path / "m.glb"))[0], *LEFT)[0], red, 2)


def test_coordinates_sets_transforms_and_wrap_modes(tmp_path):
    g = Gltf()
    two = g.image(stripes(RED, GREEN))
    second = g.accessor(np.array([[0.6, 0], [0.9, 0], [0.9, 1], [0.6, 1]], "f4"))
    beyond = g.accessor(np.array([[1, 0], [2, 0], [2, 1], [1, 1]], "f4"))
    turned = {"KHR_texture_transform": {"rotation": float(np.pi / 2), "offset": [0, 1], "texCoord": 0}}
    cases = [
        ({"index": two, "texCoord": 1}, {"TEXCOORD_1": second}, [GREEN, GREEN]),
        ({"index": two, "extensions": turned}, {}, [RED, RED]),
        ({"index": two}, {"TEXCOORD_0": beyond}, [RED, GREEN]),
        ({"index": two, "wrap": 33648}, {"TEXCOORD_0": beyond}, [GREEN, RED]),
        ({"index": two, "wrap": 33071}, {"TEXCOORD_0": beyond}, [GREEN, GREEN]),
    ]
    for texture, attributes, expected in cases:
        h = Gltf()
        h.json, h.data = json.loads(json.dumps(g.json)), g.data
        wrap = texture.pop("wrap", None)
        if wrap is not None:
            texture["index"] = h.entry("textures", {"source": 0, "sampler": h.entry("samplers", {"wrapS": wrap})})
        h.mesh(h.quad(0, h.material(baseColorTexture=texture), **attributes), h.quad(1, h.material()))
        item, _ = load(h.save(tmp_path / "m.glb"))
        y = 0.15 if texture.get("extensions") else 0.09
        seen = [color_at(item, x, y) for x in (0.02, 0.08)]
        assert seen == [list(c) for c in expected], texture
        assert color_at(item, *RIGHT) == [255] * 3


@pytest.mark.parametrize(
    ("material", "expected"),
    [
        ({"extensions": {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0, 0.5, 0, 1]}}}, [0, 188, 0]),
        ({"extensions": {"KHR_materials_unlit": {}}, "pbrMetallicRoughness": {"baseColorFactor": [0.5, 0, 0, 1]}}, [188, 0, 0]),
        ({}, [255, 255, 255]),
        ({"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}}, [0, 0, 0]),
        (
            {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}, "emissiveFactor": [1, 1, 1], "emissiveTexture": {"index": 0}},
            list(RED),
        ),
    ],
)  # fmt: skip
def test_materials_that_say_their_colour_otherwise(tmp_path, material, expected):
    g = Gltf()
    g.image(Image.new("RGB", (4, 4), RED))
    g.mesh(g.quad(0, g.entry("materials", material)))
    near(color_at(load(g.save(tmp_path / "m.glb"))[0], *LEFT), expected)


@pytest.mark.parametrize("kind", ["i1", "i2", "u2"])
@pytest.mark.parametrize("normalized", [True, False])
def test_quantized_positions(tmp_path, kind, normalized):
    g = Gltf()
    top = np.iinfo(kind).max
    stored = np.round(STRIP[[0, 2, 5, 3]] / 0.2 * 100).astype(kind)
    padded = np.zeros((4, 4 // np.dtype(kind).itemsize * 2), kind)
    padded[:, :3] = stored
    view = g.view(padded.tobytes(), byteStride=padded.strides[0])
    described = {
        "bufferView": view,
        "componentType": g.TYPES[kind],
        "count": 4,
        "type": "VEC3",
        "normalized": normalized,
    }
    scale = 0.2 / 100 * (top if normalized else 1)
    primitive = {"attributes": {"POSITION": g.entry("accessors", described)}, "mode": 6}
    g.mesh(primitive, scale=[scale] * 3)
    g.json["extensionsRequired"] = ["KHR_mesh_quantization"]
    item, _ = load(g.save(tmp_path / "m.glb"))
    np.testing.assert_allclose(item.extents, [0.2, 0.2, 0], atol=1e-6)


def test_nodes_mirrors_instances_and_strips(tmp_path):
    g = Gltf()
    positions = g.accessor(STRIP[[0, 1, 3, 4]].astype("f4"))
    mesh = g.entry("meshes", {"primitives": [{"attributes": {"POSITION": positions}, "mode": 5}]})
    moves = g.accessor(np.array([[0, 0, 0.5], [0, 0, 1.0]], "f4"))
    g.entry("nodes", {"mesh": mesh, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": moves}}}})
    g.entry("nodes", {"mesh": mesh, "scale": [-1, 1, 1], "rotation": [0, 0, 1, 0]})
    g.entry("nodes", {"children": [0, 1], "matrix": [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 1, 0, 0, 1]})
    g.json["scenes"] = [{"nodes": []}, {"nodes": [2]}]
    g.json["scene"] = 1
    item, _ = load(g.save(tmp_path / "m.glb"))
    assert item.arrays.faces.shape == (6, 3)
    np.testing.assert_allclose(item.center, [1.1, 0, 1.0], atol=1e-6)
    np.testing.assert_allclose(item.extents, [0.2, 0.8, 2.0], atol=1e-6)
    a, b, c = (item.arrays.vertices[item.arrays.faces[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all(), "a mirrored instance keeps facing the way it did"


def test_what_a_scene_hides_is_no_part_of_the_object(tmp_path):
    g = Gltf()
    mesh = g.entry("meshes", {"primitives": [{"attributes": {"POSITION": g.accessor(STRIP[[0, 1, 3]].astype("f4"))}}]})
    g.entry("nodes", {"mesh": mesh})
    g.entry("nodes", {"mesh": mesh, "translation": [0, 0, 1]})
    g.entry("nodes", {"children": [1], "extensions": {"KHR_node_visibility": {"visible": False}}})
    g.entry("nodes", {"mesh": mesh, "translation": [0, 0, 2], "extensions": {"KHR_node_visibility": {"visible": True}}})
    g.json["scenes"] = [{"nodes": [0, 2, 3]}]
    item, _ = load(g.save(tmp_path / "m.glb"))
    assert item.arrays.faces.shape == (2, 3) and item.extents[2] == pytest.approx(2.0)


def test_sparse_accessors_and_morph_targets(tmp_path):
    g = Gltf()
    primitive = g.quad(0)
    positions = g.json["accessors"][primitive["attributes"]["POSITION"]]
    where, what = g.view(np.array([2], "u2").tobytes()), g.view(np.array([0.1, 0.4, 0], "f4").tobytes())
    positions["sparse"] = {
        "count": 1,
        "indices": {"bufferView": where, "componentType": 5123},
        "values": {"bufferView": what},
    }
    primitive["targets"] = [{"POSITION": g.accessor(np.tile([[0, 0, 0.2]], (4, 1)).astype("f4"))}]
    mesh = g.mesh(primitive)
    g.json["meshes"][mesh]["weights"] = [0.5]
    item, _ = load(g.save(tmp_path / "m.glb"))
    np.testing.assert_allclose(item.extents, [0.1, 0.4, 0], atol=1e-6)
    assert item.center[2] == pytest.approx(0.1)


def test_a_skin_is_posed_by_its_joints(tmp_path):
    g = Gltf()
    joints = g.accessor(np.zeros((4, 4), "u1"))
    weights = g.accessor(np.tile([[1, 0, 0, 0]], (4, 1)).astype("f4"))
    primitive = g.quad(0, JOINTS_0=joints, WEIGHTS_0=weights)
    joint = g.entry("nodes", {"translation": [0, 0, 0.3]})
    bind = np.eye(4)
    bind[0, 3] = -0.1
    inverse = g.accessor(bind.T.reshape(1, 16).astype("f4"))
    g.entry("skins", {"joints": [joint], "inverseBindMatrices": inverse})
    g.mesh(primitive, skin=0, translation=[9, 9, 9])
    g.json["scenes"][0]["nodes"].append(joint)
    item, _ = load(g.save(tmp_path / "m.glb"))
    np.testing.assert_allclose(item.center, [-0.05, 0.1, 0.3], atol=1e-6)


def test_files_beside_the_document(tmp_path):
    png(tmp_path / "r ü.png", RED)
    g = Gltf()
    material = g.material(
        baseColorTexture={"index": g.entry("textures", {"source": g.entry("images", {"uri": "r%20%C3%BC.png"})})}
    )
    g.mesh(g.quad(0, material))
    (tmp_path / "b 1.bin").write_bytes(g.data)
    g.json["buffers"] = [{"byteLength": len(g.data), "uri": "b%201.bin"}]
    (tmp_path / "m.gltf").write_text(json.dumps(g.json))
    assert color_at(load(tmp_path / "m.gltf")[0], *LEFT) == list(RED)
    (tmp_path / "r ü.png").unlink()
    item, said = load(tmp_path / "m.gltf")
    assert item.color_source == "uniform grey" and "'r ü.png' was not found (looked in" in "\n".join(said)
    (tmp_path / "b 1.bin").unlink()
    with pytest.raises(MeshError, match="its file 'b%201.bin' was not found.*keep it beside"):
        load(tmp_path / "m.gltf")


def test_what_is_not_read_is_named_with_the_remedy(tmp_path):
    g = Gltf()
    primitive = g.quad(
        0,
        g.material(
            baseColorTexture={"index": g.entry("textures", {"extensions": {"KHR_texture_basisu": {"source": 0}}})}
        ),
    )
    g.mesh(primitive)
    item, said = load(g.save(tmp_path / "k.glb"))
    assert item.color_source == "uniform grey" and "KHR_texture_basisu" in "\n".join(said)
    view = g.json["bufferViews"][g.json["accessors"][primitive["attributes"]["POSITION"]]["bufferView"]]
    view["extensions"] = {"KHR_meshopt_compression": {}}
    with pytest.raises(MeshError, match=r"compressed with meshopt.*gltf-transform"):
        load(g.save(tmp_path / "m.glb"))
    g = Gltf()
    primitive = g.quad(0)
    primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {}}}
    g.mesh(primitive)
    assert load(g.save(tmp_path / "both.glb"))[0].arrays.faces.shape == (2, 3), "the uncompressed copy is there too"
    g.json["accessors"][primitive["attributes"]["POSITION"]].pop("bufferView")
    with pytest.raises(MeshError, match=r"compressed with Draco.*without compression"):
        load(g.save(tmp_path / "draco.glb"))
    g = Gltf()
    g.mesh({"attributes": {"POSITION": g.accessor(STRIP.astype("f4"))}, "mode": 0})
    with pytest.raises(MeshError, match="1 primitives of points or lines"):
        load(g.save(tmp_path / "points.glb"))
    g.json["nodes"].append({"children": [1]})
    g.json["scenes"][0]["nodes"] = [1]
    with pytest.raises(MeshError, match="contain each other"):
        load(g.save(tmp_path / "cycle.glb"))
