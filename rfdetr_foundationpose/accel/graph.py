"""Any fixed-shape device program as one CUDA graph launch; the same program run eagerly where there is no CUDA."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from threading import RLock, local
from typing import Any

import torch

from ..errors import one_line
from .memory import within_memory_limit

logger = logging.getLogger(__name__)

_ONE_CAPTURE = RLock()  # torch allows one capture at a time in a process; registration may prepare in its own thread


@dataclass
class GraphCounters:
    """What happened since construction. A recapture is a capture after the first: diagnostics publish it."""

    captures: int = 0
    recaptures: int = 0
    replays: int = 0
    eager_runs: int = 0
    last_capture_ms: float = 0.0


_TOTALS = GraphCounters()
_THREAD = local()


def inlining(device: torch.device) -> bool:
    """Whether this thread is preparing a program, or capturing: what would replay a graph of its own runs plainly then.

    The warm-up must take the way that the capture takes, since libraries choose their kernels per thread on first use.
    """
    if getattr(_THREAD, "preparing", False):
        return True
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def totals() -> GraphCounters:
    """Captures of all programs of this process so far: what grows after warm-up was a pause in somebody's frame."""
    return replace(_TOTALS)


class GraphPool:
    """Programs that never run at the same time: captured on one stream, they share workspaces, the memory of
    intermediate results and input buffers. So one program's outputs hold until the next program of its pool runs."""

    def __init__(self, name: str, device: torch.device | str) -> None:
        self.name = name
        self.inputs: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])  # rendered, observed
        self._abandoned: list[torch.cuda.CUDAGraph] = []
        self.pool = torch.cuda.graph_pool_handle() if torch.device(device).type == "cuda" else None

    def abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """Go on in a new pool: a failed capture leaves its pool recording, and the allocator pointing at the graph."""
        self._abandoned.append(graph)
        self.pool = torch.cuda.graph_pool_handle()


_CAPTURE_STREAMS: dict[tuple[torch.device, str], torch.cuda.Stream] = {}


def _capture_stream(device: torch.device, pool: str) -> torch.cuda.Stream:
    """One stream a pool, kept: torch hands streams out of a pool of 32 in turn, so a new one each time could be one that
    another thread works on, and graphs captured on one stream share a cuBLAS workspace."""
    key = (device, pool)
    if key not in _CAPTURE_STREAMS:
        _CAPTURE_STREAMS[key] = torch.cuda.Stream(device)
    return _CAPTURE_STREAMS[key]


class GraphedProgram:
    """``work`` captured once per key and replayed. Programs that may run at the same time need pools of their own;
    without one, a program gets its own.

    ``work`` takes no arguments: it reads and writes tensors that outlive it, enqueues on torch's current stream
    (Warp launches included, see ``warp_setup.launch``), allocates only through torch, and waits for
    nothing. It runs ``warmup`` times before capture, so it must not depend on how often it ran. What it returns is
    kept: ``outputs`` are static tensors, overwritten by every replay.

    On the CPU, with ``capture=False`` or where capture fails, calls run ``work`` itself; ``degraded`` says why.
    """

    def __init__(
        self,
        work: Callable[[], Any],
        device: torch.device | str,
        *,
        name: str = "program",
        capture: bool = True,
        warmup: int = 3,
        pool: GraphPool | None = None,
    ) -> None:
        self.work = work
        self.device = torch.device(device)
        self.name = name
        self.counters = GraphCounters()
        self.outputs: Any = None
        self.degraded = ""
        self._warmup = warmup
        self._pool = pool or GraphPool(name, self.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._key: Hashable = None
        self._prepared = False
        self._capture = capture and self.device.type == "cuda"
        if not capture:
            self.degraded = f"{name}: a part of it cannot be captured in a CUDA graph"
        elif not self._capture:
            self.degraded = f"{name}: CUDA graphs need a CUDA device, this is {self.device.type}"

    @property
    def captured(self) -> bool:
        """Whether calls replay a graph."""
        return self._graph is not None

    @property
    def will_capture(self) -> bool:
        """Whether calls replay a graph, or will when prepared: no capture is known to be impossible."""
        return self._capture

    def prepare(self, key: Hashable = None) -> None:
        """Warm up and capture for ``key`` (camera, mesh set, settings: whatever is baked into the program)."""
        begin = time.perf_counter()
        again = self._prepared
        self._graph, self._key, self._prepared = None, key, False
        outer = getattr(_THREAD, "preparing", False)
        _THREAD.preparing = True
        try:
            if self._capture:
                with _ONE_CAPTURE:
                    self._warm_up_and_capture()
            else:
                with torch.inference_mode():
                    self.outputs = self.work()
        finally:
            _THREAD.preparing = outer
        self._prepared = True
        for counters in (self.counters, _TOTALS):
            counters.captures += 1
            counters.recaptures += again
            counters.last_capture_ms = (time.perf_counter() - begin) * 1e3
        if again:
            ms = self.counters.last_capture_ms
            logger.info("%s: prepared again in %.0f ms (key %r)", self.name, ms, key)

    def __call__(self, key: Hashable = None) -> Any:
        """Enqueue one run; returns ``outputs`` without waiting for them. A new key prepares first, and is counted."""
        if not self._prepared or key != self._key:
            eager = not self._capture
            self.prepare(key)
            if eager:  # that was a run
                self.counters.eager_runs += 1
                return self.outputs
        return self.replay()

    def replay(self) -> Any:
        """Enqueue one run of the prepared program."""
        if self._graph is not None:
            self._graph.replay()
            self.counters.replays += 1
        else:
            with torch.inference_mode():
                self.outputs = self.work()
            self.counters.eager_runs += 1
        return self.outputs

    def _warm_up(self) -> None:
        for _ in range(self._warmup):
            self.outputs = self.work()

    def _warm_up_and_capture(self) -> None:
        before = torch.cuda.current_stream(self.device)
        side = _capture_stream(self.device, self._pool.name)
        side.wait_stream(before)
        with torch.cuda.device(self.device), torch.inference_mode():
            with torch.cuda.stream(side):
                within_memory_limit(self._warm_up, self.device)
            before.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            try:
                # thread_local: the debug-image and upload threads may go on calling CUDA during a capture
                with torch.cuda.graph(graph, pool=self._pool.pool, stream=side, capture_error_mode="thread_local"):
                    self.outputs = self.work()
                self._graph = graph
            except RuntimeError as error:
                torch.cuda.set_stream(before)  # a failed capture leaves its own stream current
                reason = one_line(error)
                self.degraded = f"{self.name}: CUDA graph capture failed, runs eagerly: {reason}"
                self._capture = False
                self._pool.abandon(graph)
                logger.warning("%s", self.degraded)
            else:
                torch.cuda.empty_cache()  # what the warm-up used is not needed again; torch would keep it for ever
