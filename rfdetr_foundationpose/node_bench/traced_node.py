"""``pose_node``, with the times of every frame written to a file when it ends, and with what a variant takes away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..ros.node import PoseNode
from ..ros.worker import Pair

QUEUE = 10
"""So many frames may wait where the newest does not replace the one before."""
COLUMNS = ("stamp", "received", "taken", "converted", "processed", "published")
"""A frame's row holds these times, ns of the system clock: the camera's stamp; the later of its images in a callback; taken by the worker;
converted to arrays; poses known; poses published."""


class TracedNode(PoseNode):
    """trace: where rows of COLUMNS go. without: a name of VARIANTS, or "" for the node as it is."""

    trace: Path
    without = ""

    def _set_up(self, factory: Any) -> None:
        self._rows: list[list[int]] = []
        self._marks: dict[str, int] = {}
        super()._set_up(factory)
        if self.without == "keep-latest":
            self._latest.depth = QUEUE
        self._draw = self._telemetry._draw
        if self.without == "debug-off-path":  # the worker draws, and the thread whose work it is must not be quicker
            self._telemetry._draw = lambda: None  # type: ignore[method-assign]

    def _configure(self) -> Any:
        result = super()._configure()
        if self._pipeline is not None and self._inputs is not None and self._outputs is not None:
            self._inputs.assemble = self._marking("converted", self._inputs.assemble)  # type: ignore[method-assign]
            self._pipeline.process = self._marking("processed", self._pipeline.process)  # type: ignore[method-assign]
            self._outputs.publish = self._marking("published", self._outputs.publish)  # type: ignore[method-assign]
        return result

    def _marking(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self._marks[name] = time.time_ns()
            return result

        return marked

    def _warm_up(self, camera: Any) -> None:
        if self.without == "warm-up":
            self._warmed = (camera.width, camera.height)
        else:
            super()._warm_up(camera)

    def _handle(self, pair: Pair) -> None:
        taken = time.time_ns()
        received = taken - round((time.monotonic() - pair.arrival) * 1e9)
        self._marks.clear()
        super()._handle(pair)
        if self.without == "no-empty-cache" and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.without == "debug-off-path":
            self._draw()
        steps = [self._marks[name] for name in ("converted", "processed", "published") if name in self._marks]
        if len(steps) == 3:  # the frame in work when the node is stopped ends without having been published
            self._rows.append([pair.stamp_ns, received, taken, *steps])

    def destroy_node(self) -> None:
        if hasattr(self, "_rows"):
            stages = {name: vars(s) for name, s in self._latency().items()} if self._rows else {}
            memory = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
            tree = {"columns": COLUMNS, "rows": self._rows, "stages": stages, "gpu_memory_bytes": memory}
            self.trace.write_text(json.dumps(tree))
        super().destroy_node()
