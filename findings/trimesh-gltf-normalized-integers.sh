#!/usr/bin/env bash
# trimesh ignores "normalized" of glTF 2.0 accessors (glTF 2.0 section 3.6.2.2), and says nothing.
#
# Versions: trimesh 5.2.0, numpy 2.4, pillow 12.3.0, Python 3.11.
# Behaviour:
#  1. int16 positions of KHR_mesh_quantization, which is in extensionsRequired, are taken as numbers: a triangle of 0.2 m, stored
#     as +-32767 under a node of scale 0.1, measures 6553.4;
#  2. COLOR_0 as unsigned short keeps the low byte of each value: 32768 of 65535 becomes 0 of 255, and 32767 becomes 255.
#   What helps: divide by the type's largest value yourself, or convert with another tool before trimesh reads the file.
# Output seen:
#   extents [6553.4, 6553.4, 0.0]
#   colour [0, 255, 255, 255]
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trimesh==5.2.0 'numpy>=2.4,<2.5' pillow==12.3.0
cat > "$folder/read.py" <<'PYTHON'
import base64, json, sys
import numpy as np, trimesh

def document(positions, kind, normalized, color=None, scale=1.0, extensions=()):
    data = positions.tobytes()
    views = [{"buffer": 0, "byteLength": len(data), **({"byteStride": 8} if kind == 5122 else {})}]
    accessors = [{"bufferView": 0, "componentType": kind, "count": 3, "type": "VEC3", "normalized": normalized}]
    attributes = {"POSITION": 0}
    if color is not None:
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": color.nbytes})
        accessors.append({"bufferView": 1, "componentType": 5123, "count": 3, "type": "VEC4", "normalized": True})
        data, attributes = data + color.tobytes(), {"POSITION": 0, "COLOR_0": 1}
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    return {"asset": {"version": "2.0"}, "extensionsUsed": list(extensions), "extensionsRequired": list(extensions), "scene": 0,
            "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "scale": [scale] * 3}], "accessors": accessors, "bufferViews": views,
            "meshes": [{"primitives": [{"attributes": attributes}]}], "buffers": [{"byteLength": len(data), "uri": uri}]}

def load(name, tree):
    tree = {k: v for k, v in tree.items() if v != []}
    path = f"{sys.argv[1]}/{name}.gltf"
    open(path, "w").write(json.dumps(tree))
    return trimesh.load(path, force="mesh", process=False)

short = np.zeros((3, 4), "<i2")
short[:, :3] = [[-32767, -32767, 0], [32767, -32767, 0], [32767, 32767, 0]]
mesh = load("quantized", document(short, 5122, True, scale=0.1, extensions=["KHR_mesh_quantization"]))
print("extents", mesh.extents.round(1).tolist())
color = np.tile(np.array([[32768, 32767, 65535, 65535]], "<u2"), (3, 1))
mesh = load("colors", document(np.eye(3, dtype="<f4"), 5126, False, color))
print("colour", mesh.visual.vertex_colors[0].tolist())
PYTHON
said=$("$folder/venv/bin/python" "$folder/read.py" "$folder")
echo "$said"
[ "$said" = "$(printf 'extents [6553.4, 6553.4, 0.0]\ncolour [0, 255, 255, 255]')" ]
