"""Refiner and scorer with their large products in FP8. Less precise ones, they only choose hypotheses; the exact networks refine
and score the chosen ones again.

Weights are scaled per output channel, activations by what random crops give, with HEADROOM for those of real crops. Values that
are larger, infinite or NaN become the largest value or zero, so that an overflow shows in the exact networks alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .attention import PlainAttention
from .encoder_layer import PostNormLayer
from .fold import ConvReLU, copy_sharing_weights, set_submodule
from .fp8_kernels import FP8, LARGEST, FlatImages, Fp8Weights, can_be_flat, convolve, embed, flatten, linear
from .network import PairNetwork, RefinerNetwork, ScorerNetwork

HEADROOM = 16.0
"""Scales leave room for activations so many times as large as the largest of random crops; real crops give up to 6 times."""


class Fp8Conv(nn.Module):
    """A ``ConvReLU`` in FP8 over flat images (see fp8_kernels.py), over split ones where its stride is 2.

    Returns flat images, or split ones where ``split``, or, where ``out_scale`` is None, float16 images with an empty row and
    column. ``forward(out=)``: where the values of flat or split images go, (rows, channels); a new tensor by default.
    """

    def __init__(self, conv: ConvReLU, out_scale: float | None, split: bool = False) -> None:
        super().__init__()
        # No buffers: they would be cast with the rest of the network.
        self.weights = _stored(conv.weight.detach().float().permute(2, 3, 0, 1).flatten(0, 1), conv.bias)
        self.channels = len(conv.bias)
        self.out_scale = out_scale
        self.split, self.strided = split, conv.stride == [2, 2]

    @staticmethod
    def fits(conv: nn.Module) -> bool:
        """Whether this class can stand for ``conv``."""
        return (
            isinstance(conv, ConvReLU)
            and tuple(conv.weight.shape[2:]) == (3, 3)
            and conv.stride in ([1, 1], [2, 2])
            and (conv.padding, conv.dilation, conv.groups) == ([1, 1], [1, 1], 1)
            and all(can_be_flat(channels) for channels in conv.weight.shape[:2])
        )

    def forward(
        self, x: FlatImages, residual: FlatImages | None = None, out: Tensor | None = None
    ) -> FlatImages | Tensor:
        how = {"split": self.split, "strided": self.strided}
        return convolve(x, self.weights, residual, self.out_scale, out, **how)


class Fp8Projection:
    """The first projections of several attentions over the same tokens, as one product."""

    def __init__(self, attentions: Sequence[PlainAttention], scale: float) -> None:
        weight = torch.cat([a.in_proj_weight.detach().float() for a in attentions])
        self.weights = _stored(weight[None], torch.cat([a.in_proj_bias for a in attentions]))
        self.scale = scale
        self.parts = len(attentions)

    def __call__(self, tokens: Tensor, n: int) -> tuple[Tensor, ...]:
        """tokens: (N * L, C) float8, ``scale`` times what they stand for -> (N, L, 3 C) float16 for each attention."""
        found = linear(tokens, self.scale, self.weights)
        return found.view(n, -1, found.shape[1]).chunk(self.parts, dim=2)


class IntoFlat(nn.Module):
    """A ``ConvReLU`` in FP16 whose output becomes the flat FP8 images of the first ``Fp8Conv``."""

    def __init__(self, conv: ConvReLU, scale: float) -> None:
        super().__init__()
        self.conv = conv
        self.scale = scale

    def forward(self, x: Tensor) -> FlatImages:
        return flatten(self.conv(x), self.scale)


class Fp8Tokens(nn.Module):
    """What a fused network makes of pairs of crops before its attention, all but the first two convolutions in FP8: tokens
    (N, L, C) float16, and their projections for ``attentions``, (N, L, 3 C) float16 each.

    network: a copy, which is changed. Raises ValueError for one that is not fused.
    """

    def __init__(
        self, network: PairNetwork, attentions: Sequence[PlainAttention], example: tuple[Tensor, Tensor]
    ) -> None:
        super().__init__()
        single, pair = network.encoders
        single, pair = _fused(single), _fused(pair)
        largest = _largest_outputs(network, [*_layers(single).values(), *_layers(pair).values()], example)
        token_scale = _scale(largest[_result(pair)] + 1)  # the embedding adds a sine
        _into_fp8(single, largest, flat_input=False, flat_output=True)
        _into_fp8(pair, largest, flat_input=True, flat_output=False)
        self._last = _cut_last(single)
        self.join_crops = network.join_crops
        self.single, self.pair = single, pair
        self.embedding: Any = network.pos_embed
        self._projection = Fp8Projection(attentions, token_scale)

    def forward(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features = self._features(rendered, observed)
        tokens, reduced = embed(self.pair(features), self.embedding.pe[0], self._projection.scale)
        return tokens, self._projection(reduced, len(tokens))

    def _features(self, rendered: Tensor, observed: Tensor) -> FlatImages:
        """Features of rendered and observed crops, side by side in one flat image. One observed crop may serve all."""
        n = len(rendered)
        shared = len(observed) != n
        if shared:
            sides = [self.single(rendered), self.single(observed)]
        else:
            both = self.single(self.join_crops(rendered, observed))
            sides = [[part.images(begin, n) for part in both] for begin in (0, n)]
        first = sides[0][0]
        values = torch.empty(len(first.values), 2 * self._last.channels, dtype=FP8, device=rendered.device)
        left, right = values.chunk(2, dim=1)
        found = self._last(*sides[0], out=left)
        if shared:
            # Eight values at a time: torch's copy of single bytes is slow.
            one = self._last(*sides[1]).values.view(torch.int64)
            right.view(torch.int64).unflatten(0, (n, -1)).copy_(one)
        else:
            self._last(*sides[1], out=right)
        return FlatImages(values, found.size, found.scale)


class Fp8Refiner(nn.Module):
    """A fused refiner with one-pass norms, of which encoders and the first projections of the heads run in FP8. Raises ValueError
    for another network."""

    def __init__(self, network: RefinerNetwork, example: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        copied = copy_sharing_weights(network)
        # No modules of its own: they would be cast with the rest of the network.
        self._heads: list[tuple[PostNormLayer, nn.Module]] = []
        for layer, last in copied.heads:
            if not isinstance(layer, PostNormLayer):
                raise ValueError("only heads with one-pass norms can take their projections from FP8")
            self._heads.append((layer, last))
        self.tokens = Fp8Tokens(copied, [layer.self_attn for layer, _ in self._heads], example)

    def forward(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        tokens, projected = self.tokens(rendered, observed)
        return tuple(last(layer.mean(tokens, qkv)) for (layer, last), qkv in zip(self._heads, projected, strict=True))


class Fp8Scorer(nn.Module):
    """A fused scorer up to its embeddings (N, C), of which encoders and the first projection of the attention run in FP8. Raises
    ValueError for another network."""

    def __init__(self, network: ScorerNetwork, example: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        copied = copy_sharing_weights(network)
        self.attention = _plain(copied.att)
        self.tokens = Fp8Tokens(copied, [self.attention], example)

    def forward(self, rendered: Tensor, observed: Tensor) -> Tensor:
        _, (qkv,) = self.tokens(rendered, observed)
        return self.attention.attend(qkv).mean(dim=1)


def _plain(attention: nn.Module) -> PlainAttention:
    if not isinstance(attention, PlainAttention):
        raise ValueError(f"only PlainAttention can take its projection from FP8, not {type(attention).__name__}")
    return attention


def _fused(encoder: nn.Module) -> fx.GraphModule:
    if not isinstance(encoder, fx.GraphModule):
        raise ValueError(f"only an encoder of fused convolutions can run in FP8, not {type(encoder).__name__}")
    return encoder


def _stored(weight: Tensor, bias: Tensor) -> Fp8Weights:
    """A weight (taps, K, C) float32, scaled to the full range of float8, and a bias (K,)."""
    room = LARGEST / weight.abs().amax((0, 2)).clamp(min=1e-12)
    return Fp8Weights((weight * room[:, None]).flatten(0, 1).to(FP8), 1 / room, bias.detach().float())


def _layers(traced: fx.GraphModule) -> dict[fx.Node, nn.Module]:
    return {node: traced.get_submodule(str(node.target)) for node in traced.graph.nodes if node.op == "call_module"}


def _result(traced: fx.GraphModule) -> nn.Module:
    """The layer whose output the encoder returns."""
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    return traced.get_submodule(str(output.args[0].target))


def _largest_outputs(
    network: PairNetwork, layers: Sequence[nn.Module], example: tuple[Tensor, Tensor]
) -> dict[nn.Module, float]:
    """The largest output of each layer for ``example``."""
    largest: dict[nn.Module, float] = {}

    def remember(layer: nn.Module, _: object, output: Tensor) -> None:
        largest[layer] = max(largest.get(layer, 0.0), output.abs().max().item())

    hooks = [layer.register_forward_hook(remember) for layer in layers]
    try:
        with torch.inference_mode():
            network.tokens(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def _into_fp8(traced: fx.GraphModule, largest: dict[nn.Module, float], *, flat_input: bool, flat_output: bool) -> None:
    """Replace the layers of an encoder, in place: all that can be flat, and the one before the first of them, where the input is
    not flat. What comes before stays as it is."""
    layers = _layers(traced)
    flat: set[fx.Node] = set()
    for node, layer in layers.items():
        source = node.args[0]
        alone = isinstance(source, fx.Node) and source in flat and len(source.users) == 1
        if Fp8Conv.fits(layer) and (layer.stride == [1, 1] or alone):
            flat.add(node)
    inputs = flat | {node for node in traced.graph.nodes if flat_input and node.op == "placeholder"}
    outputs = flat | {node for node in traced.graph.nodes if flat_output and node.op == "output"}
    for node, layer in layers.items():
        users = set(node.users)
        scale = _scale(largest[layer]) if outputs & users else None
        replaced: nn.Module
        if node in flat and isinstance(layer, ConvReLU):
            split = any(layers[user].stride == [2, 2] for user in flat & users)
            replaced = Fp8Conv(layer, scale, split)
        elif node.args[0] in inputs:
            raise ValueError(f"{node.target} is no convolution that can run in FP8")
        elif scale is not None and isinstance(layer, ConvReLU):
            replaced = IntoFlat(layer, scale)
        else:
            continue
        set_submodule(traced, str(node.target), replaced)


def _cut_last(traced: fx.GraphModule) -> Any:
    """Make an encoder return what its last layer is called with, and return that layer."""
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    node = output.args[0]
    layer = traced.get_submodule(str(node.target))
    if not isinstance(layer, Fp8Conv):
        raise ValueError(f"{node.target} is no convolution that can run in FP8")
    output.args = (tuple(node.args),)
    traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return layer


def _scale(largest: float) -> float:
    """The scale of activations up to ``largest``: a power of two, since multiplying by one rounds nothing."""
    return 2.0 ** math.floor(math.log2(LARGEST / HEADROOM / max(largest, 1e-6)))
