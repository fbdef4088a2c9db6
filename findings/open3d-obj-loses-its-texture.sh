#!/usr/bin/env bash
# An OBJ with an image that Open3D reads and writes again has no image: the write says True, and its faces name a material that is not there.
#
# Versions: open3d 0.20.0, numpy 2.2.6, Python 3.11, Debian 12 with libusb-1.0-0 (see open3d-wheel-needs-libusb.sh), libgl1, libgomp1, libx11-6.
# Behaviour: of a file with one material with map_Kd, read_triangle_mesh makes two images, of which the first is empty, and faces of
#   material 1. write_triangle_mesh gives up at the first image, of which it has no data ("Write PNG failed: image has no data"), after it
#   has written the OBJ and an MTL with the material 0 alone, without map_Kd, and returns True. So a scan that was cropped or
#   thinned out in Open3D and saved as OBJ is grey everywhere else.
#   What helps: mesh.textures = [t for t in mesh.textures if not t.is_empty()] and material ids of 0 before writing.
# Output seen:
#   images read: 2, of which empty: 1
#   written: True
#   faces use ['out_1'], the MTL defines ['out_0'], images named by it: 0, PNG files written: 0
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet open3d==0.20.0 numpy==2.2.6
cat > "$folder/run.py" <<'PY'
import re
import sys
from pathlib import Path

import numpy as np
import open3d as o3d

folder = Path(sys.argv[1])
(folder / "out").mkdir()
image = np.zeros((64, 64, 3), np.uint8)
image[:32] = (200, 30, 30)
o3d.io.write_image(str(folder / "print.png"), o3d.geometry.Image(image))
(folder / "m.mtl").write_text("newmtl label\nKd 1 1 1\nmap_Kd print.png\n")
(folder / "m.obj").write_text(
    "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    "usemtl label\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
)
mesh = o3d.io.read_triangle_mesh(str(folder / "m.obj"))
empty = sum(t.is_empty() for t in mesh.textures)
print(f"images read: {len(mesh.textures)}, of which empty: {empty}")
print("written:", said := o3d.io.write_triangle_mesh(str(folder / "out" / "out.obj"), mesh))
used = sorted(set(re.findall(r"^usemtl (\S+)", (folder / "out" / "out.obj").read_text(), re.M)))
mtl = (folder / "out" / "out.mtl").read_text()
defined, named = re.findall(r"^newmtl (\S+)", mtl, re.M), len(re.findall(r"map_Kd", mtl))
files = len([*(folder / "out").glob("*.png")])
print(f"faces use {used}, the MTL defines {defined}, images named by it: {named}, PNG files written: {files}")
sys.exit(0 if said and empty == 1 and not set(used) & set(defined) and named == files == 0 else 1)
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder" | grep -v Open3D
