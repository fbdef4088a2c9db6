"""Runners over ONNX files: of a torch network, which is exported once and cached, or of a file as it is."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..accel.base import BackendUnavailable, Runner, RunnerContext, Step
from ..accel.digests import file_digest, state_digest
from ..accel.network import ScorerNetwork
from ..accel.torch_runners import HalfRunner, half_dtype
from ..resources import cache_directory
from .engine_provider import EngineSource, usable_library
from .onnx_export import EXPORT_VERSION, export_onnx
from .onnx_file import INPUTS, OUTPUTS, OnnxFormatError, OnnxSpec, inspect_onnx
from .onnx_int8 import INT8_VERSION, quantize_onnx
from .onnxruntime_runner import OnnxRuntimeRunner
from .tensorrt_runner import TensorRTRunner

logger = logging.getLogger(__name__)

INT8_ERROR, BF16_ERROR = 0.3, 0.1
"""Coarse runners may err by this share of the spread of the outputs over hypotheses of one frame; see docs/acceleration.md."""

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


class Int8Runner(OnnxRuntimeRunner):
    """As OnnxRuntimeRunner. ``coarse`` has INT8 convolutions."""

    name = "int8"

    def __init__(self, path: Path, coarse: Path, context: RunnerContext) -> None:
        super().__init__(path, context)
        self.coarse = OnnxRuntimeRunner(coarse, context)
        self.coarse_for = frozenset({Step.DROPPING})
        self.coarse_error = INT8_ERROR
        self.files = (path, coarse)


class Int8TrackRunner(OnnxRuntimeRunner):
    """As OnnxRuntimeRunner."""

    name = "int8"


class Bf16Runner(OnnxRuntimeRunner):
    """As OnnxRuntimeRunner. ``coarse`` is torch's in BF16."""

    name = "bf16"

    def __init__(self, module: nn.Module, context: RunnerContext) -> None:
        super().__init__(exported(module, context, "fp32"), context)
        self.coarse = HalfRunner(module, context)
        self.coarse_for = frozenset({Step.DROPPING})
        self.coarse_error = BF16_ERROR


class Bf16TrackRunner(HalfRunner):
    """Torch's in BF16 alone, whose error of 0.1 degrees tracking may have."""

    name = "bf16"


def bf16_runner(module: nn.Module, context: RunnerContext) -> Bf16Runner | Bf16TrackRunner:
    """Raises BackendUnavailable where it does not work here: BF16 is slow where a CPU has no instructions for it."""
    _need_cpu("BF16", context)
    dtype, why = half_dtype(context.device)
    if dtype is not torch.bfloat16:
        raise BackendUnavailable(why)
    return Bf16TrackRunner(module, context) if context.step is Step.TRACKING else Bf16Runner(module, context)


def _need_cpu(what: str, context: RunnerContext) -> None:
    """And onnxruntime. Raises BackendUnavailable."""
    if context.device.type != "cpu":
        raise BackendUnavailable(f"{what} is for CPUs, this is {context.device}; fp8 is its like for a GPU")
    OnnxRuntimeRunner.check_available(context.device)


def int8_runner(module: nn.Module, context: RunnerContext) -> OnnxRuntimeRunner:
    """Raises BackendUnavailable where it does not work here. INT8 is too coarse for tracking, which therefore gets none."""
    _need_cpu("INT8", context)
    if context.examples is None:
        raise BackendUnavailable("INT8 needs crops by which its activations are scaled")
    source = exported(module, context, "fp32")
    if context.step is Step.TRACKING:
        return Int8TrackRunner(source, context)
    path = source.with_name(f"{source.stem}-int8-v{INT8_VERSION}.onnx")
    if not path.is_file():
        quantize_onnx(source, path, INPUTS, context.examples(context.role))
    return Int8Runner(source, path, context)


def module_source(module: nn.Module, context: RunnerContext) -> EngineSource:
    """What engines of a torch network are built from. The digest is of its weights, not of an ONNX file, whose bytes depend
    on torch's version: engines that were built elsewhere fit here."""
    role = "scorer" if isinstance(module, ScorerNetwork) else "refiner"
    digest = hashlib.sha256(f"{state_digest(module)} {EXPORT_VERSION}".encode()).hexdigest()
    shapes: tuple[tuple[int | None, ...], ...] = ((None, 3), (None, 3)) if role == "refiner" else ((None,),)
    spec = OnnxSpec(Path(f"{role}.onnx"), INPUTS, OUTPUTS[role], "nchw", None, context.crop[1], shapes)
    return EngineSource(role, digest, spec, lambda precision: exported(module, context, precision), context.about)


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
