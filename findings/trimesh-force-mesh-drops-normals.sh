#!/usr/bin/env bash
# trimesh.load(..., force="mesh") and load_mesh() leave out the normals that a GLB holds, and make flat ones along texture seams.
#
# Versions: trimesh 5.2.0, scipy 1.17.0, numpy 2.4, pillow 12.3.0, Python 3.11.
# Behaviour: a file's NORMAL is kept by load() and load_scene(), but not where the scene is made one mesh, though it holds one mesh
#   alone and no node moves it: vertex_normals are then computed anew from the faces, without a word. Where vertices are split, as at
#   the seams of a texture, each copy sees its own faces only: two copies of one vertex, whose stored normals are equal, differ.
#   What helps: load_scene() and the geometry in it, moved by its node.
# Output seen:
#   stored normals kept: load True load_scene True force='mesh' False load_mesh False
#   angle between the two copies of a seam's vertex, degrees: load_scene 0 force='mesh' 90
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trimesh==5.2.0 scipy==1.17.0 pillow==12.3.0 'numpy>=2.4,<2.5'
"$folder/venv/bin/python" - "$folder/roof.glb" <<'PY'
import sys
import numpy as np, trimesh
from trimesh.visual import TextureVisuals

# Two squares that meet at a right angle; the vertices of the edge between them are there twice, for their texture coordinates.
points = np.array([[-1, 0, 0], [-1, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0]], float)
faces = [[0, 2, 1], [1, 2, 3], [4, 6, 5], [5, 6, 7]]
up = np.tile([0.0, 0.0, 1.0], (8, 1))
mesh = trimesh.Trimesh(points, faces, vertex_normals=up, process=False)
mesh.visual = TextureVisuals(uv=np.linspace(0, 1, 16).reshape(8, 2))
mesh.export(sys.argv[1])

(plain,) = trimesh.load(sys.argv[1], process=False).geometry.values()
(scene,) = trimesh.load_scene(sys.argv[1], process=False).geometry.values()
forced = trimesh.load(sys.argv[1], force="mesh", process=False)
one = trimesh.load_mesh(sys.argv[1], process=False)
kept = [bool(np.allclose(m.vertex_normals, up)) for m in (plain, scene, forced, one)]
print("stored normals kept: load %s load_scene %s force='mesh' %s load_mesh %s" % tuple(kept))
angles = [int(np.rint(np.rad2deg(np.arccos(np.clip(m.vertex_normals[2] @ m.vertex_normals[4], -1, 1))))) for m in (scene, forced)]
print("angle between the two copies of a seam's vertex, degrees: load_scene %d force='mesh' %d" % tuple(angles))
raise SystemExit(0 if kept == [True, True, False, False] and angles == [0, 90] else 1)
PY
