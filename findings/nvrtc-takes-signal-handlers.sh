#!/usr/bin/env bash
# NVRTC 13.0 (the one that PyPI's torch for CUDA 13 brings) takes a program's handlers of SIGINT and SIGTERM away.
#
# Versions: nvidia-cuda-nvrtc 13.0.88, Python 3.11, Linux x86-64; it needs no GPU.
# Behaviour, during nvrtcCompileProgram:
#  1. for the first part of the compile (tens of milliseconds) both signals have a handler of NVRTC's; a SIGINT in that time
#     ends the whole process with status 4, whatever handler the program had, without its cleaning up;
#  2. afterwards the program's handlers are back, but with SA_RESTART and without SA_ONSTACK: a wait without a timeout in
#     the main thread (threading.Event().wait() in Python) is not interrupted by Ctrl-C any more.
#   What helps: block the signals in every thread and take them with sigwait, or wait in steps (helps against 2 only).
# Output seen:
#   SA_RESTART before: False, after: True; same handler: True
#   another handler while it compiles
#   a SIGINT during the compile ended the process with status 4
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nvidia-cuda-nvrtc==13.0.88
cat > "$folder/compile.py" <<'PYTHON'
import ctypes, os, signal, sys, threading
from pathlib import Path
import nvidia

library = next(p for root in nvidia.__path__ for p in Path(root).glob("*/lib/libnvrtc.so*"))
for builtins in library.parent.glob("libnvrtc-builtins.so*"):
    ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
nvrtc = ctypes.CDLL(str(library))

class Action(ctypes.Structure):  # glibc's struct sigaction
    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16), ("flags", ctypes.c_int), ("restorer", ctypes.c_void_p)]

def action():
    found = Action()
    ctypes.CDLL(None).sigaction(signal.SIGINT, None, ctypes.byref(found))
    return found.handler, found.flags

SA_RESTART = 0x10000000
signal.signal(signal.SIGINT, lambda *_: None)
before = action()
terms = b" ".join(b"a = a * %d.5f + sinf(a) * p[%d];" % (i, i) for i in range(30))
source = b'extern "C" __global__ void k(float* p) { float a = p[0]; ' + terms + b" p[1] = a; }"

def compile():
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"k.cu", 0, None, None)
    assert nvrtc.nvrtcCompileProgram(program, 1, (ctypes.c_char_p * 1)(b"--gpu-architecture=compute_90")) == 0

thread = threading.Thread(target=compile)
thread.start()
while sys.argv[1] == "during" and thread.is_alive():
    if action()[0] != before[0]:
        print("another handler while it compiles", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        break
thread.join()
after = action()
print(f"SA_RESTART before: {bool(before[1] & SA_RESTART)}, after: {bool(after[1] & SA_RESTART)}; same handler: {after[0] == before[0]}")
PYTHON
said=$("$folder/venv/bin/python" "$folder/compile.py" after)
echo "$said"
[ "$said" = "SA_RESTART before: False, after: True; same handler: True" ]
status=0
"$folder/venv/bin/python" "$folder/compile.py" during || status=$?
echo "a SIGINT during the compile ended the process with status $status"
[ "$status" = 4 ]
