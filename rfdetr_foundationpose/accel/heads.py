"""Runs the heads of a network at the same time: for few pairs, the small kernels of one head leave most of a GPU idle."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Outputs
from .network import RefinerNetwork


class SideBySideHeads(nn.Module):
    """A refiner on CUDA whose heads after the first run on a stream of their own each, a branch each of a captured graph."""

    def __init__(self, network: RefinerNetwork, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self._sides = [torch.cuda.Stream(device) for _ in range(len(network.heads) - 1)]

    def forward(self, rendered: Tensor, observed: Tensor) -> Outputs:
        tokens = self.network.tokens(rendered, observed)
        main = torch.cuda.current_stream(tokens.device)
        first, *others = self.network.heads
        # A side stream reuses only memory of its own, and only after it has waited for the reader of the last results.
        found = []
        for stream, head in zip(self._sides, others, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                found.append(head(tokens))
        found.insert(0, first(tokens))
        for stream in self._sides:
            main.wait_stream(stream)
        return tuple(found)
