"""The runners that an estimator works with, and what it must know of their weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..accel.base import Runner


@dataclass(frozen=True)
class Networks:
    """Runners of one role set each; tracking and registration run at the same time, so they share none.

    weights: what diagnostics and results say of the weights. official_crops: the roles, of "refiner" and "scorer", whose observed
    crops are sampled as in the official code, as official weights expect. first_pass: refiner of small crops, which moves all
    hypotheses of a registration once; None where the weights have none.
    """

    track_refiner: Runner
    register_refiner: Runner
    scorer: Runner
    weights: str = ""
    official_crops: Collection[str] = ()
    first_pass: Runner | None = None

    @property
    def runners(self) -> tuple[Runner, ...]:
        """All of them."""
        every = (self.track_refiner, self.register_refiner, self.scorer, self.first_pass)
        return tuple(runner for runner in every if runner is not None)

    @property
    def library(self) -> str:
        """What runs the networks besides torch, and why; empty where nothing does."""
        return next((r.library for r in self.runners if r.library), "")

    @property
    def degraded(self) -> list[str]:
        """Why runners are not what was asked for; empty when all are."""
        return list(dict.fromkeys(r.degraded for r in self.runners if r.degraded))
