"""NVRTC as torch brings it, called from Python: it takes the handlers of SIGINT and SIGTERM while it parses. Needs no GPU."""

from __future__ import annotations

import ctypes
import signal
from pathlib import Path


class _Action(ctypes.Structure):
    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


def folder() -> Path | None:
    """Where the library is; None where it is not installed."""
    try:
        import nvidia
    except ImportError:
        return None
    return next((p.parent for root in nvidia.__path__ for p in Path(root).glob("*/lib/libnvrtc.so*")), None)


def handler() -> tuple[int | None, int]:
    """Address and flags of what the kernel calls on SIGINT."""
    found = _Action()
    ctypes.CDLL(None).sigaction(signal.SIGINT, None, ctypes.byref(found))
    return found.handler, found.flags


class Compiler:
    """``compile`` takes long enough to be hit by a signal. Call it in any thread."""

    def __init__(self) -> None:
        place = folder()
        assert place is not None
        for path in place.glob("libnvrtc-builtins.so*"):
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(next(place.glob("libnvrtc.so*"))))
        body = b" ".join(b"a = a * %d.5f + sinf(a) * p[%d];" % (i, i) for i in range(30))
        self._source = b'extern "C" __global__ void k(float* p) { float a = p[0]; ' + body + b" p[1] = a; }"
        self.results: list[int] = []

    def compile(self) -> None:
        program = ctypes.c_void_p()
        self._library.nvrtcCreateProgram(ctypes.byref(program), self._source, b"k.cu", 0, None, None)
        options = (ctypes.c_char_p * 1)(b"--gpu-architecture=compute_90")
        self.results.append(self._library.nvrtcCompileProgram(program, 1, options))
