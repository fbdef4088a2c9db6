"""Makes a runner of a network: at the backend that is asked for, or at the next one of the fallback order that works here, which
is said (see ..backends)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from ..backends import POSE
from ..errors import one_line
from .base import BackendUnavailable, BaseRunner, Runner, RunnerContext, as_tuple
from .memory import within_memory_limit
from .network import ScorerNetwork

logger = logging.getLogger(__name__)

RENDERED_CROP = (6, 160)
"""Channels and size of the crops that ``RunnerContext.examples`` gives."""
CHECKED_PAIRS, CHECKED_HYPOTHESES = 2, 8
"""A refiner is checked on so many crops at once, a scorer on so many hypotheses: batches that are prepared anyway."""
MIN_ORDER = 0.8
"""Kendall's tau of a scorer against FP32 over CHECKED_HYPOTHESES, at least: one swap of neighbours costs 0.07."""


def make_runner(
    module: nn.Module,
    backend: str = "auto",
    context: RunnerContext | None = None,
    *,
    batches: Sequence[int] = (),
    fallback: bool = True,
) -> Runner:
    """A runner over ``module`` (eval mode): (N, C, R, R) x 2 -> tensor or tuple of tensors.

    batches: sizes to prepare now; others are prepared when first met. The outputs of a backend for ``context.examples`` are
    compared with FP32, and so is the order in which a scorer puts hypotheses. A backend that does not work here (missing library,
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
    """Refuse a backend whose results are not those of the module: overflow in half precision, a broken kernel, hypotheses in
    another order, ..."""
    if runner.name in ("eager", "reference"):
        return
    scorer = isinstance(module, ScorerNetwork)
    batch = runner.fixed_batch or (CHECKED_HYPOTHESES if scorer else CHECKED_PAIRS)
    runner.prepare(batch)
    orders = []
    for a, b in _examples(runner, batch):
        with torch.inference_mode():
            expected = as_tuple(module(a, b))
        for e, f in zip(expected, runner(a, b), strict=True):
            if lost := int((~f.isfinite()).sum()):
                raise BackendUnavailable(f"{lost} of {f.numel()} outputs are not finite")
            worst = ((e - f).abs().max() / (e.abs().max() + 1e-3)).item()
            if not worst < 0.1:
                raise BackendUnavailable(f"its outputs differ from FP32 eager by {worst:.1%} of their range")
            # Scores that differ by their last bits alone, as those of random weights, have no order.
            if scorer and e.numel() > 1 and float(e.max() - e.min()) > 1e-5 * float(e.abs().max()):
                orders.append(float(kendalltau(e.cpu().numpy(), f.cpu().numpy()).statistic))
    if orders and not sum(orders) / len(orders) >= MIN_ORDER:
        order = sum(orders) / len(orders)
        raise BackendUnavailable(
            f"it ranks hypotheses otherwise than FP32 eager (Kendall's tau {order:.2f}, at least {MIN_ORDER})"
        )


def _examples(runner: BaseRunner, batch: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of crops, each of one frame: rendered ones where the context has such of this size, else random numbers."""
    channels, size = runner.crop
    examples = runner.context.examples
    if examples is not None and runner.crop == RENDERED_CROP:
        rendered, observed = examples(runner.context.role)
        first = torch.arange(batch) % len(rendered)
        chosen = [first, len(rendered) - 1 - first]  # the first frame, and the last one
        return [(rendered[i].to(runner.device), observed[i].to(runner.device)) for i in chosen]
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.rand(batch, channels, size, size, generator=generator).to(runner.device) for _ in range(2))
    return [(a, b)]
