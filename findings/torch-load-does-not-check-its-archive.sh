#!/usr/bin/env bash
# torch.load reads a checkpoint whose bytes were damaged after torch.save, and says nothing.
#
# Version: torch 2.14.1, Python 3.11.
# Behaviour: the archive is a zip whose entries have CRC-32 checksums, which torch.save writes and torch.load does not compare. Half
#   of a weight became zeros here, as a broken copy leaves them; weights_only=True loads it. Python's zipfile sees the damage.
#   What helps: zipfile.ZipFile(path).testzip() before torch.load: None, or the name of the entry that is damaged.
# Output seen:
#   loaded, 500000 of 1000000 weights are zeros; zipfile: w/data/0
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
said=$("$folder/venv/bin/python" - "$folder/w.pth" <<'PYTHON'
import sys, zipfile
import torch
path = sys.argv[1]
torch.save({"w": torch.ones(1000, 1000)}, path)
with zipfile.ZipFile(path) as archive:
    assert archive.testzip() is None
    entry = max(archive.infolist(), key=lambda i: i.file_size)
data = bytearray(open(path, "rb").read())
data[entry.header_offset + 1000 : entry.header_offset + 2_001_000] = bytes(2_000_000)
open(path, "wb").write(data)
w = torch.load(path, weights_only=True)["w"]
print("loaded,", int((w == 0).sum()), "of", w.numel(), "weights are zeros; zipfile:", zipfile.ZipFile(path).testzip())
PYTHON
)
echo "$said"
[ "$said" = "loaded, 500000 of 1000000 weights are zeros; zipfile: w/data/0" ]
