"""Makes a runner of a network: at the backend that is asked for, or at the next one of the fallback order that works here, which
is said (see ..backends)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from torch import nn

from ..backends import POSE
from ..errors import one_line
from .base import BackendUnavailable, BaseRunner, Runner, RunnerContext
from .memory import within_memory_limit
from .start_check import check_runner
from .verdict import Verdict

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

    batches: sizes to prepare now; others are prepared when first met. The outputs of a backend for ``context.examples`` are
    compared with FP32, and so is the order in which a scorer puts hypotheses (start_check); on a CPU this is skipped where an
    earlier start did it and nothing has changed since (verdict). A backend that does not work here (missing library,
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
            verdict = Verdict.of(runner, module)
            if verdict is None or not verdict.known():
                within_memory_limit(partial(check_runner, runner, module), device)
                if verdict is not None:
                    verdict.keep()
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
