"""The two libraries behind the backend ``tensorrt``, and which one runs on a GPU.

``tensorrt``: robots, Jetson, data centres; its engines are built on the GPU they are for. ``tensorrt_rtx``: from PyPI
(extras trt-rtx, trt-rtx-cu12); its engines are built anywhere, for GPUs that are named, and compiled on them.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..accel.base import BackendUnavailable
from ..backends import TENSORRT_LIBRARIES

logger = logging.getLogger(__name__)

TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
INSTALL = {
    "tensorrt": "install NVIDIA's TensorRT 8.5 or later (the package of that name on PyPI is only a stub)",
    "tensorrt_rtx": "pip install '.[trt-rtx]', or '.[trt-rtx-cu12]' for CUDA 12",
}


@dataclass(frozen=True)
class Library:
    """name: the module. trt: the module itself. why: it was taken, for people."""

    name: str
    trt: Any
    why: str = ""

    @property
    def version(self) -> str:
        return str(getattr(self.trt, "__version__", "unknown"))

    @property
    def title(self) -> str:
        """With its version."""
        return f"{TITLES[self.name]} {self.version}"

    @property
    def builds_anywhere(self) -> bool:
        """Whether engines are built for GPUs that are named, without one."""
        return self.name == "tensorrt_rtx"

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """What engines can be built for, "sm_89", ...; empty where that is the GPU at hand."""
        members = (
            getattr(getattr(self.trt, "ComputeCapability", None), "__members__", {}) if self.builds_anywhere else {}
        )
        numbers = sorted(int(m[1]) for name in members if (m := re.fullmatch(r"SM(\d+)", name)))
        return tuple(f"sm_{n}" for n in numbers)

    @cached_property
    def logger(self) -> Any:
        """One for all: the library keeps the first that it is given."""
        return self.trt.Logger(self.trt.Logger.WARNING)

    def refusal(self, target: str) -> str:
        """Why engines for a GPU cannot be had, "" where they can. target: "sm_90"."""
        if not self.builds_anywhere or target in self.targets:
            return ""
        return f"{self.title} has no engines for {target}; it has {', '.join(self.targets)}"


def gpu_target(device: torch.device) -> str:
    """ "sm_89" of a CUDA device."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def import_library(name: str) -> Library:
    """ "tensorrt" or "tensorrt_rtx". Raises BackendUnavailable where it is missing, a stub or too old."""
    try:
        trt = importlib.import_module(name)
    except ImportError as error:
        raise BackendUnavailable(f"{name} is not installed ({error}); {INSTALL[name]}") from error
    except Exception as error:  # a library that does not load: its loader raises what it likes
        raise BackendUnavailable(f"{name} does not load: {error}") from error
    library = Library(name, trt)
    if not hasattr(trt, "OnnxParser"):
        raise BackendUnavailable(
            f"the installed {name} {library.version} is a stub without OnnxParser; {INSTALL[name]}"
        )
    digits = re.findall(r"\d+", library.version)[:2]
    if name == "tensorrt" and tuple(map(int, digits)) < (8, 5):
        raise BackendUnavailable(f"TensorRT {library.version} is too old: 8.5 or later has the tensor-address API")
    return library


def choose_library(wished: str = "auto", target: str | None = None) -> Library:
    """The library that builds or runs engines for a GPU ("sm_89"; None: for those that are named later).

    wished: "auto" takes ``tensorrt`` where it is installed, since it knows every GPU, else ``tensorrt_rtx``; without a GPU
    the other way round, since only that one builds without. Raises BackendUnavailable with the reason of each.
    """
    if wished != "auto" and wished not in TENSORRT_LIBRARIES:
        raise BackendUnavailable(f"tensorrt_library={wished!r} must be one of auto, {', '.join(TENSORRT_LIBRARIES)}")
    order: Sequence[str] = TENSORRT_LIBRARIES if target is not None else TENSORRT_LIBRARIES[::-1]
    if wished != "auto":
        order = (wished,)
    reasons = []
    for name in order:
        try:
            library = import_library(name)
        except BackendUnavailable as error:
            reasons.append(str(error))
            continue
        if target is None and not library.builds_anywhere:
            reasons.append(f"{library.title} builds engines only on the GPU that they are for")
            continue
        if target is not None and (refusal := library.refusal(target)):
            reasons.append(refusal)
            continue
        why = "tensorrt_library asks for it" if wished != "auto" else "; ".join(reasons) or "it knows this GPU"
        if target is None and wished == "auto":
            why = "it builds engines without a GPU"
        return Library(library.name, library.trt, why)
    raise BackendUnavailable("; ".join(reasons))
