"""Damaged meshes end in a mesh or in one sentence; ``make fuzz`` runs many of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pose.mesh import read_object
from support.fuzz import cases, damaged, mistyped, outcome, table
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
    "dae": _exported(".dae"),
}


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
    text = whole.decode() if name in ("obj", "mtl", "gltf") else ""
    seen: Counter[str] = Counter()
    for seed in range(PER_FORMAT):
        if text and seed % 2:
            changed, what = mistyped(text, seed)
            broken = changed.encode()
        else:
            broken, what = damaged(whole, seed)
        file.write_bytes(broken)
        try:
            seen[outcome(lambda: load(mesh))] += 1
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed} ({what}): {type(error).__name__}: {error}") from error
    print(f"{name}: {table(seen)}")
