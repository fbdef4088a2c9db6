#!/usr/bin/env bash
# PLY colours of 16 bits or floats: trimesh, Open3D, VTK and MeshLab show different ones, or none, without a word.
#
# Versions: trimesh 5.2.0, open3d 0.20.0, vtk 9.7.2, pymeshlab 2025.7.post1, numpy 2.4, Python 3.11.
# Behaviour: PLY leaves the type of red, green and blue open. A triangle's corners are red, orange (half green) and mid grey, written as
#   bytes, as 16 bits (0..65535) and as floats (0..1), all valid. Bytes are the same everywhere. Of 16 bits trimesh and VTK keep the low
#   byte (half becomes none), Open3D divides them by 255 too, which makes red 257 times as red as it can be, and MeshLab has no colours.
#   Of floats Open3D and VTK make black, MeshLab none; trimesh reads them. None of them says anything. Expected: the same colours of
#   all three files, or an error.
# Output seen (RGB, 0..255, of the three corners):
#   uchar: trimesh 255/0/0, 255/128/0, 128/128/128
#   uchar: Open3D 255/0/0, 255/128/0, 128/128/128
#   uchar: VTK 255/0/0, 255/128/0, 128/128/128
#   uchar: MeshLab 255/0/0, 255/128/0, 128/128/128
#   ushort: trimesh 255/0/0, 255/0/0, 0/0/0
#   ushort: Open3D 65535/0/0, 65535/32768/0, 32768/32768/32768
#   ushort: VTK 255/0/0, 255/0/0, 0/0/0
#   ushort: MeshLab no colours
#   float: trimesh 255/0/0, 255/128/0, 128/128/128
#   float: Open3D 1/0/0, 1/0/0, 0/0/0
#   float: VTK 0/0/0, 0/0/0, 0/0/0
#   float: MeshLab no colours
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet trimesh==5.2.0 open3d==0.20.0 vtk==9.7.2 pymeshlab==2025.7.post1 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import sys

import numpy as np
import open3d
import pymeshlab
import trimesh
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOPLY import vtkPLYReader

name = sys.argv[1] + "/a.ply"
COLORS = np.array([[1, 0, 0], [1, 0.5, 0], [0.5, 0.5, 0.5]])


def of_trimesh():
    visual = trimesh.load(name, process=False).visual
    return visual.vertex_colors[:, :3] if visual.kind == "vertex" else None


def of_open3d():
    mesh = open3d.io.read_triangle_mesh(name)
    return 255 * np.asarray(mesh.vertex_colors) if mesh.has_vertex_colors() else None


def of_vtk():
    reader = vtkPLYReader()
    reader.SetFileName(name)
    reader.Update()
    found = reader.GetOutput().GetPointData().GetScalars()
    return None if found is None else vtk_to_numpy(found)[:, :3]


def of_meshlab():
    every = pymeshlab.MeshSet()
    every.load_new_mesh(name)
    mesh = every.current_mesh()
    return 255 * mesh.vertex_color_matrix()[:, :3] if mesh.has_vertex_color() else None


for kind, top in (("uchar", 255), ("ushort", 65535), ("float", 1)):
    head = "".join(f"property {t} {n}\n" for t, n in [*(("float", c) for c in "xyz"), *((kind, c) for c in ("red", "green", "blue"))])
    values = COLORS * top if kind == "float" else np.round(COLORS * top).astype(int)
    rows = "".join(f"{i % 2} {i // 2} 0 {' '.join(map(str, row))}\n" for i, row in enumerate(values.tolist()))
    with open(name, "w") as file:
        file.write(f"ply\nformat ascii 1.0\nelement vertex 3\n{head}element face 1\nproperty list uchar int vertex_indices\nend_header\n{rows}3 0 1 2\n")
    for library, read in (("trimesh", of_trimesh), ("Open3D", of_open3d), ("VTK", of_vtk), ("MeshLab", of_meshlab)):
        found = read()
        shown = "no colours" if found is None else ", ".join("/".join(str(round(float(v))) for v in row) for row in found)
        print(f"{kind}: {library} {shown}")
EOF
seen=$("$work/venv/bin/python" "$work/look.py" "$work" 2> /dev/null)
echo "$seen"
[ "$seen" = "uchar: trimesh 255/0/0, 255/128/0, 128/128/128
uchar: Open3D 255/0/0, 255/128/0, 128/128/128
uchar: VTK 255/0/0, 255/128/0, 128/128/128
uchar: MeshLab 255/0/0, 255/128/0, 128/128/128
ushort: trimesh 255/0/0, 255/0/0, 0/0/0
ushort: Open3D 65535/0/0, 65535/32768/0, 32768/32768/32768
ushort: VTK 255/0/0, 255/0/0, 0/0/0
ushort: MeshLab no colours
float: trimesh 255/0/0, 255/128/0, 128/128/128
float: Open3D 1/0/0, 1/0/0, 0/0/0
float: VTK 0/0/0, 0/0/0, 0/0/0
float: MeshLab no colours" ]
