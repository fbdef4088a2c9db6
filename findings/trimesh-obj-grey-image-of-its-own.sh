#!/usr/bin/env bash
# trimesh 5.2.0 gives an OBJ with texture coordinates whose material cannot be resolved (usemtl of a name that no .mtl defines, no
# mtllib, the .mtl not there) a material with an image: 2 x 2 pixels of grey that are in no file. Nothing is raised or warned.
# The image looks like any other: mesh.visual.material.image is set, kind is "texture", so "has it a texture?" says yes.
# What helps: parse usemtl and mtllib yourself, or compare the image with trimesh.visual.texture's default.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trimesh==5.2.0 numpy pillow
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
