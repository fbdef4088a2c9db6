"""A network of twice the width that computes what a narrower one does (Chen, Goodfellow and Shlens, "Net2Net", ICLR 2016).

Every channel becomes two. What reads both shares its weight among them by random parts, so that the two do not learn the same
from there on. Tokens carry positions whose frequencies grow finer with the width: half of the wide network's are the narrow
one's, and its heads begin by reading those alone, so that only their norms see the others.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from ..pose.networks import RefineNet, ScoreNet

Network = TypeVar("Network", bound=RefineNet | ScoreNet)

LEAST_SHARE = 0.25
READS_TOKENS = (
    "head.0.self_attn.in_proj_weight",
    "head.0.linear1.weight",
    "head.1.weight",
    "att.in_proj_weight",
)
"""The input of these weights carries positions."""


def widened(network: Network, seed: int = 0) -> Network:
    """Of twice the width; the scorer's answers are the same, the refiner's nearly."""
    generator = torch.Generator().manual_seed(seed)
    wide: Network = type(network)(2 * network.width, network.crop_size)
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    made = {
        name: target if name == "pos_embed.pe" else _wide(name, state[name], target.shape, generator)
        for name, target in wide.state_dict().items()
    }
    wide.load_state_dict(made)
    wide.train(network.training)
    return wide


def _wide(name: str, value: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    wide = value
    if wide.dim() > 0 and shape[0] != wide.shape[0]:
        wide = wide[_source(shape[0])]
    if "in_proj" in name:
        # Dot products of queries and keys have twice as many terms, over a root of two.
        query_and_key = shape[0] * 2 // 3
        wide = wide.clone()
        wide[:query_and_key] *= 2**-0.25
    if wide.dim() > 1 and shape[1] != wide.shape[1]:
        source = _source(shape[1])
        first = torch.arange(shape[1]) % 4 < 2
        wide = wide[:, source]
        if name.endswith(READS_TOKENS):
            share = first.float().expand(len(wide), -1)
        else:
            low = torch.rand(len(wide), shape[1] // 4, 2, generator=generator) * (1 - 2 * LEAST_SHARE) + LEAST_SHARE
            share = torch.stack([low, 1 - low], 2).flatten(1)
        wide = wide * share.reshape(share.shape + (1,) * (wide.dim() - 2))
    return wide


def _source(count: int) -> Tensor:
    """The narrow channel of each of ``count`` wide ones: two by two, as sine and cosine of a position's frequency lie."""
    j = torch.arange(count)
    return 2 * (j // 4) + j % 2
