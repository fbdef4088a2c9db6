"""Runners over ONNX files: of a torch network, which is exported once and cached, or of a file as it is."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from .base import BackendUnavailable, Runner, RunnerContext
from .engine_cache import cache_directory
from .network import ScorerNetwork
from .onnx_export import OUTPUTS, OnnxFormatError, export_onnx, inspect_onnx, state_digest
from .onnxruntime_runner import OnnxRuntimeRunner
from .tensorrt import TensorRTRunner

logger = logging.getLogger(__name__)

FILE_RUNNERS: dict[str, type[TensorRTRunner | OnnxRuntimeRunner]] = {
    "tensorrt": TensorRTRunner,
    "onnxruntime": OnnxRuntimeRunner,
}
"""The backends that run ONNX files, in the order in which "auto" tries them."""


def tensorrt_runner(module: nn.Module, context: RunnerContext) -> TensorRTRunner:
    """Raises BackendUnavailable where TensorRT does not work here."""
    TensorRTRunner.check_available(context.device)
    return TensorRTRunner(exported(module, context), context)


def onnxruntime_runner(module: nn.Module, context: RunnerContext) -> OnnxRuntimeRunner:
    """Raises BackendUnavailable where onnxruntime does not work here."""
    OnnxRuntimeRunner.check_available(context.device)
    return OnnxRuntimeRunner(exported(module, context), context)


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
    if backend not in ("auto", *FILE_RUNNERS):
        raise ValueError(
            f"backend={backend!r} needs a torch module; an ONNX file runs with auto, {' or '.join(FILE_RUNNERS)}"
        )
    inspect_onnx(path)
    reasons: list[str] = []
    for name in ("onnxruntime",) if backend == "onnxruntime" else FILE_RUNNERS:
        try:
            runner = FILE_RUNNERS[name](Path(path), context)
            for batch in batches:
                runner.prepare(batch)
            runner.degraded = "; ".join(reasons) if backend == "tensorrt" else ""
            return runner
        except BackendUnavailable as error:
            reasons.append(f"{context.label}: {name} not available: {error}")
            logger.log(logging.WARNING if backend == name else logging.INFO, "%s", reasons[-1])
    raise BackendUnavailable("; ".join(reasons))


def exported(module: nn.Module, context: RunnerContext) -> Path:
    """The ONNX file of ``module`` in the cache, written when it is not there yet."""
    precision = "fp16" if context.device.type == "cuda" else "fp32"
    size = context.crop[1]
    name = f"{context.role}-{state_digest(module)[:16]}-{size}-{precision}.onnx"
    path = (context.cache_dir or cache_directory()) / "onnx" / name
    if path.is_file():
        try:
            inspect_onnx(path)
            return path
        except OnnxFormatError:
            path.unlink()
    outputs = context.outputs or OUTPUTS["scorer" if isinstance(module, ScorerNetwork) else "refiner"]
    on_cpu = copy.deepcopy(module).cpu()
    return export_onnx(on_cpu, path, outputs=outputs, precision=precision, size=size)
