"""Large mesh files are read piece by piece: the same meshes come out, and little more memory is taken than they need."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
import trimesh

from rfdetr_foundationpose.meshes import cleaning, normals, obj, ply, ply_file, reading
from support.mesh_files import RED, load, png

ARRAYS = ("vertices", "faces", "surface", "colors", "face_colors", "uv", "uv_index", "normals", "normal_index")


def assert_same(one, other):
    for name in ARRAYS:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert [(s.name, s.source) for s in one.surfaces] == [(s.name, s.source) for s in other.surfaces]
    assert one.notes == other.notes


def mixed_obj(folder):
    """Faces of every form, in runs, so that small pieces hold one form alone, or none."""
    png(folder / "a.png", RED)
    (folder / "m.mtl").write_text("newmtl A\nmap_Kd a.png\nnewmtl B\nKd 0.1 0.2 0.9\n")
    rng = np.random.default_rng(0)
    lines = ["mtllib m.mtl"]
    for block, form in enumerate(("{v}", "{v}/{t}", "{v}//{n}", "{v}/{t}/{n}", "{v}/{t}")):
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in rng.random((30, 3))]
        lines += [f"vt {u:.6f} {v:.6f}" for u, v in rng.random((30, 2))] + [
            f"vn {x:.6f} {y:.6f} {z:.6f}" for x, y, z in rng.normal(size=(30, 3))
        ]
        for i in range(40):
            if i % 15 == 0:
                lines.append(f"usemtl {'AB'[(block + i) % 2]}")
            corners = rng.choice(30, 3 + i % 3, replace=False) + 1
            number = corners - 31 if i % 2 else corners + 30 * block
            lines.append("f " + " ".join(form.format(v=n, t=n, n=n) for n in number.tolist()))
    path = folder / "m.obj"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("size", [64, 300, 5000])
def test_an_obj_in_pieces(tmp_path, monkeypatch, size):
    path = mixed_obj(tmp_path)
    whole = obj.read(path)
    monkeypatch.setattr(obj, "_PIECE", size)
    assert_same(obj.read(path), whole)
    assert (whole.uv_index == -1).any() and (whole.uv_index >= 0).any() and len(whole.surfaces) > 1


@pytest.mark.parametrize("form", ["ascii", "ascii, CRLF and blank lines", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("uneven", [False, True])
def test_a_ply_in_pieces(tmp_path, monkeypatch, form, uneven):
    rng = np.random.default_rng(1)
    order = ">" if "big" in form else "<"
    points = rng.random((400, 3)).round(4)
    faces = [rng.choice(400, 4 if uneven and i == 250 else 3, replace=False).tolist() for i in range(500)]
    colors = rng.integers(0, 256, (500, 3)).tolist()
    head = (
        f"ply\nformat {form.partition(',')[0]} 1.0\nelement other 30\nproperty list uchar short note\nelement vertex 400\n"
        "property float x\nproperty float y\nproperty float z\nelement face 500\nproperty list uchar int vertex_indices\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    )
    notes = [[7] * (i % 3 if uneven else 2) for i in range(30)]
    rows = [[len(n), *n] for n in notes] + points.tolist()
    rows += [[len(f), *f, *c] for f, c in zip(faces, colors, strict=True)]
    end = "\r\n" if "CRLF" in form else "\n"
    text = end.join(" ".join(map(str, r)) + (end if "CRLF" in form and i % 9 == 0 else "") for i, r in enumerate(rows))
    body = b"".join(struct.pack(f"{order}B{len(n)}h", len(n), *n) for n in notes)
    body += points.astype(f"{order}f4").tobytes()
    body += b"".join(struct.pack(f"{order}B{len(f)}i3B", len(f), *f, *c) for f, c in zip(faces, colors, strict=True))
    path = tmp_path / "m.ply"
    path.write_bytes(head.replace("\n", end).encode() + (text.encode() if "ascii" in form else body))
    whole = ply.read(path)
    assert len(whole.faces) == 500 + uneven
    np.testing.assert_allclose(whole.vertices, points, atol=1e-6)
    np.testing.assert_array_equal(whole.faces[-1], faces[-1])
    np.testing.assert_allclose(whole.face_colors[-1] * 255, colors[-1], atol=1e-3)
    for size in (100, 1000):
        monkeypatch.setattr(ply_file, "_PIECE", size)
        assert_same(ply.read(path), whole)


def test_a_mesh_looked_at_in_pieces(tmp_path, monkeypatch):
    """Faces twice, a part inside out, a cavity, and normals that are computed."""
    outer, inner, other = (trimesh.creation.icosphere(2, r) for r in (0.05, 0.02, 0.01))
    other.apply_translation((0.2, 0, 0))
    inner.invert()  # a cavity
    other.invert()  # inside out
    every = trimesh.util.concatenate([outer, inner, other])
    every.faces = np.concatenate([every.faces, every.faces[:50, ::-1], outer.faces[100:120]])
    every.export(tmp_path / "m.ply")
    whole, said = load(tmp_path / "m.ply")
    assert len(whole.arrays.faces) == 3 * len(outer.faces) and f"{len(other.faces)} were inside out" in said[0]
    for module in (cleaning, normals):
        monkeypatch.setattr(module, "_AT_ONCE", 37)
    again, _ = load(tmp_path / "m.ply")
    assert again.description == whole.description
    np.testing.assert_array_equal(again.arrays.faces, whole.arrays.faces)
    np.testing.assert_allclose(again.arrays.normals, whole.arrays.normals, atol=1e-6)


@pytest.mark.parametrize("kind", ["obj", "obj, coordinates", "ply, ascii", "ply, binary"])
def test_reading_takes_little_more_memory_than_the_mesh(tmp_path, monkeypatch, kind):
    mesh = trimesh.creation.icosphere(6)
    path = tmp_path / f"m.{kind[:3]}"
    if kind.startswith("obj"):
        corner = "{0}/{0}" if "," in kind else "{0}"
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices]
        lines += [f"vt {x:.6f} {y:.6f}" for x, y, _ in mesh.vertices] if "," in kind else []
        path.write_text("\n".join([*lines, *(f"f {' '.join(map(corner.format, f))}" for f in mesh.faces + 1)]))
    else:
        mesh.export(path, encoding="ascii" if "ascii" in kind else "binary")
    for module in (obj, ply_file):
        monkeypatch.setattr(module, "_PIECE", 1 << 15)
    reading.read(path)
    tracemalloc.start()
    try:
        raw = reading.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    held = sum(a.nbytes for name in ARRAYS if (a := getattr(raw, name)) is not None)
    assert peak < 2.6 * held + 1e6, (peak, held)
