#!/usr/bin/env bash
# safetensors says of a file that may not be read that it does not exist.
#
# Versions: safetensors 0.8.0, numpy 2.4, Python 3.11, Linux.
# Behaviour: safe_open() of an existing file without read permission raises FileNotFoundError "No such file or directory",
#   while open() of the same file raises PermissionError. Who follows the message looks for the file, not for its rights.
# Output seen:
#   open: PermissionError
#   safe_open: FileNotFoundError No such file or directory
# Exits with 1 when that changes. As root it gives up the right to read everybody's files first (setpriv).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet safetensors==0.8.0 'numpy>=2.4,<2.5'
cat > "$work/try.py" <<'PY'
import os, sys
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

path = sys.argv[1]
save_file({"a": np.zeros(3, np.float32)}, path)
os.chmod(path, 0)
try:
    open(path, "rb")
except OSError as error:
    print("open:", type(error).__name__)
try:
    safe_open(path, framework="np")
except Exception as error:
    print("safe_open:", type(error).__name__, str(error).split(":")[0])
PY
plain=()
[ "$(id -u)" != 0 ] || plain=(setpriv --bounding-set -dac_override,-dac_read_search)
seen=$("${plain[@]}" "$work/venv/bin/python" "$work/try.py" "$work/weights.safetensors")
echo "$seen"
[ "$seen" = "open: PermissionError
safe_open: FileNotFoundError No such file or directory" ]
