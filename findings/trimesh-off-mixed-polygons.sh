#!/usr/bin/env bash
# trimesh does not read an OFF file whose faces have different numbers of corners.
#
# Versions: trimesh 5.2.0, numpy 2.4, Python 3.11.
# Behaviour: OFF allows a number of corners for each face. A cube of six quads is read, and so is a mesh of triangles; a prism
#   of two hexagons and six quads ends in a TypeError from inside of numpy's conversion. Expected: polygons become triangles, as
#   trimesh does for quads.
# Output seen:
#   six quads: 12 triangles
#   two hexagons and six quads: TypeError
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet trimesh==5.2.0 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import io
import math

import trimesh


def off(points, faces):
    lines = ["OFF", f"{len(points)} {len(faces)} 0", *(" ".join(f"{v:g}" for v in p) for p in points)]
    return "\n".join([*lines, *(f"{len(f)} " + " ".join(map(str, f)) for f in faces)]) + "\n"


def prism(corners):
    ring = [(math.cos(2 * math.pi * i / corners), math.sin(2 * math.pi * i / corners)) for i in range(corners)]
    points = [(x, y, z) for z in (0, 1) for x, y in ring]
    sides = [(i, (i + 1) % corners, corners + (i + 1) % corners, corners + i) for i in range(corners)]
    return points, [tuple(reversed(range(corners))), tuple(range(corners, 2 * corners)), *sides]


for name, corners in (("six quads", 4), ("two hexagons and six quads", 6)):
    try:
        mesh = trimesh.load(io.BytesIO(off(*prism(corners)).encode()), file_type="off")
        print(f"{name}: {len(mesh.faces)} triangles")
    except Exception as error:
        print(f"{name}: {type(error).__name__}")
EOF
seen=$("$work/venv/bin/python" "$work/look.py")
echo "$seen"
[ "$seen" = "six quads: 12 triangles
two hexagons and six quads: TypeError" ]
