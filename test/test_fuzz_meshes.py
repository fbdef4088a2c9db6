"""Damaged meshes end in a mesh or in one sentence; ``make fuzz`` runs many of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pose.mesh import read_object
from support.fuzz import cases, damaged, mistyped, mistyped_xml, try_seeds
from support.mesh_files import RED, Gltf, obj, png, stripes

PER_FORMAT = cases(6)


def ball() -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.abs(mesh.vertices) * 5000)
    return mesh


def _obj(folder: Path) -> tuple[Path, Path]:
    png(folder / "red.png", RED)
    body = "usemtl A\nf 1/1 2/2 5/3 4/4\nusemtl B\nf 2/1 3/2 6/3\nf 2//1 6//1 5//1\nvn 0 0 1\n"
    path = obj(folder / "m.obj", body, "newmtl A\nmap_Kd -s 2 2 1 red.png\nnewmtl B\nKd 0.1 0.2 0.3\n")
    return path, path


def _mtl(folder: Path) -> tuple[Path, Path]:
    path, _ = _obj(folder)
    return path, path.with_suffix(".mtl")


def _texture(folder: Path) -> tuple[Path, Path]:
    path, _ = _obj(folder)
    return path, folder / "red.png"


def _exported(suffix: str, **how: str) -> Callable[[Path], tuple[Path, Path]]:
    def write(folder: Path) -> tuple[Path, Path]:
        path = folder / f"m{suffix}"
        ball().export(path, **how)
        return path, path

    return write


def _mixed_ply(folder: Path) -> tuple[Path, Path]:
    path = folder / "m.ply"
    head = "ply\nformat binary_little_endian 1.0\ncomment TextureFile red.png\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\nelement face 3\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    body = np.random.default_rng(0).random((6, 3)).astype("<f4").tobytes()
    for face in ((0, 1, 4, 3), (1, 2, 5), (1, 5, 4)):
        body += bytes([len(face)]) + np.array(face, "<i4").tobytes() + bytes([2 * len(face)])
        body += np.linspace(0, 1, 2 * len(face)).astype("<f4").tobytes() + bytes(RED)
    path.write_bytes(head.encode() + body)
    png(folder / "red.png", RED)
    return path, path


def _glb(folder: Path) -> tuple[Path, Path]:
    g = Gltf()
    material = g.material(baseColorTexture={"index": g.image(Image.effect_noise((16, 16), 60))})
    colors = g.accessor(np.random.default_rng(0).random((4, 4)).astype("f4"))
    g.mesh(g.quad(0, material, COLOR_0=colors), g.quad(1, g.material(baseColorFactor=[1, 0, 0, 1])), scale=[1, 1, 2])
    path = g.save(folder / "m.glb")
    return path, path


def _gltf(folder: Path) -> tuple[Path, Path]:
    g = Gltf()
    stripes(RED, RED).save(folder / "s.png")
    texture = g.entry("textures", {"source": g.entry("images", {"uri": "s.png"}), "sampler": 0})
    g.entry("samplers", {"wrapS": 33648})
    transform = {"KHR_texture_transform": {"offset": [0.1, 0.2], "rotation": 0.3, "scale": [2, 2]}}
    g.mesh(g.quad(0, g.material(baseColorTexture={"index": texture, "extensions": transform})), g.quad(1))
    (folder / "m.bin").write_bytes(g.data)
    g.json["buffers"] = [{"byteLength": len(g.data), "uri": "m.bin"}]
    path = folder / "m.gltf"
    path.write_text(json.dumps(g.json, indent=1))
    return path, path


def _colored_off(folder: Path) -> tuple[Path, Path]:
    """Polygons of three to six corners, with colours of vertices or, in every second face, of its own."""
    rng = np.random.default_rng(0)
    rows = [f"{x:.4f} {y:.4f} {z:.4f}" for x, y, z in rng.random((40, 3))]
    for i in range(30):
        corners = rng.choice(40, 3 + i % 4, replace=False)
        rows.append(f"{len(corners)} {' '.join(map(str, corners))}{' 0.2 0.4 0.9 1' if i % 2 else ''}  # face")
    path = folder / "m.off"
    path.write_text("OFF # by hand\n40 30 0\n\n" + "\n".join(rows) + "\n")
    return path, path


def _vertex_off(folder: Path) -> tuple[Path, Path]:
    mesh = ball()
    rows = [f"{' '.join(f'{c:.5f}' for c in v)} 0 0 1 90 40 200 255" for v in mesh.vertices]
    path = folder / "m.off"
    path.write_text(
        "\n".join(["NCOFF", f"{len(rows)} {len(mesh.faces)} 0", *rows, *(f"3 {a} {b} {c}" for a, b, c in mesh.faces)])
    )
    return path, path


CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
MATERIAL = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"


def _model(folder: Path) -> tuple[Path, Path]:
    """The model of a 3MF: base materials, a colour group, a texture, mixtures, layers, an object of components, items with transforms."""
    mesh = trimesh.creation.icosphere(1, 20)
    vertices = "\n".join('<vertex x="{:.4f}" y="{:.4f}" z="{:.4f}"/>'.format(*v) for v in mesh.vertices)
    looks = (
        *("", 'pid="5" p1="1"', 'pid="6" p1="0" p2="1" p3="1"', 'pid="7" p1="0" p2="1" p3="2"'),
        *('pid="8" p1="0" p2="1" p3="0"', 'pid="9" p1="0" p2="1" p3="2"'),
    )
    triangles = "\n".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" {looks[i % 6]}/>' for i, (a, b, c) in enumerate(mesh.faces)
    )
    png(folder / "a.png", RED)
    file = folder / "3dmodel.model"
    file.write_text(f"""<?xml version="1.0" encoding="UTF-8"?>
<model unit="millimeter" xmlns="{CORE}" xmlns:m="{MATERIAL}"><resources>
<basematerials id="5"><base name="a" displaycolor="#C82814"/><base name="b" displaycolor="#2828C8FF"/></basematerials>
<m:colorgroup id="6"><m:color color="#C82814"/><m:color color="#28C828"/></m:colorgroup>
<m:texture2d id="4" path="/3D/a.png" contenttype="image/png" tilestyleu="mirror"/>
<m:texture2dgroup id="7" texid="4"><m:tex2coord u="0" v="0"/><m:tex2coord u="1" v="0"/><m:tex2coord u="1" v="1"/></m:texture2dgroup>
<m:compositematerials id="8" matid="5" matindices="0 1"><m:composite values="0.2 0.8"/><m:composite values="1 0"/></m:compositematerials>
<m:multiproperties id="9" pids="5 7 6" blendmethods="mix multiply"><m:multi pindices="0 0 0"/><m:multi pindices="1 1 1"/><m:multi pindices="1 2"/></m:multiproperties>
<object id="1" type="model" pid="5" pindex="0"><mesh><vertices>{vertices}</vertices><triangles>{triangles}</triangles></mesh></object>
<object id="2"><components><component objectid="1" transform="1 0 0 0 1 0 0 0 1 0 0 50"/><component objectid="1"/></components></object>
</resources><build><item objectid="2"/><item objectid="1" transform="0 1 0 1 0 0 0 0 1 60 0 0"/></build></model>
""")
    path = folder / "m.3mf"
    pack(path, file)
    return path, file


def pack(path: Path, model: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("3D/3dmodel.model", model.read_bytes())
        package.write(model.parent / "a.png", "3D/a.png")


def _three_mf(folder: Path) -> tuple[Path, Path]:
    path, _ = _model(folder)
    return path, path


def _usd(folder: Path) -> tuple[Path, Path]:
    pytest.importorskip("pxr", reason="the extra usd is not installed")
    png(folder / "a.png", RED)
    path = folder / "m.usda"
    path.write_text("""#usda 1.0
(
    metersPerUnit = 0.01
)
def Mesh "m" (prepend apiSchemas = ["MaterialBindingAPI"])
{
    point3f[] points = [(0, 0, 0), (10, 0, 0), (0, 10, 0), (10, 10, 5), (4, 4, 20)]
    int[] faceVertexCounts = [4, 3, 3]
    int[] faceVertexIndices = [0, 1, 3, 2, 0, 1, 4, 2, 4, 0]
    color3f[] primvars:displayColor = [(1, 0, 0), (0, 1, 0), (0, 0, 1)] (interpolation = "uniform")
    texCoord2f[] primvars:st = [(0, 0), (1, 0), (1, 1), (0, 1)] (interpolation = "faceVarying")
    int[] primvars:st:indices = [0, 1, 2, 3, 0, 1, 2, 0, 2, 3]
    double3 xformOp:translate = (1, 2, 3)
    uniform token[] xformOpOrder = ["xformOp:translate"]
    rel material:binding = </a>
}
def Material "a"
{
    token outputs:surface.connect = </a/s.outputs:surface>
    def Shader "s"
    {
        uniform token info:id = "UsdPreviewSurface"
        color3f inputs:diffuseColor.connect = </a/t.outputs:rgb>
        token outputs:surface
    }
    def Shader "t"
    {
        uniform token info:id = "UsdUVTexture"
        asset inputs:file = @a.png@
        float3 outputs:rgb
    }
}
""")
    return path, path


FORMATS: dict[str, Callable[[Path], tuple[Path, Path]]] = {
    "obj": _obj,
    "mtl": _mtl,
    "texture": _texture,
    "ply, ascii": _exported(".ply", encoding="ascii"),
    "ply, binary": _exported(".ply"),
    "ply, polygons": _mixed_ply,
    "glb": _glb,
    "gltf": _gltf,
    "stl": _exported(".stl"),
    "stl, ascii": _exported(".stl", file_type="stl_ascii"),
    "off": _exported(".off"),
    "off, faces": _colored_off,
    "off, vertices": _vertex_off,
    "3mf": _three_mf,
    "3mf, model": _model,
    "dae": _exported(".dae"),
    "usd": _usd,
}


TEXTS: dict[str, Callable[[str, int], tuple[str, str]]] = {
    **dict.fromkeys(("obj", "mtl", "gltf", "usd"), mistyped),
    **dict.fromkeys(("dae", "3mf, model"), mistyped_xml),
}
"""What people mistype, besides what happens to bytes."""


def load(path: Path) -> str:
    item = read_object(ObjectSpec("thing", path, scale=0.001))
    said = (item.description, *item.warnings)
    a = item.arrays
    assert np.isfinite(a.vertices).all() and np.isfinite(a.normals).all() and np.isfinite(a.colors).all()
    assert a.faces.min() >= 0 and a.faces.max() < len(a.vertices) == len(a.normals) == len(a.colors)
    assert (a.uv is None) == (a.texture is None)
    if a.uv is not None:
        assert np.isfinite(a.uv).all() and a.uv.shape == (len(a.faces), 3, 2) and a.texture.size > 0
    assert all("\n" not in line for line in said)
    return "a mesh" if len(said) < 3 else "a mesh and what is missing"


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_ends_in_a_mesh_or_one_sentence(name, tmp_path):
    mesh, file = FORMATS[name](tmp_path)
    assert load(mesh).startswith("a mesh")
    whole = file.read_bytes()
    text = whole.decode() if name in TEXTS else ""

    def damage(seed: int) -> str:
        if text and seed % 2:
            changed, what = TEXTS[name](text, seed)
            broken = changed.encode()
        else:
            broken, what = damaged(whole, seed)
        file.write_bytes(broken)
        if file.suffix == ".model":
            pack(mesh, file)
        return what

    try_seeds(name, PER_FORMAT, damage, lambda: load(mesh))
