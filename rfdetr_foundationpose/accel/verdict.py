"""The result of a runner's check (start_check), kept for later starts on the same CPU.

The check renders crops and runs every network in FP32, which on a CPU takes two of the three seconds of a start. On a GPU it is
done at every start: there it is short, and drivers and clocks change too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from ..device import matmul_precision
from ..resources import cache_directory, write_whole
from .base import BaseRunner
from .digests import file_digest, state_digest
from .start_check import sees_rendered_crops

logger = logging.getLogger(__name__)

FORMAT = 1
CHECKED_CODE = ("accel", "engines", "pose")
"""Folders of this package that make runners and the crops on which they are checked."""
LIBRARIES = ("torch", "onnxruntime", "warp-lang", "numpy")
PROCESSOR = ("model name", "flags", "Features", "CPU part")
"""Lines of /proc/cpuinfo with the model of the CPU and its instructions, on x86 and ARM."""


class Verdict:
    """That a runner passed its check. The file lists everything that the result depends on; it is valid only while all of it is
    unchanged."""

    def __init__(self, runner: BaseRunner, module: nn.Module) -> None:
        context = runner.context
        network = state_digest(module)
        tree = {
            "format": FORMAT,
            "passed": "held to FP32 on rendered crops",
            "network": network,
            "files": [file_digest(path) for path in runner.files],
            "role": context.role,
            "step": None if context.step is None else context.step.value,
            "crop": list(runner.crop),
            "runner": f"{type(runner).__module__}.{type(runner).__qualname__}",
            "precision": [str(runner.dtype), None if runner.coarse is None else str(runner.coarse.dtype)],
            "matmul_precision": matmul_precision(),
            "libraries": {name: _version(name) for name in LIBRARIES},
            "code": _code(),
            "processor": _processor(),
        }
        self._text = (json.dumps(tree, indent=1) + "\n").encode()
        step = "" if context.step is None else f"-{context.step.value}"
        name = f"{context.role}-{network[:16]}-{runner.crop[1]}-{runner.name}{step}.checked.json"
        self.path = (context.engines.cache or cache_directory()) / "onnx" / name

    @classmethod
    def of(cls, runner: BaseRunner, module: nn.Module) -> Verdict | None:
        """None where nothing is kept: on a GPU, and where no crops are rendered."""
        if runner.device.type != "cpu" or not sees_rendered_crops(runner):
            return None
        try:
            return cls(runner, module)
        except OSError as error:
            logger.info("%s: the result of the start-up check is not kept: %s", runner.label, error)
            return None

    def known(self) -> bool:
        """Whether an earlier start checked exactly this. A file with any other content is ignored."""
        try:
            return self.path.read_bytes() == self._text
        except OSError:
            return False

    def keep(self) -> None:
        """Write the file; where that fails, a line is logged and the next start checks again."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, self._text)
        except OSError as error:
            logger.info("the result of the start-up check is not kept in %s: %s", self.path, error)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _code() -> str:
    """SHA-256 of the source files in CHECKED_CODE."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for folder in CHECKED_CODE:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _processor() -> dict[str, str]:
    """The CPU, as far as libraries choose their kernels by it."""
    lines: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in PROCESSOR:
                lines.setdefault(key.strip(), value.strip())
    except OSError:
        lines["processor"] = platform.processor()
    chosen = {k: v for k, v in os.environ.items() if k.startswith(("ONEDNN_", "DNNL_"))}
    features = hashlib.sha256(json.dumps([lines, chosen], sort_keys=True).encode()).hexdigest()
    return {
        "machine": platform.machine(),
        "model": lines.get("model name", lines.get("CPU part", "")),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "features": features,
    }
