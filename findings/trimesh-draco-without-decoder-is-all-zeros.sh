#!/usr/bin/env bash
# trimesh without DracoPy reads a Draco-compressed glTF as a mesh whose vertices are all 0 0 0.
#
# Versions: trimesh 5.2.0, DracoPy 2.2.0 (the encoder), numpy 2.4, pillow 12.3.0, Python 3.11.
# Behaviour: DracoPy is optional. Without it a file with KHR_draco_mesh_compression in extensionsRequired is read without an error;
#   trimesh's own logger alone says "values are placeholder zeros". glTF 2.0 (section 3.12) says that a reader must not load a file
#   whose required extension it does not support. What helps: look for the extension in the JSON before, or install DracoPy.
# Output seen:
#   with DracoPy: 4 vertices, extents [0.3, 0.4, 0.0]
#   without: 4 vertices, extents [0.0, 0.0, 0.0]
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet DracoPy==2.2.0 trimesh==5.2.0 'numpy>=2.4,<2.5' pillow==12.3.0
cat > "$folder/write.py" <<'PYTHON'
import base64, json, sys
import DracoPy, numpy as np

points = np.array([[0, 0, 0], [0.3, 0, 0], [0.3, 0.4, 0], [0, 0.4, 0]], np.float32)
faces = np.array([[0, 1, 2], [0, 2, 3]], np.uint32)
data = DracoPy.encode(points, faces)
uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
name = "KHR_draco_mesh_compression"
tree = {"asset": {"version": "2.0"}, "extensionsUsed": [name], "extensionsRequired": [name], "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}], "buffers": [{"byteLength": len(data), "uri": uri}], "bufferViews": [{"buffer": 0, "byteLength": len(data)}],
        "accessors": [{"componentType": 5126, "count": 4, "type": "VEC3", "min": [0, 0, 0], "max": [0.3, 0.4, 0]},
                      {"componentType": 5125, "count": 6, "type": "SCALAR"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1,
                                    "extensions": {name: {"bufferView": 0, "attributes": {"POSITION": 0}}}}]}]}
open(sys.argv[1], "w").write(json.dumps(tree))
PYTHON
cat > "$folder/read.py" <<'PYTHON'
import logging, sys, warnings
logging.disable()
warnings.simplefilter("error")
import trimesh
mesh = trimesh.load(sys.argv[1], force="mesh", process=False)
print(len(mesh.vertices), "vertices, extents", mesh.extents.round(2).tolist())
PYTHON
"$folder/venv/bin/python" "$folder/write.py" "$folder/quad.gltf"
with=$("$folder/venv/bin/python" "$folder/read.py" "$folder/quad.gltf")
echo "with DracoPy: $with"
"$folder/venv/bin/pip" uninstall --quiet --yes DracoPy
without=$("$folder/venv/bin/python" "$folder/read.py" "$folder/quad.gltf")
echo "without: $without"
[ "$with" = "4 vertices, extents [0.3, 0.4, 0.0]" ] && [ "$without" = "4 vertices, extents [0.0, 0.0, 0.0]" ]
