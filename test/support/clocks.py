"""A clock that only training steps move: what a training does then depends on no machine's speed."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class StepClock:
    """``time`` of a training module. seconds: of each step; other work takes none unless it moves ``now`` itself."""

    def __init__(self, patch: pytest.MonkeyPatch, module: ModuleType, trainer: type, step: str, seconds: float) -> None:
        self.now = 0.0
        taken = getattr(trainer, step)

        def timed(*arguments: Any) -> Any:
            self.now += seconds
            return taken(*arguments)

        patch.setattr(trainer, step, timed)
        patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
