#!/usr/bin/env bash
# Blender's USD of an object that shows its vertex colours is grey: the material names a constant, and nothing reads the colours beside it.
#
# Versions: bpy 5.0.1 (Blender as a Python module), usd-core 26.11, Python 3.11, Linux x86-64.
# Behaviour: where the base colour of Principled BSDF comes from a colour attribute, the exporter writes UsdPreviewSurface with
#   diffuseColor 0.8 0.8 0.8, the socket's default, and the colours as primvar "Col", which no shader reads; the primvar is not
#   displayColor either. No warning comes. The same scene as GLB has its COLOR_0, and a base colour from an image is written right.
#   What helps: export GLB, bake the colours into an image, or connect a UsdPrimvarReader_float3 afterwards.
# Output seen:
#   diffuseColor: 0.800 0.800 0.800, connected: False
#   colours of the mesh: ['Col'] color4f[]
#   GLB has COLOR_0: True
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet bpy==5.0.1
python3.11 -m venv "$folder/usd"
"$folder/usd/bin/pip" install --quiet usd-core==26.11
cat > "$folder/write.py" <<'PY'
import sys

import bpy

bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_cube_add(size=0.1)
mesh = bpy.context.object.data
colors = mesh.color_attributes.new("Col", "BYTE_COLOR", "CORNER")
for i, corner in enumerate(colors.data):
    corner.color = (1, 0.3, 0, 1) if i % 2 else (0, 0.2, 1, 1)
material = bpy.data.materials.new("painted")
material.use_nodes = True
nodes = material.node_tree.nodes
reader = nodes.new("ShaderNodeVertexColor")
reader.layer_name = "Col"
material.node_tree.links.new(reader.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
mesh.materials.append(material)
bpy.ops.wm.usd_export(filepath=sys.argv[1] + "/m.usda")
bpy.ops.export_scene.gltf(filepath=sys.argv[1] + "/m.gltf", export_format="GLTF_SEPARATE")
PY
"$folder/venv/bin/python" "$folder/write.py" "$folder" > "$folder/log" 2>&1
"$folder/usd/bin/python" - "$folder" <<'PY'
import json
import sys
from pathlib import Path

from pxr import Usd, UsdGeom, UsdShade

folder = Path(sys.argv[1])
stage = Usd.Stage.Open(str(folder / "m.usda"))
every = list(stage.Traverse())
mesh = next(p for p in every if p.IsA(UsdGeom.Mesh))
shader = UsdShade.MaterialBindingAPI(mesh).ComputeBoundMaterial()[0].ComputeSurfaceSource()[0]
given = shader.GetInput("diffuseColor")
colors = [p for p in UsdGeom.PrimvarsAPI(mesh).GetPrimvarsWithValues() if "color" in str(p.GetTypeName())]
glb = json.loads((folder / "m.gltf").read_text())["meshes"][0]["primitives"][0]["attributes"]
print("diffuseColor:", " ".join(f"{c:.3f}" for c in given.Get()) + f", connected: {given.HasConnectedSource()}")
print("colours of the mesh:", [p.GetPrimvarName() for p in colors], *{str(p.GetTypeName()) for p in colors})
print("GLB has COLOR_0:", "COLOR_0" in glb)
names = [p.GetPrimvarName() for p in colors]
sys.exit(0 if not given.HasConnectedSource() and names == ["Col"] and "COLOR_0" in glb else 1)
PY
