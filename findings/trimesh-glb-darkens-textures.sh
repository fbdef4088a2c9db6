#!/usr/bin/env bash
# A mesh with a texture and trimesh's own default material is 40 % as bright (linear) once it was exported as GLB.
#
# Versions: trimesh 5.2.0, pillow 12.3.0, numpy 2.4, Python 3.11.
# Behaviour: SimpleMaterial(image=...) leaves its diffuse colour at trimesh's default, 102/255 grey, which trimesh itself does not
#   multiply with the texture. Its GLB exporter writes that grey as pbrMetallicRoughness.baseColorFactor beside baseColorTexture,
#   and glTF multiplies the two in linear light: viewers that follow glTF show the texture at 40 %. Reading the file back with
#   trimesh does not show it, since to_color() and the texture image ignore the factor. What helps: a white diffuse colour.
# Output seen:
#   default material: [0.4, 0.4, 0.4, 1.0]  white diffuse: [1.0, 1.0, 1.0, 1.0]
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trimesh==5.2.0 pillow==12.3.0 'numpy>=2.4,<2.5'
"$folder/venv/bin/python" - <<'PY'
import io, json, struct
import numpy as np, trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import SimpleMaterial

def factor(**colour):
    mesh = trimesh.creation.box()
    material = SimpleMaterial(image=Image.new("RGB", (4, 4), (200, 100, 50)), **colour)
    mesh.visual = TextureVisuals(uv=np.zeros((len(mesh.vertices), 2)), material=material)
    data = mesh.export(file_type="glb")
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length])["materials"][0]["pbrMetallicRoughness"].get("baseColorFactor")

default, white = factor(), factor(diffuse=(255, 255, 255, 255))
print("default material:", default, " white diffuse:", white)
raise SystemExit(0 if default == [0.4, 0.4, 0.4, 1.0] and white in (None, [1.0, 1.0, 1.0, 1.0]) else 1)
PY
