"""The backend ``fp8``: ``cuda_graph``, and beside it the same in FP8 for what exact runs decide in the end."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .base import BackendUnavailable, BaseRunner, FloatOutputs, Log, Outputs
from .graph import GraphPool
from .memory import within_memory_limit
from .torch_runners import CHUNK, GraphRunner, disagreement

COARSE_CHUNK = 2 * CHUNK
"""Pairs at once: activations of FP8 need half the memory."""
NEWEST_WITHOUT = (8, 9)
"""Compute capability: GPUs up to this one lack the copy engine that the kernels use."""
TOLERANCE = 0.2
"""Of the range of the outputs for random crops, by which FP8 may err: what is broken errs by more."""


class Fp8Runner(GraphRunner):
    """As GraphRunner. ``coarse`` is a runner of less precision that is faster for many pairs."""

    name = "fp8"

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        crop: tuple[int, int],
        label: str,
        log: Log,
        pool: GraphPool | None = None,
    ) -> None:
        if device.type == "cuda" and (capability := torch.cuda.get_device_capability(device)) <= NEWEST_WITHOUT:
            raise BackendUnavailable(f"FP8 needs compute capability 9.0 (Hopper) or newer, this GPU has {capability}")
        super().__init__(module, device, crop, label, log, pool)
        self.coarse: BaseRunner = self._make_coarse()

    def _make_coarse(self) -> BaseRunner:
        return CoarseRunner(self)


class CoarseRunner(GraphRunner):
    """The bodies of another runner and one in FP8, of which the fastest is taken for each batch size."""

    name = "fp8"

    def __init__(self, exact: GraphRunner) -> None:
        BaseRunner.__init__(self, exact.device, exact.crop, f"coarse {exact.label}", exact.log)
        self.dtype, self.pool, self.body, self.network = exact.dtype, exact.pool, exact.body, exact.network
        self._bodies = {**exact._bodies, "fp8": self._reduced()}

    def _reduced(self) -> FloatOutputs:
        """Raises BackendUnavailable where FP8 does not work here."""
        if self.network is None:
            raise BackendUnavailable(f"{self.label}: FP8 builds on fused convolutions, which do not work here")
        try:
            from .fp8 import Fp8Refiner, Fp8Scorer
        except ImportError as error:
            raise BackendUnavailable(f"FP8 needs Triton 3.4 or newer: {error}") from error
        example = self._example((2, 2), self.dtype)
        try:
            network = self.network
            kind: type[Fp8Refiner | Fp8Scorer] = Fp8Refiner
            if isinstance(network, ScoreVectors):
                kind, network = Fp8Scorer, network.scorer
            reduced = within_memory_limit(partial(kind, network, example), self.device)
        except ValueError as error:
            raise BackendUnavailable(f"{self.label}: {error}") from error
        body = FloatOutputs(reduced, self.dtype, COARSE_CHUNK)
        reason = within_memory_limit(partial(disagreement, self.body, body, example, TOLERANCE), self.device)
        if reason:
            raise BackendUnavailable(f"{self.label}: in FP8 {reason}")
        return body


class ScoreVectors(nn.Module):
    """A scorer up to one vector a hypothesis: what it says of each by itself, before ``rank`` compares them."""

    def __init__(self, scorer: nn.Module) -> None:
        super().__init__()
        self.scorer = scorer

    @property
    def ranking(self) -> Any:
        return self.scorer.ranking

    def forward(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """(N, C)."""
        return self.scorer.encode(rendered, observed)  # type: ignore[operator, no-any-return]


class _Ranking(GraphRunner):
    """A runner over ``ScoreVectors`` as one over the scorer; in two steps, so that some vectors can be replaced in between."""

    def vectors(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """(N, C) float32, see ScoreVectors; the call is a runner's."""
        return super().__call__(rendered, observed)[0]

    def rank(self, vectors: Tensor) -> Tensor:
        """Logits (N,) of hypotheses (N, C) beside each other."""
        network: Any = self.body.network
        with torch.inference_mode():
            return network.scorer.rank(vectors)  # type: ignore[no-any-return]

    def __call__(self, rendered: Tensor, observed: Tensor) -> Outputs:
        return (self.rank(self.vectors(rendered, observed)),)


class Fp8ScoreRunner(_Ranking, Fp8Runner):
    """As Fp8Runner, over ScoreVectors; it and ``coarse`` offer ``vectors`` and ``rank``."""

    def _make_coarse(self) -> BaseRunner:
        return _CoarseScoreRunner(self)


class _CoarseScoreRunner(_Ranking, CoarseRunner): ...


def fp8_runner(
    module: nn.Module, device: torch.device, crop: tuple[int, int], label: str, log: Log, pool: GraphPool | None = None
) -> Fp8Runner:
    """For a refiner or a scorer. Raises BackendUnavailable where FP8 does not work here."""
    if hasattr(module, "rank"):
        return Fp8ScoreRunner(ScoreVectors(module).eval(), device, crop, label, log, pool)
    return Fp8Runner(module, device, crop, label, log, pool)
