"""Comparison of a runner with its network in FP32, on rendered crops of shipped objects, before it is used."""

from __future__ import annotations

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from .base import EXAMPLES_OF_A_FRAME, BackendUnavailable, BaseRunner, Runner, as_tuple
from .network import ScorerNetwork

RENDERED_CROPS = {(6, 160), (6, 80)}
"""Channels and sizes of the crops that ``RunnerContext.examples`` gives."""
CHECKED_PAIRS, CHECKED_HYPOTHESES = 2, 8
"""Batch sizes on which a refiner and a scorer are checked."""
MIN_ORDER = 0.8
"""Smallest accepted Kendall's tau between a scorer and FP32 over CHECKED_HYPOTHESES; one swap of neighbours costs 0.07."""
MAX_ERROR = 0.1
"""Largest accepted difference of an output to FP32, as a share of its range."""
TELLS_APART = {"refiner": 1e-2, "scorer": 1e-5}
"""An error is measured by the spread of the outputs over hypotheses only where that spread is a larger share of their size than
this; with random weights it is not."""


def sees_rendered_crops(runner: BaseRunner) -> bool:
    """Whether a runner is checked on rendered crops, else on random numbers."""
    return runner.context.examples is not None and runner.crop in RENDERED_CROPS


def check_runner(runner: BaseRunner, module: nn.Module) -> None:
    """Raises BackendUnavailable where the results differ from those of the module: overflow in half precision, a broken kernel,
    hypotheses in another order, a coarse runner whose error exceeds ``coarse_error``."""
    if runner.name in ("eager", "reference"):
        return
    scorer = isinstance(module, ScorerNetwork)
    batch = runner.fixed_batch or (CHECKED_HYPOTHESES if scorer else CHECKED_PAIRS)
    runner.prepare(batch)
    orders = []
    for a, b in example_crops(runner, batch):
        with torch.inference_mode():
            expected = as_tuple(module(a, b))
        for e, f in zip(expected, runner(a, b), strict=True):
            _same_range(e, f)
            # Scores that differ by their last bits alone, as those of random weights, have no order.
            if scorer and e.numel() > 1 and float(e.max() - e.min()) > TELLS_APART["scorer"] * float(e.abs().max()):
                orders.append(float(kendalltau(e.cpu().numpy(), f.cpu().numpy()).statistic))
    if orders and not sum(orders) / len(orders) >= MIN_ORDER:
        order = sum(orders) / len(orders)
        raise BackendUnavailable(
            f"it ranks hypotheses otherwise than FP32 eager (Kendall's tau {order:.2f}, at least {MIN_ORDER})"
        )
    if runner.coarse is not None and runner.coarse_error is not None:
        _check_coarse(runner, runner.coarse, runner.coarse_error, scorer)


def _check_coarse(runner: BaseRunner, coarse: Runner, tolerance: float, scorer: bool) -> None:
    """Compare the coarse runner with the exact one, on hypotheses of one frame."""
    a, b = example_crops(runner, EXAMPLES_OF_A_FRAME)[0]
    for exact, found in zip([o.clone() for o in runner(a, b)], coarse(a, b), strict=True):
        error = spread_error(exact, found, "scorer" if scorer else "refiner")
        if error is None:
            _same_range(exact, found, "its coarse ")
        elif not error < tolerance:
            raise BackendUnavailable(
                f"its coarse outputs differ from the exact ones by {error:.0%} of their spread, at most {tolerance:.0%}"
            )


def spread_error(exact: Tensor, found: Tensor, role: str) -> float | None:
    """Error of outputs (N, ...) for hypotheses of one frame, as a share of their spread over the hypotheses (root mean squares);
    None where that spread is too small to measure by."""
    difference = found - exact
    if role == "scorer":  # what is added to all scores changes no order
        difference = difference - difference.mean()
    spread = (exact - exact.mean(0)).square().mean().sqrt().item()
    if not spread > TELLS_APART[role] * float(exact.abs().max()):
        return None
    return difference.square().mean().sqrt().item() / spread


def _same_range(expected: Tensor, found: Tensor, whose: str = "its ") -> None:
    if lost := int((~found.isfinite()).sum()):
        raise BackendUnavailable(f"{lost} of {found.numel()} outputs are not finite")
    worst = ((expected - found).abs().max() / (expected.abs().max() + 1e-3)).item()
    if not worst < MAX_ERROR:
        raise BackendUnavailable(f"{whose}outputs differ from FP32 eager by {worst:.1%} of their range")


def example_crops(runner: BaseRunner, batch: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of crops, each of one frame: rendered ones where the context has such of this size, else random numbers."""
    channels, size = runner.crop
    examples = runner.context.examples
    if examples is not None and sees_rendered_crops(runner):
        rendered, observed = examples(runner.context.role)
        first = torch.arange(batch) % len(rendered)
        chosen = [first, len(rendered) - 1 - first]  # the first frame, and the last one
        return [(rendered[i].to(runner.device), observed[i].to(runner.device)) for i in chosen]
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.rand(batch, channels, size, size, generator=generator).to(runner.device) for _ in range(2))
    return [(a, b)]
