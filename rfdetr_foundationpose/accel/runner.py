"""The fallback order: one name per way to run a network, and a visible way down when one does not work here.

Backends, slowest first: ``reference`` (as the official code), ``eager`` (FP32), ``half``, ``traced``, ``compile``,
``cuda_graph``, ``fp8``, ``tensorrt``; ``onnxruntime`` stands beside them; ``auto`` picks for the device.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from .base import BackendUnavailable, BaseRunner, Log, Outputs, Runner, one_line, role_of
from .engine_cache import cache_directory
from .fp8_runner import fp8_runner
from .graph import GraphPool
from .memory import within_memory_limit
from .onnx_export import OnnxFormatError, export_onnx, inspect_onnx, state_digest
from .onnxruntime_runner import OnnxRuntimeRunner
from .tensorrt import TensorRTRunner
from .torch_runners import (
    CompileRunner,
    EagerRunner,
    GraphRunner,
    HalfRunner,
    ReferenceRunner,
    TracedRunner,
)

__all__ = ["BackendUnavailable", "Outputs", "Runner", "make_runner", "resolve_auto", "runner_from_onnx"]

BACKENDS = ("reference", "eager", "half", "traced", "compile", "cuda_graph", "fp8", "tensorrt", "onnxruntime")

SHARING_POOL = {"compile": CompileRunner, "cuda_graph": GraphRunner, "fp8": fp8_runner}

NEXT = {
    "cuda": {
        "tensorrt": "cuda_graph",
        "onnxruntime": "cuda_graph",
        "compile": "cuda_graph",
        "fp8": "cuda_graph",
        "cuda_graph": "half",
        "traced": "half",
        "half": "eager",
        "reference": "eager",
    },
    "cpu": {
        "tensorrt": "onnxruntime",
        "fp8": "onnxruntime",
        "cuda_graph": "onnxruntime",
        "onnxruntime": "traced",
        "compile": "traced",
        "traced": "half",
        "half": "eager",
        "reference": "eager",
    },
}
"""What is tried when a backend does not work, per device type."""


def resolve_auto(device: torch.device | str) -> str:
    """The backend that "auto" stands for. docs/acceleration.md has the measurements behind it."""
    if torch.device(device).type == "cuda":
        return "cuda_graph"
    # Both are exact; onnxruntime's threads suffer less from other processes on the same cores.
    return "onnxruntime" if find_spec("onnxruntime") is not None else "traced"


def make_runner(
    module: nn.Module,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    log: Log = print,
    *,
    label: str = "network",
    batches: Sequence[int] = (),
    outputs: Sequence[str] | None = None,
    crop: tuple[int, int] = (6, 160),
    fallback: bool = True,
    cache_dir: Path | None = None,
    pool: GraphPool | None = None,
) -> Runner:
    """A runner over ``module`` (eval mode): (N, C, R, R) x 2 -> tensor or tuple of tensors.

    batches: sizes to prepare now; others are prepared when first met. outputs: their names in ONNX files.
    pool: shared by runners that never run at the same time, which saves memory on a GPU. label: for the log; its last word names the network in caches ("register refiner" shares those of "refiner").
    A backend that does not work here (missing library, failed capture, wrong results) is logged with the reason and the
    next one takes its place, with the reason in ``runner.degraded``; with ``fallback=False`` BackendUnavailable is
    raised instead. Raises ValueError for an unknown backend.
    """
    device = torch.device(device)
    wished = resolve_auto(device) if backend == "auto" else backend
    if wished not in BACKENDS:
        raise ValueError(f"backend={backend!r} must be one of auto, {', '.join(BACKENDS)}")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every shape is fixed: the search pays once, in warm-up
    home = next((p.device for p in module.parameters()), device)
    module = module.to(device).eval().requires_grad_(False)
    reasons: list[str] = []
    current: str | None = wished
    while current is not None:
        try:
            runner = _build(current, module, device, log, label, outputs, crop, cache_dir, pool)
            within_memory_limit(partial(_check, runner, module, device, crop), device)
            for batch in batches:
                runner.prepare(batch)
            runner.degraded = "; ".join(reasons)
            if getattr(runner, "module", None) is not module:
                module.to(home)  # most backends run a copy of their own: no device memory for two
            return runner
        except (
            Exception
        ) as error:  # out of memory, a read-only cache, a library that does not load: each has its own type
            reason = one_line(error)
            if not fallback:
                raise BackendUnavailable(reason) from error
            following = NEXT[device.type if device.type == "cuda" else "cpu"].get(current)
            reasons.append(f"{label}: {current} not available: {reason}")
            log(f"{reasons[-1]}; trying {following}" if following else reasons[-1])
            current = following
    raise BackendUnavailable("; ".join(reasons))


def runner_from_onnx(
    path: str | Path,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    log: Log = print,
    *,
    label: str = "network",
    batches: Sequence[int] = (),
    cache_dir: Path | None = None,
) -> Runner:
    """A runner over an ONNX refiner or scorer (ours, or NVIDIA's refine_model.onnx / score_model.onnx).

    Only tensorrt and onnxruntime can run such a file; "auto" tries them in this order. Raises OnnxFormatError for
    another network, BackendUnavailable when neither works here, ValueError for a backend that needs a torch module.
    """
    device = torch.device(device)
    if backend not in ("auto", "tensorrt", "onnxruntime"):
        raise ValueError(
            f"backend={backend!r} needs a torch module; an ONNX file runs with auto, tensorrt or onnxruntime"
        )
    inspect_onnx(path)
    reasons: list[str] = []
    wished = {"onnxruntime": ("onnxruntime",)}.get(backend, ("tensorrt", "onnxruntime"))
    for current in wished:
        try:
            runner: BaseRunner
            if current == "tensorrt":
                runner = TensorRTRunner(Path(path), device, label, log, cache_dir=cache_dir)
            else:
                runner = OnnxRuntimeRunner(Path(path), device, label, log)
            for batch in batches:
                runner.prepare(batch)
            runner.degraded = "; ".join(reasons) if backend == "tensorrt" else ""
            return runner
        except BackendUnavailable as error:
            reasons.append(f"{label}: {current} not available: {error}")
            log(reasons[-1])
    raise BackendUnavailable("; ".join(reasons))


def _build(
    backend: str,
    module: nn.Module,
    device: torch.device,
    log: Log,
    label: str,
    outputs: Sequence[str] | None,
    crop: tuple[int, int],
    cache_dir: Path | None,
    pool: GraphPool | None,
) -> BaseRunner:
    if backend in ("tensorrt", "onnxruntime"):
        (TensorRTRunner if backend == "tensorrt" else OnnxRuntimeRunner).check_available(device)
        path = _exported(module, backend, device, outputs, crop, cache_dir, label)
        if backend == "tensorrt":
            return TensorRTRunner(path, device, label, log, cache_dir=cache_dir)
        return OnnxRuntimeRunner(path, device, label, log)
    if backend in SHARING_POOL:
        return SHARING_POOL[backend](module, device, crop, label, log, pool)
    simple = {"reference": ReferenceRunner, "eager": EagerRunner, "half": HalfRunner, "traced": TracedRunner}
    return simple[backend](module, device, crop, label, log)


def _exported(
    module: nn.Module,
    backend: str,
    device: torch.device,
    outputs: Sequence[str] | None,
    crop: tuple[int, int],
    cache_dir: Path | None,
    label: str,
) -> Path:
    """The ONNX file of ``module`` in the cache, written when it is not there yet."""
    half = device.type == "cuda"
    digest = state_digest(module)[:16]
    path = (
        (cache_dir or cache_directory())
        / "onnx"
        / f"{role_of(label)}-{digest}-{crop[1]}-{'fp16' if half else 'fp32'}.onnx"
    )
    if path.is_file():
        try:
            inspect_onnx(path)
            return path
        except OnnxFormatError:
            path.unlink()
    if outputs is None:
        with torch.inference_mode():
            zeros = torch.zeros(1, *crop[:1], crop[1], crop[1], device=device)
            found = module(zeros, zeros)
        outputs = ["scores"] if isinstance(found, torch.Tensor) else ["trans", "rot"][: len(found)]
    on_cpu = copy.deepcopy(module).cpu()
    return export_onnx(on_cpu, path, outputs=outputs, precision="fp16" if half else "fp32", size=crop[1])


def _check(runner: BaseRunner, module: nn.Module, device: torch.device, crop: tuple[int, int]) -> None:
    """Refuse a backend whose results are not those of the module: overflow in half precision, a broken kernel, ..."""
    if runner.name in ("eager", "reference"):
        return
    fixed = getattr(getattr(runner, "spec", None), "batch", None)
    batch = fixed or 2
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.rand(batch, crop[0], crop[1], crop[1], generator=generator).to(device) for _ in range(2))
    with torch.inference_mode():
        expected = module(a, b)
    expected = (expected,) if isinstance(expected, torch.Tensor) else tuple(expected)
    runner.prepare(batch)
    found = runner(a, b)
    for e, f in zip(expected, found, strict=True):
        worst = ((e - f).abs().max() / (e.abs().max() + 1e-3)).item()
        if not worst < 0.1:
            raise BackendUnavailable(f"its outputs differ from FP32 eager by {worst:.1%} of their range")
