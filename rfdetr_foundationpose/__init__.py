"""6-DoF object poses from RGB-D: RF-DETR detection and FoundationPose registration and tracking.

``Pipeline`` takes a ``Frame`` and gives the poses of known objects in it. The names below are imported when they are first
used, so that importing the package brings no torch. The core (everything outside ``ros``) never imports rclpy.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config, ConfigError
    from .pipeline import FrameResult, Pipeline, PipelineStatus
    from .types import CameraIntrinsics, Detection, Frame, InputError, ObjectPose, TrackState

# onnxruntime 1.29 and later, once imported, keep a device id and an event store in the user's cache folder and look up a
# collector's address. Here, because every way into the package passes; what the user has set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenMP's threads, which torch uses on a CPU, spin while they wait for each other. Where other processes want the cores too, as on
# a robot, a step then takes up to ten times as long (docs/benchmarks.md, On a CPU). OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

__all__ = [
    "CameraIntrinsics",
    "Config",
    "ConfigError",
    "Detection",
    "Frame",
    "FrameResult",
    "InputError",
    "ObjectPose",
    "Pipeline",
    "PipelineStatus",
    "TrackState",
]

_MODULES = {
    ".config": ("Config", "ConfigError"),
    ".pipeline": ("FrameResult", "Pipeline", "PipelineStatus"),
    ".types": ("CameraIntrinsics", "Detection", "Frame", "InputError", "ObjectPose", "TrackState"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
