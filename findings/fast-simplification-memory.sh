#!/usr/bin/env bash
# fast_simplification needs some 300 bytes for each face of its input, whatever is asked for.
#
# Versions: fast-simplification 0.2.0, numpy 2.4, Python 3.11, Linux x86-64.
# Behaviour: thinning a mesh of 1 million faces out to 2 % of them raises the peak memory of the process by some 300 MB, sixteen
#   times what the mesh itself takes (18 MB: float32 vertices and int32 faces). Half of the faces need half of it.
#   Expected: a few times the size of the mesh. The remedy is to thin out in blocks, and then once what is left.
# Output seen (bytes a face; they vary by a tenth):
#   1000000 faces: 304
#   500000 faces: 304
# Exits with 1 when either is below 200 or above 600.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet fast-simplification==0.2.0 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import resource
import sys

import fast_simplification
import numpy as np

n = int(sys.argv[1])  # a grid of n x 500 squares
x, y = np.meshgrid(np.arange(n + 1, dtype=np.float32), np.arange(501, dtype=np.float32), indexing="ij")
points = np.stack([x, y, np.sin(x / 9) * np.cos(y / 7)], -1).reshape(-1, 3).astype(np.float32)
i = (np.arange(n, dtype=np.int32)[:, None] * 501 + np.arange(500, dtype=np.int32)).ravel()
faces = np.concatenate([np.stack([i, i + 501, i + 1], 1), np.stack([i + 1, i + 501, i + 502], 1)])
fast_simplification.simplify(points[:4], np.array([[0, 1, 2], [1, 2, 3]], np.int32), target_count=1)
del x, y, i
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fast_simplification.simplify(points, faces, target_count=len(faces) // 50)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 // len(faces))
EOF
for n in 1000 500; do
  bytes=$("$work/venv/bin/python" "$work/look.py" "$n")
  echo "$((n * 1000)) faces: $bytes"
  [ "$bytes" -ge 200 ] && [ "$bytes" -le 600 ]
done
