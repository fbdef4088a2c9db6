#!/usr/bin/env bash
# A tensor without dimensions as an index is read on the host; a dispatch mode sees that under two names, by whether inference mode is on.
#
# Version: torch 2.14.1, Python 3.11, on a CPU. On a GPU (torch 2.11.0, H200) a CUDA graph that holds such an index was not captured: the
#   error was cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture", which does not name it.
# Behaviour: values[i] with i of no dimensions calls i.item(), which waits for the GPU; values[i[None]] gathers on the device. A
#   TorchDispatchMode that looks for reads sees aten._local_scalar_dense, but under inference_mode only aten.item: looking for one
#   name misses the other.
#   What helps: an index of one dimension; a mode that knows both names finds such reads without a GPU.
# Output seen:
#   grad mode: _local_scalar_dense; inference mode: item; with a dimension: nothing, nothing
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
said=$("$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.utils._python_dispatch import TorchDispatchMode

class Reads(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("item", "_local_scalar_dense"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))

def reads(index, inference):
    mode = Reads()
    mode.seen = []
    with torch.inference_mode(inference), mode:
        values[index]
    return ", ".join(mode.seen) or "nothing"

values, i = torch.arange(5.0), torch.tensor(2)
print(f"grad mode: {reads(i, False)}; inference mode: {reads(i, True)}; with a dimension: {reads(i[None], False)}, {reads(i[None], True)}")
PYTHON
)
echo "$said"
[ "$said" = "grad mode: _local_scalar_dense; inference mode: item; with a dimension: nothing, nothing" ]
