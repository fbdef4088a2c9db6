"""A runner that answers as it is told, in the place of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rfdetr_foundationpose.accel.base import Step

Answer = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class FakeRunner:
    """``answer``: from rendered and observed crops to outputs."""

    name, degraded, capturable, dtype = "eager", "", False, torch.float32
    library = ""
    coarse = pool = None
    coarse_for: frozenset[Step] = frozenset()

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def prepare(self, batch: int, observed: int | None = None) -> None:
        """Nothing to prepare."""

    def inputs(self, rendered: int, observed: int) -> None:
        return None

    def __call__(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        return self._answer(rendered, observed)


def stays() -> FakeRunner:
    """A refiner that is content with any pose."""
    return FakeRunner(lambda rendered, _: (torch.zeros(len(rendered), 3), torch.zeros(len(rendered), 3)))
