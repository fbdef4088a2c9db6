"""The pruning schedule of a registration: how many hypotheses are refined in each iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from ..config import FIRST, ConfigError, schedule_counts

AUTO_SCHEDULE = {"cuda": (1.0, 0.25, 0.13, 0.06, 0.03), "cpu": (0.25, 0.13, 0.06, 0.03, 0.03)}
"""The pruning schedule "auto" keeps these shares of the hypotheses, iteration by iteration, without a first pass."""
AFTER_FIRST_PASS = {"cuda": (0.24, 0.12, 0.06, 0.03), "cpu": (0.1, 0.05, 0.035, 0.035)}
"""And these after a first pass, which is an iteration of all of them (docs/accuracy.md)."""
SCORED_WHEN_PRUNING = 64
"""From this many hypotheses on down, pruning asks the scorer; above, only the agreement with the image."""
FEWEST_TURNED = 3
"""The best hypothesis is turned (``near_symmetries``) where there are more hypotheses than this to make room."""


@dataclass(frozen=True)
class Pruning:
    """kept: hypotheses refined in each iteration, never growing. first_pass: whether a refiner of small crops moves all hypotheses
    once before."""

    kept: tuple[int, ...]
    first_pass: bool = False

    def __str__(self) -> str:
        return ",".join([FIRST] * self.first_pass + [str(n) for n in self.kept])

    @property
    def flipping(self) -> int | None:
        """The iteration before which the best hypothesis is turned: the last that prunes and has another one after it."""
        kept = self.kept
        pruning = [i for i in range(1, len(kept) - 1) if FEWEST_TURNED < kept[i] < kept[i - 1]]
        return pruning[-1] if pruning else None

    @property
    def scored(self) -> list[int]:
        """How many hypotheses the scorer is asked about, each number once: before small sets are pruned, and at the end."""
        return sorted({self.kept[-1]} | {a for a, b in pairwise(self.kept) if b < a <= SCORED_WHEN_PRUNING})


def asks_for_first_pass(text: str, device: torch.device, official: bool = False) -> bool:
    """Whether pose.register_schedule has a first pass on a device, where there is a refiner for it.

    official: whether the weights are official ones. On a GPU "auto" leaves their first iteration to them: how our first pass
    serves them was not measured.
    """
    return text.startswith(FIRST) or (text == "auto" and not (official and device.type == "cuda"))


def pruning_schedule(
    text: str, hypotheses: int, iterations: int, device: torch.device, *, first_pass: bool = False
) -> Pruning:
    """What pose.register_schedule means for so many hypotheses and iterations. Raises ConfigError.

    "full": all in every iteration. "auto": a share of them that evaluation found to lose no accuracy on this kind of
    device, after a first pass where there is a refiner for it. Else counts, e.g. "252,64,16,8,8" or "first,64,16,8,8"; the last one
    serves the remaining iterations. first_pass: whether there is a refiner for it.
    """
    if text == "full":
        return Pruning((hypotheses,) * iterations)
    asked = asks_for_first_pass(text, device)
    if text == "auto":
        with_first = asked and first_pass and iterations > 1
        shares = (AFTER_FIRST_PASS if with_first else AUTO_SCHEDULE)[device.type]
        return _filled([max(4, round(share * hypotheses)) for share in shares], hypotheses, iterations, with_first)
    if asked and not first_pass:
        raise ConfigError(
            f"pose.register_schedule={text!r} begins with a first pass, for which there is no first_pass.safetensors beside the "
            "weights; `train first-pass` makes one, or take counts alone"
        )
    return _filled(schedule_counts(text), hypotheses, iterations, asked)


def _filled(counts: Sequence[int], hypotheses: int, iterations: int, first_pass: bool) -> Pruning:
    """The first pass is one of the iterations, of which at least one is left after it."""
    left = max(iterations - first_pass, 1)
    counts = [*counts, *[counts[-1]] * (left - len(counts))]
    return Pruning(tuple(min(c, hypotheses) for c in counts[:left]), first_pass)
