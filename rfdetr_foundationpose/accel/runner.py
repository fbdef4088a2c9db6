"""A network at a backend, or at the next one of the fallback order that works here, visibly (see ..backends)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from ..backends import POSE
from ..errors import one_line
from .base import BackendUnavailable, BaseRunner, Runner, RunnerContext, as_tuple
from .memory import within_memory_limit

logger = logging.getLogger(__name__)


def make_runner(
    module: nn.Module,
    backend: str = "auto",
    context: RunnerContext | None = None,
    *,
    batches: Sequence[int] = (),
    fallback: bool = True,
) -> Runner:
    """A runner over ``module`` (eval mode): (N, C, R, R) x 2 -> tensor or tuple of tensors.

    batches: sizes to prepare now; others are prepared when first met. A backend that does not work here (missing library,
    failed capture, wrong results) is logged with the reason and the next one takes its place, with the reason in
    ``runner.degraded``; with ``fallback=False`` BackendUnavailable is raised instead. Raises ValueError for an unknown
    backend.
    """
    context = context or RunnerContext()
    device = context.device
    current: str | None = POSE.auto(device.type) if backend == "auto" else POSE.get(backend).name
    home = next((p.device for p in module.parameters()), device)
    module = module.to(device).eval().requires_grad_(False)
    reasons: list[str] = []
    while current is not None:
        try:
            runner: BaseRunner = POSE.maker(current)(module, context)
            within_memory_limit(partial(_check, runner, module), device)
            for batch in batches:
                runner.prepare(batch)
            runner.degraded = "; ".join(reasons)
            if runner.owns_copy:
                module.to(home)  # most backends run a copy of their own: no device memory for two
            return runner
        except Exception as error:  # no memory, a read-only cache, a library that does not load: each has its own type
            reason = one_line(error)
            if not fallback:
                raise BackendUnavailable(reason) from error
            following = POSE.following(current, device.type)
            reasons.append(f"{context.label}: {current} not available: {reason}")
            logger.warning("%s%s", reasons[-1], f"; trying {following}" if following else "")
            current = following
    raise BackendUnavailable("; ".join(reasons))


def _check(runner: BaseRunner, module: nn.Module) -> None:
    """Refuse a backend whose results are not those of the module: overflow in half precision, a broken kernel, ..."""
    if runner.name in ("eager", "reference"):
        return
    batch = runner.fixed_batch or 2
    channels, size = runner.crop
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.rand(batch, channels, size, size, generator=generator).to(runner.device) for _ in range(2))
    with torch.inference_mode():
        expected = as_tuple(module(a, b))
    runner.prepare(batch)
    found = runner(a, b)
    for e, f in zip(expected, found, strict=True):
        worst = ((e - f).abs().max() / (e.abs().max() + 1e-3)).item()
        if not worst < 0.1:
            raise BackendUnavailable(f"its outputs differ from FP32 eager by {worst:.1%} of their range")
