#!/usr/bin/env bash
# glTF of VTK (PyVista, ParaView) shows other colours than VTK: numbers for a display where linear ones belong, and a tint over vertex colours.
#
# Versions: vtk 9.7.2, pyvista 0.49.1, numpy 2.4, Python 3.11, Linux x86-64.
# Behaviour, against glTF 2.0 sections 3.9.2 (factors are linear) and 3.7.2.1 (COLOR_0 is multiplied with the base colour):
#  1. baseColorFactor holds the actor's colour as VTK shows it, divided by 255: light blue, 173/216/230, is 215/237/244 in glTF viewers;
#  2. where scalars colour the mesh VTK ignores the actor's colour, but writes it beside COLOR_0: an orange of 255/128/0 on
#     PyVista's default actor comes out tinted by that light blue.
#   What helps: Plotter.add_mesh(..., color="white") beside scalars; or take generator "VTK" into account when reading.
# Output seen:
#   actor 173/216/230: factor 0.678 0.847 0.902, which is shown as 215/237/244
#   vertices 255/128/0 on the default actor: COLOR_0 [255, 128, 0, 255], factor 0.678 0.847 0.902
# Exits with 1 when that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet vtk==9.7.2 pyvista==0.49.1 "numpy==2.4.*"

cat > "$folder/run.py" <<'PY'
import base64
import json
import sys
from pathlib import Path

import numpy as np
import pyvista

folder = Path(sys.argv[1])


def exported(name, **look):
    plotter = pyvista.Plotter(off_screen=True)
    plotter.add_mesh(look.pop("mesh"), **look)
    plotter.export_gltf(str(folder / name))
    document = json.loads((folder / name).read_text())
    return document, document["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"][:3]


def words(factor):
    return " ".join(f"{c:.3f}" for c in factor)


_, plain = exported("plain.gltf", mesh=pyvista.Plane(), color=(173, 216, 230))
shown = "/".join(str(round(255 * (1.055 * c ** (1 / 2.4) - 0.055))) for c in plain)
print(f"actor 173/216/230: factor {words(plain)}, which is shown as {shown}")
mesh = pyvista.Plane()
mesh["orange"] = np.tile(np.array([255, 128, 0], np.uint8), (mesh.n_points, 1))
document, tint = exported("painted.gltf", mesh=mesh, scalars="orange", rgb=True)
accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
view = document["bufferViews"][accessor["bufferView"]]
data = base64.b64decode(document["buffers"][view["buffer"]]["uri"].partition(",")[2])
first = list(data[view.get("byteOffset", 0) + accessor.get("byteOffset", 0) :][:4])
print(f"vertices 255/128/0 on the default actor: COLOR_0 {first}, factor {words(tint)}")
same = np.allclose(plain, np.array([173, 216, 230]) / 255, atol=1e-3) and np.allclose(tint, plain, atol=1e-3)
sys.exit(0 if same and first == [255, 128, 0, 255] else 1)
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder" 2>"$folder/log" || { cat "$folder/log"; exit 1; }
