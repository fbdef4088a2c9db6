"""The backend ``fp8``: ``cuda_graph``, and beside it a coarse runner in FP8 whose choice is refined and scored again exactly."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .base import EXAMPLES_OF_A_FRAME, BackendUnavailable, BaseRunner, Outputs, RunnerContext, Step
from .memory import within_memory_limit
from .network import RefinerNetwork, ScorerNetwork
from .outputs import FloatOutputs, ScoreEmbedder
from .start_check import example_crops
from .torch_runners import CHUNK, GraphRunner, disagreement

COARSE_CHUNK = 2 * CHUNK
"""FP8 sends twice as many pairs through at once, since its activations need half the memory."""
NEWEST_WITHOUT = (8, 9)
"""GPUs up to this compute capability lack the copy engine that the kernels use."""
TOLERANCE = 0.2
"""FP8 may err by this share of the range of the outputs; a broken kernel errs by more. On crops as the network sees them: the
better it is trained, the less it answers to random ones, and the less their range means."""


class Fp8Runner(GraphRunner):
    """As GraphRunner. ``coarse`` is a runner of less precision that is faster for many pairs."""

    name = "fp8"

    def __init__(self, module: nn.Module, context: RunnerContext) -> None:
        device = context.device
        if device.type == "cuda" and (capability := torch.cuda.get_device_capability(device)) <= NEWEST_WITHOUT:
            raise BackendUnavailable(f"FP8 needs compute capability 9.0 (Hopper) or newer, this GPU has {capability}")
        super().__init__(module, context)
        self.coarse = self._make_coarse()
        self.coarse_for = frozenset({Step.RESCORED})

    def _make_coarse(self) -> CoarseRunner:
        return CoarseRunner(self)


class CoarseRunner(GraphRunner):
    """The candidates of another runner and one in FP8, of which the fastest is taken for each batch size."""

    name = "fp8"

    def __init__(self, exact: GraphRunner) -> None:
        BaseRunner.__init__(self, exact.context)
        self.label = f"coarse {exact.label}"
        self.dtype, self.pool, self.plain, self.network = exact.dtype, exact.pool, exact.plain, exact.network
        self._candidates = {**exact._candidates, "fp8": self._reduced()}

    def _reduced(self) -> FloatOutputs:
        """Raises BackendUnavailable where FP8 does not work here."""
        network = self.network
        if network is None:
            raise BackendUnavailable(f"{self.label}: FP8 builds on fused convolutions, which do not work here")
        try:
            from .fp8 import Fp8Refiner, Fp8Scorer
        except ImportError as error:
            raise BackendUnavailable(f"FP8 needs Triton 3.4 or newer: {error}") from error
        example = self._example((2, 2), self.dtype)
        try:
            if isinstance(network, ScoreEmbedder):
                reduced: nn.Module = within_memory_limit(partial(Fp8Scorer, network.scorer, example), self.device)
            elif isinstance(network, RefinerNetwork):
                reduced = within_memory_limit(partial(Fp8Refiner, network, example), self.device)
            else:
                raise ValueError(f"{type(network).__name__} has no FP8 form")
        except ValueError as error:
            raise BackendUnavailable(f"{self.label}: {error}") from error
        candidate = FloatOutputs(reduced, self.dtype, COARSE_CHUNK)
        crops = example_crops(self, EXAMPLES_OF_A_FRAME)[0]
        a, b = (x.to(self.dtype, memory_format=torch.channels_last) for x in crops)
        reason = within_memory_limit(partial(disagreement, self.plain, candidate, (a, b), TOLERANCE), self.device)
        if reason:
            raise BackendUnavailable(f"{self.label}: in FP8 {reason}")
        return candidate


class _Scoring(GraphRunner):
    """Makes a ScoreRunner of a runner whose network is a ScoreEmbedder."""

    def embed(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """See ScoreRunner."""
        return super().__call__(rendered, observed)[0]

    def rank(self, embeddings: Tensor) -> Tensor:
        """See ScoreRunner."""
        embedder = self.plain.network
        assert isinstance(embedder, ScoreEmbedder)
        with torch.inference_mode():
            return embedder.scorer.rank(embeddings)

    def __call__(self, rendered: Tensor, observed: Tensor) -> Outputs:
        return (self.rank(self.embed(rendered, observed)),)


class Fp8ScoreRunner(_Scoring, Fp8Runner):
    """As Fp8Runner, over a ScoreEmbedder; it and ``coarse`` are ScoreRunners."""

    def _make_coarse(self) -> CoarseRunner:
        return _CoarseScoreRunner(self)


class _CoarseScoreRunner(_Scoring, CoarseRunner): ...


def fp8_runner(module: nn.Module, context: RunnerContext) -> Fp8Runner:
    """For a refiner or a scorer. Raises BackendUnavailable where FP8 does not work here."""
    if isinstance(module, ScorerNetwork):
        return Fp8ScoreRunner(ScoreEmbedder(module).eval(), context)
    return Fp8Runner(module, context)
