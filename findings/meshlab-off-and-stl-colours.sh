#!/usr/bin/env bash
# MeshLab's colours do not survive its own OFF, and its STL says of every colour that it is not valid.
#
# Version: pymeshlab 2025.7.post1 (MeshLab as a Python module), numpy 2.4, Python 3.11, Linux x86-64.
# Behaviour:
#  1. OFF with normals and colours of vertices: it writes x y z, colour, normal, under "NCOFF". Geomview's format has the normal
#     first, and so has MeshLab's own reader, which takes the colour from the normal: orange comes back as other colours. Nothing is
#     said.
#  2. STL: every file, also of a mesh without colours, has the header by which Magics marks its files ("COLOR="), in whose dialect a
#     spare word of 0 means "this face is black". Where faces have colours, bit 15 is set, which in that dialect means "take the
#     colour of the object, not that of the face". Who follows the dialect shows a plain mesh black and a coloured one grey.
#   What helps: PLY; or take an all-zero STL for one without colours, and bit 15 in every word for colours that are valid.
# Output seen:
#   OFF: row of 10 numbers, colour at 3: True; read back as written: False
#   STL: header COLOR=: True; spare words of a mesh without colours: {0}, of one with: {'0x821f'}
# Exits with 1 when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pymeshlab==2025.7.post1 "numpy==2.4.*"

cat > "$folder/run.py" <<'PY'
import sys
from pathlib import Path

import numpy as np
import pymeshlab

folder = Path(sys.argv[1])
points = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])
faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
orange = np.tile([1.0, 128 / 255, 0.0, 1.0], (4, 1))


def saved(name, **colors):
    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(pymeshlab.Mesh(points, faces, **colors))
    meshes.compute_normal_per_vertex()
    meshes.save_current_mesh(str(folder / name))
    return folder / name


def spare_words(path):
    data = path.read_bytes()
    rows = np.frombuffer(data[84:], np.dtype([("floats", "<f4", 12), ("spare", "<u2")]))
    return data[:6], set(rows["spare"].tolist())


path = saved("m.off", v_color_matrix=orange)
row = path.read_text().split("\n")[2].split()
again = pymeshlab.MeshSet()
again.load_new_mesh(str(path))
first = row[3:7] == ["255", "128", "0", "255"]
same = bool(np.allclose(again.current_mesh().vertex_color_matrix(), orange, atol=0.01))
print(f"OFF: row of {len(row)} numbers, colour at 3: {first}; read back as written: {same}")
head, plain = spare_words(saved("plain.stl"))
_, painted = spare_words(saved("painted.stl", f_color_matrix=orange))
print(f"STL: header COLOR=: {head == b'COLOR='}; spare words of a mesh without colours: {plain}, of one with: {set(map(hex, painted))}")
held = first and not same and head == b"COLOR=" and plain == {0} and all(word & 0x8000 for word in painted)
sys.exit(0 if held else 1)
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder"
