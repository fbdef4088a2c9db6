"""A network in reduced precision behind float32 outputs; what compares hypotheses stays in FP32."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .base import Outputs, as_tuple
from .network import ScorerNetwork


class ScoreEmbedder(nn.Module):
    """The first step of a scorer as a network of its own: one embedding a hypothesis, before ``rank`` compares them."""

    def __init__(self, scorer: ScorerNetwork) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """(N, C)."""
        return self.scorer.encode(rendered, observed)


class FloatOutputs(nn.Module):
    """The network in one dtype and channels-last layout behind float32 outputs; conversions belong to the program.

    chunk: batches much larger go through the network in equal parts of at most this many pairs, so that activations need
    less memory. A scorer, whose outputs depend on the whole batch, embeds in parts and ranks at once. Its ``ranking`` stays
    in FP32: what it tells apart is small beside what all hypotheses share, and its attention can leave FP16's range.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, chunk: int | None = None) -> None:
        super().__init__()
        scorer = network.scorer if isinstance(network, ScoreEmbedder) else network
        ranking = scorer.ranking if isinstance(scorer, ScorerNetwork) else ()
        parameters = [p for module in ranking for p in module.parameters()]
        exact = [p.data for p in parameters]
        self.network = network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for parameter, values in zip(parameters, exact, strict=True):
            parameter.data = values
        self.dtype = dtype
        self.chunk = chunk

    def forward(self, rendered: Tensor, observed: Tensor) -> Outputs:
        a = rendered.to(self.dtype, memory_format=torch.channels_last)
        b = observed.to(self.dtype, memory_format=torch.channels_last)
        return tuple(o.float() for o in as_tuple(self._run(a, b)))

    def _run(self, a: Tensor, b: Tensor) -> Tensor | Outputs:
        n = a.shape[0]
        scorer = self.network if isinstance(self.network, ScorerNetwork) else None
        few = self.chunk is None or n <= 1.5 * self.chunk
        if few and scorer is None:
            return self.network(a, b)  # type: ignore[no-any-return]
        parts = 1 if few else -(-n // self.chunk)  # type: ignore[operator]
        bounds = [n * i // parts for i in range(parts + 1)]
        slices = [slice(low, high) for low, high in pairwise(bounds)]
        each = self.network if scorer is None else scorer.encode
        found = [as_tuple(each(a[s], b if b.shape[0] == 1 else b[s])) for s in slices]
        joined = tuple(torch.cat(part) for part in zip(*found, strict=True))
        return joined if scorer is None else scorer.rank(joined[0].float())
