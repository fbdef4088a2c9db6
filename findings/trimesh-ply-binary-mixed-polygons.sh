#!/usr/bin/env bash
# trimesh refuses a binary PLY whose faces are triangles and quads, as Blender exports them.
#
# Versions: trimesh 5.2.0, numpy 2.4, Python 3.11.
# Behaviour: the file is whole, and the same content in ASCII loads; of a binary list property trimesh takes the first face's length
#   for that of all. What helps: triangulate before the export, write ASCII, or read the lists one by one.
# Output seen:
#   ascii 3 triangles
#   binary PLY is unexpected length!
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet trimesh==5.2.0 'numpy>=2.4,<2.5'
cat > "$folder/read.py" <<'PYTHON'
import struct, sys
import trimesh

points = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (2, 0, 0)]
faces = [(0, 1, 2, 3), (1, 4, 2)]
head = "ply\nformat {} 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\nelement face 2\nproperty list uchar int vertex_indices\nend_header\n"
text = "".join("%g %g %g\n" % p for p in points) + "".join(f"{len(f)} {' '.join(map(str, f))}\n" for f in faces)
open(f"{sys.argv[1]}/ascii.ply", "w").write(head.format("ascii") + text)
body = b"".join(struct.pack("<3f", *p) for p in points) + b"".join(struct.pack(f"<B{len(f)}i", len(f), *f) for f in faces)
open(f"{sys.argv[1]}/binary.ply", "wb").write(head.format("binary_little_endian").encode() + body)
for name in ("ascii", "binary"):
    try:
        print(name, len(trimesh.load(f"{sys.argv[1]}/{name}.ply", force="mesh", process=False).faces), "triangles")
    except ValueError as error:
        print(name, error)
PYTHON
said=$("$folder/venv/bin/python" "$folder/read.py" "$folder")
echo "$said"
[ "$said" = "$(printf 'ascii 3 triangles\nbinary PLY is unexpected length!')" ]
