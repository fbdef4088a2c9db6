"""``pose_node``, with the times of every frame written to a file when it ends, and with what a variant takes away."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..config import Config
from ..ros.node import PoseNode
from ..ros.pipeline import PipelineFactory, PosePipeline
from ..ros.worker import EarlyImage, Pair
from .parts import PROCESSING

QUEUE = 10
"""So many frames may wait where the newest does not replace the one before."""
COLUMNS = ("stamp", "received", "taken", "converted", "processed", "published")
"""A frame's row holds these times, ns of the system clock: the camera's stamp; the later of its images in a callback; taken by the worker;
converted to arrays; poses known; poses published. A row of ``early``: the stamp of an early image; the worker took it; it was uploaded."""


def without_warm_up(factory: PipelineFactory) -> PipelineFactory:
    def make(config: Config) -> PosePipeline:
        pipeline: Any = factory(config)
        pipeline.warm_up = lambda _camera: None
        return pipeline

    return make


class TracedNode(PoseNode):
    """trace: where rows of COLUMNS go. without: a name of VARIANTS, or "" for the node as it is."""

    trace: Path
    without = ""

    def _set_up(self, factory: PipelineFactory) -> None:
        self._rows: list[list[int]] = []
        self._marks: dict[str, int] = {}
        self._host: list[list[int]] = []
        self._early: list[list[int]] = []
        self._spent: Counter[str] = Counter()
        self._worker_thread = 0
        super()._set_up(without_warm_up(factory) if self.without == "warm-up" else factory)
        if self.without == "keep-latest":
            self._latest.depth = QUEUE
        if torch.cuda.is_available():  # what the worker waits for the device with
            torch.cuda.Stream.synchronize = self._timing("gpu", torch.cuda.Stream.synchronize)  # type: ignore[method-assign]
        self._draw = self._telemetry._draw
        if self.without == "debug-off-path":  # the worker draws, and the thread whose work it is must not be quicker
            self._telemetry._draw = lambda: None  # type: ignore[method-assign]

    def _configure(self, config: Config) -> Any:
        result = super()._configure(config)
        if (
            self._pipeline is not None
            and self._inputs is not None
            and self._outputs is not None
            and self._work is not None
        ):
            self._work.handle = self._tracing(self._work.handle)  # type: ignore[method-assign]
            self._work.upload_early = self._recording_early(self._work.upload_early)  # type: ignore[method-assign]
            self._inputs.assemble = self._marking("converted", self._inputs.assemble)  # type: ignore[method-assign]
            pipeline: Any = self._pipeline
            intake = pipeline._intake
            intake.upload = self._timing("upload", intake.upload)
            intake.wait = self._timing("upload", intake.wait)
            intake.prepare = self._timing("depth", intake.prepare)
            pipeline._estimator.track = self._timing("launch", pipeline._estimator.track)
            pipeline._collect = self._timing("detector", pipeline._collect)
            pipeline.process = self._marking("processed", self._timing("other", pipeline.process))
            self._outputs.publish = self._marking("published", self._outputs.publish)  # type: ignore[method-assign]
        return result

    def _marking(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self._marks[name] = time.time_ns()
            return result

        return marked

    def _timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose time counts as the part ``name``, less that of parts inside of it."""

        def timed(*arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != self._worker_thread:
                return function(*arguments, **options)
            begin, before = time.perf_counter_ns(), self._spent.total()
            try:
                return function(*arguments, **options)
            finally:
                self._spent[name] += time.perf_counter_ns() - begin - (self._spent.total() - before)

        return timed

    def _recording_early(self, upload: Callable[[EarlyImage], None]) -> Callable[..., None]:
        def recorded(image: EarlyImage) -> None:
            if self.without == "early-upload":
                return
            begin = time.time_ns()
            upload(image)
            self._early.append([image.stamp_ns, begin, time.time_ns()])

        return recorded

    def _tracing(self, handle: Callable[[Pair], None]) -> Callable[..., None]:
        def traced(pair: Pair) -> None:
            taken = time.time_ns()
            received = taken - round((time.monotonic() - pair.arrival) * 1e9)
            self._marks.clear()
            self._spent.clear()
            self._worker_thread = threading.get_ident()
            handle(pair)
            self._end_frame(pair, received, taken)

        return traced

    def _end_frame(self, pair: Pair, received: int, taken: int) -> None:
        if self.without == "no-empty-cache" and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.without == "debug-off-path":
            self._draw()
        steps = [self._marks[name] for name in ("converted", "processed", "published") if name in self._marks]
        if len(steps) == 3:  # the frame in work when the node is stopped ends without having been published
            self._rows.append([pair.stamp_ns, received, taken, *steps])
            self._host.append([pair.stamp_ns, *(self._spent[name] for name in PROCESSING)])

    def destroy_node(self) -> None:
        if hasattr(self, "_rows"):
            stages = {name: vars(s) for name, s in self._latency().items()} if self._rows else {}
            memory = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
            tree = {
                "columns": COLUMNS,
                "rows": self._rows,
                "host_columns": ("stamp", *PROCESSING),
                "host": self._host,
                "early": self._early,
                "stages": stages,
                "gpu_memory_bytes": memory,
            }
            self.trace.write_text(json.dumps(tree))
        super().destroy_node()
