"""Meshes of 1 to 1.5 million faces, and what loading each takes: processor seconds, and memory above that of the imports.

    python test/support/large_meshes.py make FOLDER
    python test/support/large_meshes.py load FOLDER/*.obj FOLDER/*.ply FOLDER/*.stl

``PYTHONPATH`` says which checkout loads them. Each file is loaded by a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image


def make(folder: Path, n: int = 707) -> None:
    """A sphere without colours (1.47 M faces at 707), and a bumpy one (1.00 M) without, with colours, with an image and a seam."""
    folder.mkdir(parents=True, exist_ok=True)
    sphere = trimesh.creation.uv_sphere(radius=0.05, count=[n + 1, n + 1])
    sphere.export(folder / "sphere.obj", include_normals=True)
    for name, how in (("sphere.ply", {}), ("sphere_ascii.ply", {"encoding": "ascii"}), ("sphere.stl", {})):
        sphere.export(folder / name, **how)
    rng = np.random.default_rng(0)
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, n + 1), np.linspace(1e-4, np.pi - 1e-4, n + 1))
    r = 0.05 * (1 + 0.1 * np.sin(5 * u) * np.sin(4 * v))
    points = np.stack([r * np.cos(u) * np.sin(v), r * np.sin(u) * np.sin(v), r * np.cos(v)], -1).reshape(-1, 3)
    uv = np.stack([u / (2 * np.pi), 1 - v / np.pi], -1).reshape(-1, 2)
    i = np.arange((n + 1) * n).reshape(n, n + 1)[:, :-1].reshape(-1)
    faces = np.concatenate([np.stack([i, i + n + 1, i + 1], 1), np.stack([i + 1, i + n + 1, i + n + 2], 1)])
    colors = (np.clip(points / 0.11 + 0.5, 0, 1) * 255).astype(np.uint8)
    colored = trimesh.Trimesh(points, faces, vertex_colors=colors, process=False)
    colored.export(folder / "colours.ply")
    colored.export(folder / "colours_ascii.ply", encoding="ascii")
    Image.fromarray(rng.integers(0, 256, (1024, 1024, 3)).astype(np.uint8)).save(folder / "image.png")
    (folder / "image.mtl").write_text("newmtl A\nmap_Kd image.png\n")
    column, row = np.arange(len(points)) % (n + 1), np.arange(len(points)) // (n + 1)
    welded = row * n + np.where(column == n, 0, column)  # the seam: one vertex, two coordinates
    place = np.zeros((int(welded.max()) + 1, 3))
    place[welded] = points
    for name, at, vertex, head in (
        ("plain.obj", points, faces, ""),
        ("image.obj", points, faces, "mtllib image.mtl\nusemtl A\n"),
        ("seam.obj", place, welded[faces], "mtllib image.mtl\nusemtl A\n"),
    ):
        with (folder / name).open("w") as file:
            file.write(head)
            np.savetxt(file, at, "v %.6f %.6f %.6f")
            if head:
                np.savetxt(file, uv, "vt %.6f %.6f")
                both = np.stack([vertex + 1, faces + 1], 2).reshape(-1, 6)
                np.savetxt(file, both, "f %d/%d %d/%d %d/%d")
            else:
                np.savetxt(file, vertex + 1, "f %d %d %d")
    table = np.zeros(len(faces), [("n", "u1"), ("f", "<i4", 3), ("m", "u1"), ("t", "<f4", 6)])
    table["n"], table["f"], table["m"], table["t"] = 3, welded[faces], 6, uv[faces].reshape(-1, 6)
    for name, form in (("seam.ply", "binary_little_endian"), ("seam_ascii.ply", "ascii")):
        with (folder / name).open("wb") as file:
            file.write(
                f"ply\nformat {form} 1.0\ncomment TextureFile image.png\nelement vertex {len(place)}\nproperty float x\n"
                f"property float y\nproperty float z\nelement face {len(faces)}\nproperty list uchar int vertex_indices\n"
                "property list uchar float texcoord\nend_header\n".encode()
            )
            if form == "ascii":
                np.savetxt(file, place, "%.6f %.6f %.6f")
                rows = np.column_stack([table[k] for k in ("n", "f", "m", "t")])
                np.savetxt(file, rows, "%d %d %d %d %d" + " %.5f" * 6)
            else:
                file.write(place.astype("<f4").tobytes() + table.tobytes())


def load(path: Path) -> str:
    """What this process takes to load ``path``; the libraries that doing so imports are imported before."""
    import fast_simplification  # noqa: F401
    import mapbox_earcut  # noqa: F401
    import scipy.sparse.csgraph
    import scipy.spatial  # noqa: F401

    from rfdetr_foundationpose.objects import ObjectSpec
    from rfdetr_foundationpose.pose.mesh import load_object

    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    start = time.process_time()
    model = load_object(ObjectSpec("thing", path), lambda said: None)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{path.name:20s} {seconds:6.2f} s {peak - before:6.0f} MB above {before:.0f} MB, {len(model.arrays.faces)} faces"


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"] and len(sys.argv) == 3:
        make(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["load"] and len(sys.argv) == 3:
        print(load(Path(sys.argv[2])))
    elif sys.argv[1:2] == ["load"] and len(sys.argv) > 3:
        for name in sys.argv[2:]:
            subprocess.run([sys.executable, __file__, "load", name], check=True)
    else:
        sys.exit(__doc__)
