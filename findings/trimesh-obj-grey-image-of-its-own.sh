#!/usr/bin/env bash
# trimesh gives an OBJ whose material cannot be resolved an image that is in no file.
#
# Versions: trimesh 5.2.0, numpy 2.4, pillow 12.3.0, Python 3.11.
# Behaviour: an OBJ with texture coordinates whose usemtl names nothing (no .mtl defines it, no mtllib, the .mtl not there) gets a
#   material with an image of 2 x 2 grey pixels. Nothing is raised or warned, and the image looks like any other:
#   mesh.visual.material.image is set, kind is "texture", so "has it a texture?" says yes.
#   What helps: parse usemtl and mtllib yourself, or compare the image with trimesh.visual.texture's default.
# Output seen, for each of three heads:
#   'mtllib a.mtl': texture (2, 2) ((100, 100), (100, 100), (100, 100))
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trimesh==5.2.0 'numpy>=2.4,<2.5' pillow==12.3.0
printf 'newmtl wood\nKd 0.8 0.1 0.1\n' > "$folder/a.mtl"
for head in 'mtllib a.mtl' 'mtllib gone.mtl' ''; do
  printf '%s\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl metal\nf 1/1 2/2 3/3\n' "$head" > "$folder/a.obj"
  said=$("$folder/venv/bin/python" -W error - "$folder/a.obj" <<'PYTHON'
import logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
import trimesh
mesh = trimesh.load(sys.argv[1], force="mesh", process=False)
image = mesh.visual.material.image
print(mesh.visual.kind, image.size, image.convert("RGB").getextrema())
PYTHON
  )
  echo "'$head': $said"
  [ "$said" = "texture (2, 2) ((100, 100), (100, 100), (100, 100))" ]
done
