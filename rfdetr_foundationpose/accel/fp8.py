"""A refiner whose large products run in FP8: for the iterations of a registration that a later one corrects.

Weights are scaled per output channel, activations by what random crops give, with room for those of real ones. What is larger,
infinite or NaN becomes the largest value or none: that something overflowed, only the exact iterations show.
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
from .fp8_kernels import FP8, LARGEST, FlatImages, can_be_flat, convolve, embed, flatten, linear

HEADROOM = 16.0
"""Between the largest activation of random crops and the largest that FP8 can hold: real crops give up to 6 times as much."""


class Fp8Conv(nn.Module):
    """A ``ConvReLU`` over flat images. Returns such, or float16 images with an empty row and column where ``out_scale`` is None."""

    def __init__(self, conv: ConvReLU, out_scale: float | None) -> None:
        super().__init__()
        # No buffers: they would be cast with the rest of the network.
        self.weight, self.unit = _stored(conv.weight.detach().float().permute(2, 3, 0, 1).flatten(0, 1))
        self.bias = conv.bias.detach().float()
        self.out_scale = out_scale

    @staticmethod
    def fits(conv: nn.Module) -> bool:
        """Whether this class can stand for ``conv``."""
        return (
            isinstance(conv, ConvReLU)
            and _is_3x3(conv)
            and conv.stride == [1, 1]
            and all(can_be_flat(channels) for channels in conv.weight.shape[:2])
        )

    def forward(self, x: FlatImages, residual: FlatImages | None = None) -> FlatImages | Tensor:
        return convolve(x, self.weight, self.unit, self.bias, residual, self.out_scale)


class Fp8Projection:
    """The first projections of several attentions over the same tokens, as one product."""

    def __init__(self, attentions: Sequence[PlainAttention], scale: float) -> None:
        self.weight, self.unit = _stored(torch.cat([a.in_proj_weight.detach().float() for a in attentions])[None])
        self.bias = torch.cat([a.in_proj_bias.detach().float() for a in attentions])
        self.scale = scale
        self.parts = len(attentions)

    def __call__(self, tokens: Tensor, n: int) -> tuple[Tensor, ...]:
        """tokens: (N * L, C) float8, ``scale`` times what they stand for -> (N, L, 3 C) float16 for each attention."""
        found = linear(tokens, self.scale, self.weight, self.unit, self.bias)
        return found.view(n, -1, found.shape[1]).chunk(self.parts, dim=2)


class IntoFlat(nn.Module):
    """A 3x3 ``ConvReLU`` before an ``Fp8Conv``, itself in FP16: from the images that an ``Fp8Conv`` returns to flat images."""

    def __init__(self, conv: ConvReLU, scale: float) -> None:
        super().__init__()
        if not _is_3x3(conv):
            raise ValueError(f"an empty row and column stand for the padding of a 3x3 convolution, not of {conv}")
        self.conv = conv
        self.scale = scale

    def forward(self, x: Tensor) -> FlatImages:
        # What saw the empty row and column in its middle is left out.
        height, width = ((size - 2) // stride + 1 for size, stride in zip(x.shape[2:], self.conv.stride, strict=True))
        return flatten([self.conv(x)], height, width, self.scale)


def _is_3x3(conv: ConvReLU) -> bool:
    """Whether it is a 3x3 convolution with padding 1, of any stride."""
    return tuple(conv.weight.shape[2:]) == (3, 3) and (conv.padding, conv.dilation, conv.groups) == ([1, 1], [1, 1], 1)


class Fp8Refiner(nn.Module):
    """A fused refiner with one-pass norms, of which the encoder of two crops and the first projections of the heads run in FP8.

    The encoder of one crop stays as it is: what FP8 errs by there counts three times as much (docs/accuracy.md). Raises
    ValueError for another network.
    """

    def __init__(self, network: nn.Module, example: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        network = copy_sharing_weights(network)
        single, pair = network.encoders  # type: ignore[misc]
        layers = [head[0] for head in network.heads]  # type: ignore[union-attr, index]
        if not isinstance(pair, fx.GraphModule):
            raise ValueError(f"only an encoder of fused convolutions can run in FP8, not {type(pair).__name__}")
        if not all(isinstance(layer, PostNormLayer) for layer in layers):
            raise ValueError("only heads with one-pass norms can take their projections from FP8")
        largest = _largest_outputs(network, [single, *_layers(pair).values()], example)
        self._joined_scale = _scale(largest[single])
        token_scale = _scale(largest[_result(pair)] + 1)  # the embedding adds a sine
        _into_fp8(pair, largest)
        self.network = network
        self._projection = Fp8Projection([layer.self_attn for layer in layers], token_scale)

    def forward(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        tokens, reduced = self.tokens(rendered, observed)
        projected = self._projection(reduced, len(tokens))
        heads: Any = self.network.heads
        return tuple(last(layer.mean(tokens, qkv)) for (layer, last), qkv in zip(heads, projected, strict=True))

    def tokens(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L, C) float16, and (N * L, C) float8 for the projection."""
        network: Any = self.network
        parts = network.features(rendered, observed)
        _, pair = network.encoders
        found = pair(flatten(parts, parts[0].shape[2], parts[0].shape[3], self._joined_scale))
        return embed(found, network.pos_embed.pe[0], self._projection.scale)


def _stored(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight: (taps, K, C) float32 -> (taps * K, C) float8, scaled to the full range, and what a stored 1 stands for, (K,)."""
    room = LARGEST / weight.abs().amax((0, 2)).clamp(min=1e-12)
    return (weight * room[:, None]).flatten(0, 1).to(FP8), 1 / room


def _layers(traced: fx.GraphModule) -> dict[fx.Node, nn.Module]:
    return {node: traced.get_submodule(str(node.target)) for node in traced.graph.nodes if node.op == "call_module"}


def _result(traced: fx.GraphModule) -> nn.Module:
    """The layer whose output the encoder returns."""
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    return traced.get_submodule(str(output.args[0].target))


def _largest_outputs(
    network: nn.Module, layers: Sequence[nn.Module], example: tuple[Tensor, Tensor]
) -> dict[nn.Module, float]:
    """The largest output of each layer for ``example``."""
    largest: dict[nn.Module, float] = {}

    def remember(layer: nn.Module, _: object, output: Tensor) -> None:
        largest[layer] = max(largest.get(layer, 0.0), output.abs().max().item())

    hooks = [layer.register_forward_hook(remember) for layer in layers]
    try:
        with torch.inference_mode():
            network.tokens(*example)  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def _into_fp8(traced: fx.GraphModule, largest: dict[nn.Module, float]) -> None:
    """Replace the layers of an encoder that is given flat images, in place."""
    layers = _layers(traced)
    flat = {node for node, layer in layers.items() if Fp8Conv.fits(layer)}
    for node, layer in layers.items():
        scale = _scale(largest[layer]) if flat & set(node.users) else None
        replaced: nn.Module
        if node in flat and isinstance(layer, ConvReLU):
            replaced = Fp8Conv(layer, scale)
        elif scale is not None and node.args[0] in flat and isinstance(layer, ConvReLU):
            replaced = IntoFlat(layer, scale)
        else:
            raise ValueError(f"{node.target} is no convolution that can run in FP8 or lies between such")
        set_submodule(traced, str(node.target), replaced)


def _scale(largest: float) -> float:
    """A power of two, which rounds nothing."""
    return 2.0 ** math.floor(math.log2(LARGEST / HEADROOM / max(largest, 1e-6)))
