"""Every way to run a network, once: what it is called, who makes it, and what takes its place where it does not work.

Settings, fallback orders and error messages are made from this table. Nothing here imports torch: makers are named, and
imported when they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .errors import ConfigError

_PACKAGE = __name__.rpartition(".")[0]


TENSORRT_LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""Either of these modules can run the backend ``tensorrt``; the first is preferred where both do."""


@dataclass(frozen=True)
class Backend:
    """One way to run a network.

    on_gpu, on_cpu: the backend that is tried where this one does not work, "" for the last one.
    capturable: whether calls may be recorded in a CUDA graph around them. graph: whether it is run as a CUDA graph itself.
    pose, detector: who makes it, as "module:callable", "" where it is not offered for that network.
        pose: (network, accel.base.RunnerContext) -> Runner. detector: (model, detect.backends.Placement) -> forward.
    """

    name: str
    on_gpu: str
    on_cpu: str
    capturable: bool = True
    graph: bool = False
    pose: str = ""
    detector: str = ""


_TORCH, _DETECT = "accel.torch_runners", "detect.backends"

BACKENDS = (
    Backend("reference", "eager", "eager", False, pose=f"{_TORCH}:ReferenceRunner", detector=f"{_DETECT}:reference"),
    Backend("eager", "", "", pose=f"{_TORCH}:EagerRunner", detector=f"{_DETECT}:eager"),
    Backend("half", "eager", "eager", pose=f"{_TORCH}:HalfRunner", detector=f"{_DETECT}:eager"),
    Backend("traced", "half", "half", pose=f"{_TORCH}:TracedRunner", detector=f"{_DETECT}:traced"),
    Backend(
        "compile", "cuda_graph", "traced", graph=True, pose=f"{_TORCH}:CompileRunner", detector=f"{_DETECT}:compiled"
    ),
    Backend(
        "cuda_graph", "half", "onnxruntime", graph=True, pose=f"{_TORCH}:GraphRunner", detector=f"{_DETECT}:traced"
    ),
    Backend("fp8", "cuda_graph", "onnxruntime", graph=True, pose="accel.fp8_runner:fp8_runner"),
    Backend(
        "tensorrt",
        "cuda_graph",
        "onnxruntime",
        pose="engines.runners:tensorrt_runner",
        detector="detect.onnx_detector:tensorrt",
    ),
    Backend(
        "onnxruntime",
        "cuda_graph",
        "traced",
        False,
        pose="engines.runners:onnxruntime_runner",
        detector="detect.onnx_detector:onnxruntime",
    ),
    Backend("int8", "cuda_graph", "onnxruntime", False, pose="engines.runners:int8_runner"),
    Backend("bf16", "cuda_graph", "int8", False, pose="engines.runners:bf16_runner"),
)
"""The slowest comes first; onnxruntime, int8 and bf16, which are for CPUs, stand beside the others."""

_BY_NAME = {b.name: b for b in BACKENDS}


@dataclass(frozen=True)
class Family:
    """The backends that are offered for one kind of network: "pose" (refiner and scorer) or "detector"."""

    kind: str

    @property
    def names(self) -> tuple[str, ...]:
        """Without "auto"."""
        return tuple(b.name for b in BACKENDS if getattr(b, self.kind))

    @property
    def choices(self) -> tuple[str, ...]:
        """Values of the setting."""
        return ("auto", *self.names)

    def get(self, name: str) -> Backend:
        """The backend of a name. Raises ConfigError that says which there are."""
        if name not in self.names:
            raise ConfigError(f"{self.kind}.backend={name!r} must be one of {', '.join(self.choices)}")
        return _BY_NAME[name]

    def maker(self, name: str) -> Callable[..., Any]:
        """What makes a backend. Raises ConfigError for an unknown name."""
        module, _, attribute = str(getattr(self.get(name), self.kind)).partition(":")
        made: Callable[..., Any] = getattr(import_module(f"{_PACKAGE}.{module}"), attribute)
        return made

    def following(self, name: str, device_type: str) -> str | None:
        """What is tried where ``name`` does not work on a device of a type ("cuda" or "cpu"); None after the last."""
        while name:
            name = _BY_NAME[name].on_gpu if device_type == "cuda" else _BY_NAME[name].on_cpu
            if name in self.names:
                return name
        return None

    def auto(self, device_type: str) -> str:
        """The backend that "auto" stands for. docs/acceleration.md has the measurements behind it."""
        if device_type == "cuda":
            return "cuda_graph"
        if self.kind == "detector":
            # On a CPU tracing takes seconds and gains nothing, FP16 is slower, and BF16, where it is faster, rounds
            # features so coarsely that other proposals are looked at.
            return "eager"
        if find_spec("onnxruntime") is None:
            return "traced"
        # BF16 takes half of the time where a CPU has instructions for it. Of the exact ones onnxruntime's threads suffer
        # less from other processes on the same cores.
        return "bf16" if import_module(f"{_PACKAGE}.{_TORCH}").cpu_has_bf16() else "onnxruntime"


POSE, DETECTOR = Family("pose"), Family("detector")
