#!/usr/bin/env bash
# OpenCV 5's cv2.loadMesh fails for OBJ whose faces leave out texture or normal, and gives nothing of PLY with double coordinates.
#
# Versions: opencv-python-headless 5.0.0.93, trimesh 5.2.0, Python 3.11.
# Behaviour: loadMesh is new in version 5. OBJ allows v, v/vt, v//vn and v/vt/vn at a corner, and negative indices. It reads the first and
#   the last form; v/vt (an object with texture, without normals), v//vn (CAD) and negative indices end in an error of a C++ container
#   that names neither file nor line. Of PLY with "property double x", as Open3D and MeshLab write it, it returns None and no faces,
#   although its documentation says that it throws where a mesh cannot be read. Expected: the triangle, which trimesh reads from all of them.
# Output seen:
#   f v: 1 face; trimesh 1
#   f v/vt/vn: 1 face; trimesh 1
#   f v/vt: error; trimesh 1
#   f v//vn: error; trimesh 1
#   f -v: error; trimesh 1
#   ply float: 1 face; trimesh 1
#   ply double: nothing; trimesh 1
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet opencv-python-headless==5.0.0.93 trimesh==5.2.0 scipy pillow 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import sys

import cv2
import trimesh

POINTS = ["0 0 0", "1 0 0", "1 1 0"]
OBJ = "".join(f"v {p}\n" for p in POINTS) + "vt 0.25 0.5\nvn 0 0 1\n"
PLY = (
    "ply\nformat ascii 1.0\nelement vertex 3\nproperty {0} x\nproperty {0} y\nproperty {0} z\nelement face 1\n"
    "property list uchar int vertex_indices\nend_header\n" + "".join(f"{p}\n" for p in POINTS) + "3 0 1 2\n"
)
files = {
    "f v": ("obj", OBJ + "f 1 2 3\n"),
    "f v/vt/vn": ("obj", OBJ + "f 1/1/1 2/1/1 3/1/1\n"),
    "f v/vt": ("obj", OBJ + "f 1/1 2/1 3/1\n"),
    "f v//vn": ("obj", OBJ + "f 1//1 2//1 3//1\n"),
    "f -v": ("obj", OBJ + "f -3 -2 -1\n"),
    "ply float": ("ply", PLY.format("float")),
    "ply double": ("ply", PLY.format("double")),
}
for name, (suffix, text) in files.items():
    path = f"{sys.argv[1]}/a.{suffix}"
    with open(path, "w") as file:
        file.write(text)
    try:
        vertices, faces = cv2.loadMesh(path)[:2]
        found = "nothing" if vertices is None else f"{len(faces)} face"
    except cv2.error:
        found = "error"
    print(f"{name}: {found}; trimesh {len(trimesh.load_mesh(path, process=False).faces)}")
EOF
seen=$("$work/venv/bin/python" "$work/look.py" "$work" 2> "$work/said")
echo "$seen"
[ "$seen" = "f v: 1 face; trimesh 1
f v/vt/vn: 1 face; trimesh 1
f v/vt: error; trimesh 1
f v//vn: error; trimesh 1
f -v: error; trimesh 1
ply float: 1 face; trimesh 1
ply double: nothing; trimesh 1" ]
