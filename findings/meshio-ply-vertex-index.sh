#!/usr/bin/env bash
# meshio reads no PLY whose faces are called vertex_index, or have a number before their corners.
#
# Versions: meshio 5.3.5, trimesh 5.2.0, numpy 2.4, Python 3.11.
# Behaviour: PLY calls the corners of a face vertex_indices or vertex_index (PCL, Artec Studio, older files of Stanford), and a face may have
#   other properties before them, such as flags. The first name is read, also with numbers behind the list; the second ends in a
#   KeyError of the two types of the list, a number before the list in an AssertionError without words. trimesh reads all. Expected: two
#   triangles, or an error that names the property.
# Output seen:
#   vertex_indices: meshio 2, trimesh 2
#   vertex_indices, then flags: meshio 2, trimesh 2
#   vertex_index: meshio KeyError, trimesh 2
#   flags, then vertex_indices: meshio AssertionError, trimesh 2
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet meshio==5.3.5 trimesh==5.2.0 scipy 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import sys

import meshio
import trimesh

HEAD = "ply\nformat ascii 1.0\nelement vertex 4\n" + "".join(f"property float {axis}\n" for axis in "xyz") + "element face 2\n"
POINTS = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
CORNERS = ("0 1 2", "0 2 3")
name = sys.argv[1] + "/a.ply"
for said, properties, row in (
    ("vertex_indices", ("list uchar int vertex_indices",), "3 {}"),
    ("vertex_indices, then flags", ("list uchar int vertex_indices", "uchar flags"), "3 {} 1"),
    ("vertex_index", ("list uchar int vertex_index",), "3 {}"),
    ("flags, then vertex_indices", ("uchar flags", "list uchar int vertex_indices"), "1 3 {}"),
):
    lines = "".join(f"property {p}\n" for p in properties) + "end_header\n"
    with open(name, "w") as file:
        file.write(HEAD + lines + POINTS + "".join(row.format(c) + "\n" for c in CORNERS))
    try:
        found = str(sum(len(c.data) for c in meshio.read(name).cells))
    except Exception as error:
        found = type(error).__name__
    print(f"{said}: meshio {found}, trimesh {len(trimesh.load_mesh(name).faces)}")
EOF
seen=$("$work/venv/bin/python" "$work/look.py" "$work")
echo "$seen"
[ "$seen" = "vertex_indices: meshio 2, trimesh 2
vertex_indices, then flags: meshio 2, trimesh 2
vertex_index: meshio KeyError, trimesh 2
flags, then vertex_indices: meshio AssertionError, trimesh 2" ]
