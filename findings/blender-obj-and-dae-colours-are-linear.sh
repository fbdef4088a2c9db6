#!/usr/bin/env bash
# Blender writes the plain colours of OBJ (Kd) and COLLADA (diffuse) in linear light, in which no viewer of these formats shows them.
#
# Version: bpy 4.5.15 (Blender as a Python module), Python 3.11, Linux x86-64.
# Behaviour: neither format says in what light its colours are, and programs show the numbers as they are. Blender's exporters write
#   those of the scene, which are linear: a material that Blender shows as sRGB 63/124/231 has Kd 0.05 0.2 0.8, which others
#   show as 13/51/204. The same scene as GLB is right in every viewer, since glTF's factors are linear by definition; vertex
#   colours of PLY, which Blender writes as sRGB by default, are right, too. Blender reads its own files back without a loss, so that
#   only other programs show it.
#   What helps: export GLB; or convert where the file names Blender (first line of the .mtl, authoring_tool of COLLADA).
# Output seen:
#   shown by Blender: 63/124/231
#   glTF, linear by definition: 0.050 0.200 0.800
#   Kd: 0.050000 0.200000 0.800000
#   COLLADA diffuse: 0.05 0.2 0.8 1
# Exits with 1 when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet bpy==4.5.15

cat > "$folder/run.py" <<'PY'
import json
import re
import sys
from pathlib import Path

import bpy

folder = Path(sys.argv[1])
linear = (0.05, 0.2, 0.8)
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_cube_add(size=0.1)
material = bpy.data.materials.new("blue")
material.use_nodes = True
material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (*linear, 1)
bpy.context.object.data.materials.append(material)
bpy.ops.export_scene.gltf(filepath=str(folder / "m.gltf"), export_format="GLTF_SEPARATE")
bpy.ops.wm.obj_export(filepath=str(folder / "m.obj"))
bpy.ops.wm.collada_export(filepath=str(folder / "m.dae"))
shown = "/".join(str(round(255 * (1.055 * c ** (1 / 2.4) - 0.055))) for c in linear)
factor = json.loads((folder / "m.gltf").read_text())["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"][:3]
kd = re.search(r"^Kd (.*)$", (folder / "m.mtl").read_text(), re.MULTILINE)[1]
diffuse = re.search(r"<diffuse>\s*<color[^>]*>([^<]*)", (folder / "m.dae").read_text())[1]
print(f"shown by Blender: {shown}")
print("glTF, linear by definition:", " ".join(f"{c:.3f}" for c in factor))
print(f"Kd: {kd}")
print(f"COLLADA diffuse: {diffuse}")
same = all(
    max(abs(float(a) - b) for a, b in zip(text.split(), linear)) < 1e-3 for text in (kd, diffuse, " ".join(map(str, factor)))
)
sys.exit(0 if same else 1)
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder" | grep -E "^(shown|glTF,|Kd|COLLADA diffuse)"
