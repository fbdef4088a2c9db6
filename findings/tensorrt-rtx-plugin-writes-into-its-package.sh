#!/usr/bin/env bash
# Importing onnxruntime's TensorRT-RTX plugin writes into its installed package; what it wrote outlives pip uninstall.
#
# Version: onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0 with onnxruntime 1.32.0, Python 3.11, Linux without an NVIDIA driver.
# Behaviour: the bare import, which registers nothing yet, makes four links beside the libraries of its package
#   (libtensorrt_rtx.so, libtensorrt_rtx.so.1 and those of the ONNX parser), which are in no RECORD, so that pip uninstall leaves the
#   folder with four dangling links, and the name of the package can still be imported as a namespace. It also puts that folder first
#   in LD_LIBRARY_PATH of the process, which child processes inherit: theirs come before a TensorRT of the system. Without a driver,
#   register_execution_provider_library fails with the name of libcuda.so.1, while a session that names only this provider
#   goes on with the CPU's.
# Output seen: the four links after the import; the folder first in a child's LD_LIBRARY_PATH; Fail with libcuda.so.1;
#   ['CPUExecutionProvider']; four dangling links after pip uninstall, and a namespace package.
# Exits with 1 when that changes, with 77 where there is a driver.
set -euo pipefail
[ ! -e /proc/driver/nvidia/version ] || { echo "skipped: there is an NVIDIA driver here"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0 onnxruntime==1.32.0 numpy==2.4.6 onnx==1.23.2
cat >"$work/check.py" <<'PY'
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnxruntime as ort
from onnx import TensorProto, helper

folder = Path(find_spec("onnxruntime_ep_nv_tensorrt_rtx").origin).parent
before = {p.name for p in folder.iterdir()}
import onnxruntime_ep_nv_tensorrt_rtx as plugin

written = sorted({p.name for p in folder.iterdir()} - before - {"__pycache__"})
print("written by the import:", written)
assert len(written) == 4 and all((folder / name).is_symlink() for name in written)
child = subprocess.run([sys.executable, "-c", "import os; print(os.environ['LD_LIBRARY_PATH'])"], capture_output=True, text=True)
first = child.stdout.strip().split(os.pathsep)[0]
print("first in a child's LD_LIBRARY_PATH is its folder:", first == str(folder))
assert first == str(folder)
try:
    ort.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
    raise SystemExit("registered without a driver")
except ort.capi.onnxruntime_pybind11_state.Fail as error:
    print("registering:", str(error)[-80:])
    assert "libcuda.so.1" in str(error)
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
taken = ort.InferenceSession(model.SerializeToString(), providers=[plugin.get_ep_name()]).get_providers()
print("a session that names it alone runs on:", taken)
assert taken == ["CPUExecutionProvider"]
PY
"$work/venv/bin/python" "$work/check.py"
"$work/venv/bin/pip" uninstall --quiet --yes onnxruntime-ep-nv-tensorrt-rtx-cu13
"$work/venv/bin/python" - <<'PY'
from importlib.util import find_spec
from pathlib import Path

spec = find_spec("onnxruntime_ep_nv_tensorrt_rtx")
assert spec is not None and spec.origin is None, spec
left = sorted(p.name for p in Path(list(spec.submodule_search_locations)[0]).iterdir() if p.is_symlink() and not p.exists())
print("dangling after pip uninstall:", left)
assert len(left) == 4
PY
