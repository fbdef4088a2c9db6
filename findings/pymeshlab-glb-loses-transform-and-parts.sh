#!/usr/bin/env bash
# pymeshlab converts a GLB of two parts to a PLY with one of them, without the transform of its node.
#
# Versions: pymeshlab 2025.7.post1, trimesh 5.2.0, numpy 2.4, Python 3.11.
# Behaviour: a GLB shows a part of 100 mm twice, each by a node with scale 0.001, the second one a metre higher. load_new_mesh makes
#   a layer of each and keeps the node's matrix beside its vertices, which are still in millimetres; it loads parts of scenes that
#   are not shown too. save_current_mesh writes the last layer alone, and PLY, OBJ and STL have no place for the matrix: what comes out is
#   one part of two, 1000 times as large, at the origin. Nothing is said. Expected: both parts, 0.1 m wide and a metre apart, as trimesh
#   reads the file.
# Output seen (triangles, extents):
#   GLB by trimesh: 8, 0.1 x 0.05 x 1.025
#   PLY of save_current_mesh: 4, 100 x 50 x 25
#   PLY after apply_matrix_freeze and generate_by_merging_visible_meshes: 8, 0.1 x 0.05 x 1.025
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet pymeshlab==2025.7.post1 trimesh==5.2.0 scipy 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import sys

import numpy as np
import pymeshlab
import trimesh

folder = sys.argv[1]
part = trimesh.Trimesh([[0, 0, 0], [100, 0, 0], [0, 50, 0], [0, 0, 25]], [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
scene = trimesh.Scene()
for i in range(2):
    matrix = np.diag([0.001, 0.001, 0.001, 1])
    matrix[2, 3] = i
    scene.add_geometry(part, node_name=f"node{i}", geom_name="part", transform=matrix)
scene.export(f"{folder}/a.glb")


def told(name, path):
    mesh = trimesh.load_scene(path).to_mesh()
    print(f"{name}: {len(mesh.faces)}, {' x '.join(f'{v:g}' for v in np.round(mesh.extents, 4))}")


told("GLB by trimesh", f"{folder}/a.glb")
every = pymeshlab.MeshSet()
every.load_new_mesh(f"{folder}/a.glb")
every.save_current_mesh(f"{folder}/a.ply")
told("PLY of save_current_mesh", f"{folder}/a.ply")
every.apply_matrix_freeze(alllayers=True)
every.generate_by_merging_visible_meshes()
every.save_current_mesh(f"{folder}/b.ply")
told("PLY after apply_matrix_freeze and generate_by_merging_visible_meshes", f"{folder}/b.ply")
EOF
seen=$("$work/venv/bin/python" "$work/look.py" "$work" 2> /dev/null)
echo "$seen"
[ "$seen" = "GLB by trimesh: 8, 0.1 x 0.05 x 1.025
PLY of save_current_mesh: 4, 100 x 50 x 25
PLY after apply_matrix_freeze and generate_by_merging_visible_meshes: 8, 0.1 x 0.05 x 1.025" ]
