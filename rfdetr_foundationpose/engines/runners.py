"""Runners over ONNX files: of a torch network, which is exported once and cached, or of a file as it is."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ..accel.base import BackendUnavailable, Runner, RunnerContext
from ..accel.network import ScorerNetwork
from .engine_folder import cache_directory
from .engine_provider import EngineSource, usable_library
from .onnx_export import EXPORT_VERSION, export_onnx
from .onnx_file import INPUTS, OUTPUTS, OnnxFormatError, OnnxSpec, file_digest, inspect_onnx, state_digest
from .onnxruntime_runner import OnnxRuntimeRunner
from .tensorrt_runner import TensorRTRunner

logger = logging.getLogger(__name__)

FILE_BACKENDS = ("tensorrt", "onnxruntime")
"""These backends run ONNX files; "auto" tries them in this order."""


def tensorrt_runner(module: nn.Module, context: RunnerContext) -> TensorRTRunner:
    """Raises BackendUnavailable where TensorRT does not work here."""
    usable_library(context.device, context.engines)
    return TensorRTRunner(module_source(module, context), context)


def onnxruntime_runner(module: nn.Module, context: RunnerContext) -> OnnxRuntimeRunner:
    """Raises BackendUnavailable where onnxruntime does not work here."""
    OnnxRuntimeRunner.check_available(context.device)
    precision = "fp16" if context.device.type == "cuda" else "fp32"
    return OnnxRuntimeRunner(exported(module, context, precision), context)


def module_source(module: nn.Module, context: RunnerContext, about: str = "") -> EngineSource:
    """What engines of a torch network are built from. The digest is of its weights, not of an ONNX file, whose bytes depend
    on torch's version: engines that were built elsewhere fit here."""
    role = "scorer" if isinstance(module, ScorerNetwork) else "refiner"
    digest = hashlib.sha256(f"{state_digest(module)} {EXPORT_VERSION}".encode()).hexdigest()
    shapes: tuple[tuple[int | None, ...], ...] = ((None, 3), (None, 3)) if role == "refiner" else ((None,),)
    spec = OnnxSpec(Path(f"{role}.onnx"), INPUTS, OUTPUTS[role], "nchw", None, context.crop[1], shapes)
    return EngineSource(role, digest, spec, lambda precision: exported(module, context, precision), about)


def file_source(path: Path) -> EngineSource:
    """What engines of an ONNX file are built from."""
    spec = inspect_onnx(path)
    return EngineSource(spec.role, file_digest(path), spec, lambda _: path, path.name)


def runner_from_onnx(
    path: str | Path,
    backend: str = "auto",
    context: RunnerContext | None = None,
    *,
    batches: Sequence[int] = (),
) -> Runner:
    """A runner over an ONNX refiner or scorer (ours, or NVIDIA's refine_model.onnx / score_model.onnx).

    Only tensorrt and onnxruntime can run such a file; "auto" tries them in this order. batches: sizes to prepare now.
    Raises OnnxFormatError for another network, BackendUnavailable when neither works here, ValueError for a backend that
    needs a torch module.
    """
    context = context or RunnerContext()
    if backend not in ("auto", *FILE_BACKENDS):
        raise ValueError(
            f"backend={backend!r} needs a torch module; an ONNX file runs with auto, {' or '.join(FILE_BACKENDS)}"
        )
    inspect_onnx(path)
    reasons: list[str] = []
    for name in ("onnxruntime",) if backend == "onnxruntime" else FILE_BACKENDS:
        try:
            runner = _file_runner(name, Path(path), context)
            for batch in batches:
                runner.prepare(batch)
            runner.degraded = "; ".join(reasons) if backend == "tensorrt" else ""
            return runner
        except BackendUnavailable as error:
            reasons.append(f"{context.label}: {name} not available: {error}")
            logger.log(logging.WARNING if backend == name else logging.INFO, "%s", reasons[-1])
    raise BackendUnavailable("; ".join(reasons))


def _file_runner(name: str, path: Path, context: RunnerContext) -> TensorRTRunner | OnnxRuntimeRunner:
    if name == "onnxruntime":
        return OnnxRuntimeRunner(path, context)
    usable_library(context.device, context.engines)
    return TensorRTRunner(file_source(path), context)


def exported(module: nn.Module, context: RunnerContext, precision: str) -> Path:
    """The ONNX file of ``module`` in the cache, written when it is not there yet."""
    size = context.crop[1]
    name = f"{context.role}-{state_digest(module)[:16]}-{size}-{precision}-v{EXPORT_VERSION}.onnx"
    path = (context.engines.cache or cache_directory()) / "onnx" / name
    if path.is_file():
        try:
            inspect_onnx(path)
            return path
        except OnnxFormatError:
            path.unlink()
    role = "scorer" if isinstance(module, ScorerNetwork) else "refiner"
    on_cpu = copy.deepcopy(module).cpu()
    return export_onnx(on_cpu, path, outputs=OUTPUTS[role], precision=precision, size=size)
