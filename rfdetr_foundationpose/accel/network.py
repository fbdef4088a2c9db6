"""Base classes of the networks that accel runs: refiner and scorer over pairs of crops, divided into the parts that other modules
replace by faster ones of the same arithmetic (see fold.py and encoder_layer.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class JoinCrops(nn.Module):
    """Rendered and observed crops, (N, C, R, R) each -> 2 N images, the input of the encoder that sees single crops."""

    def forward(self, rendered: Tensor, observed: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return torch.cat([rendered, observed])


class JoinFeatures(nn.Module):
    """Features (N, C, H, W) and (N or 1, C, H, W) -> side by side, (N, 2 C, H, W)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        n = a.shape[0]
        if b.shape[0] != n:
            # Copied first, since joining what is merely expanded takes a slow kernel.
            b = b.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return torch.cat([a, b], dim=1)


class TokenMeanLayer(nn.TransformerEncoderLayer):
    """A transformer layer of which the mean over its tokens is wanted."""

    def mean(self, tokens: Tensor) -> Tensor:
        """(N, L, C) -> (N, C)."""
        return self(tokens).mean(dim=1)  # type: ignore[no-any-return]


class PositionEmbedding(nn.Module):
    """Positions ``pe`` (1, L, C), added to tokens (N, L, C)."""

    pe: Tensor

    def __init__(self, pe: Tensor) -> None:
        super().__init__()
        self.register_buffer("pe", pe)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe.to(x.dtype)


class PairNetwork(nn.Module):
    """Two encoders over crop pairs, whose features become tokens with their positions."""

    pos_embed: PositionEmbedding

    def __init__(self) -> None:
        super().__init__()
        self.join_crops = JoinCrops()
        self.join_features = JoinFeatures()

    @property
    def encoders(self) -> tuple[nn.Module, nn.Module]:
        """The encoder of single crops, and that of the joined features of a pair."""
        raise NotImplementedError

    def tokens(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """(N, L, C) tokens with their positions. One observed crop that serves all hypotheses is encoded once."""
        single, pair = self.encoders
        n = rendered.shape[0]
        if observed.shape[0] != n:
            a, b = single(rendered), single(observed)
        else:
            both = single(self.join_crops(rendered, observed))
            a, b = both[:n], both[n:]
        features = pair(self.join_features(a, b))
        return self.pos_embed(features.flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


class RefinerNetwork(PairNetwork):
    """A network whose heads turn tokens into outputs (N, 3); each head is a TokenMeanLayer and a linear layer."""

    @property
    def heads(self) -> Sequence[nn.Sequential]:
        raise NotImplementedError


class ScorerNetwork(PairNetwork):
    """A network in two steps: one embedding a hypothesis, then their comparison. att: the attention over tokens."""

    att: nn.Module

    @property
    def ranking(self) -> Sequence[nn.Module]:
        """The modules that ``rank`` calls: they stay in FP32."""
        raise NotImplementedError

    def encode(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """One embedding a hypothesis, (N, C)."""
        raise NotImplementedError

    def rank(self, embeddings: Tensor) -> Tensor:
        """Logits (..., L) of groups of embeddings (..., L, C)."""
        raise NotImplementedError
