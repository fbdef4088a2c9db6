"""A transformer encoder layer for inference in FP16 on CUDA: fewer passes over memory, the same numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import PlainAttention
from .fold import copy_sharing_weights, set_submodule


class PostNormLayer(nn.Module):
    """A TokenMeanLayer (norm after, ReLU, PlainAttention) with one-pass norms and ReLU in its product."""

    self_attn: PlainAttention
    linear1: nn.Linear
    linear2: nn.Linear
    norm1: nn.LayerNorm
    norm2: nn.LayerNorm

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        if not self.fits(layer):
            raise ValueError(
                f"PostNormLayer stands for a layer with the norm last, ReLU and PlainAttention, not {layer}"
            )
        assert isinstance(layer.self_attn, PlainAttention)
        self.self_attn = layer.self_attn
        self.linear1, self.linear2, self.norm1, self.norm2 = layer.linear1, layer.linear2, layer.norm1, layer.norm2

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Whether this class can stand for ``layer``."""
        from .norm_kernels import fits

        return (
            isinstance(layer, nn.TransformerEncoderLayer)
            and not layer.norm_first
            and layer.activation is F.relu
            and isinstance(layer.self_attn, PlainAttention)
            and fits(layer.norm1.normalized_shape[0])
            and layer.linear1.bias is not None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) float16 on CUDA -> the same shape."""
        from .norm_kernels import add_norm

        return add_norm(*self._before_last_norm(x), self.norm2.weight, self.norm2.bias, self.norm2.eps)

    def mean(self, x: Tensor, qkv: Tensor | None = None) -> Tensor:
        """The mean of what ``forward`` gives over its tokens, (N, C), without writing these. qkv: (N, L, 3 C), where the
        attention's first projection of x is known."""
        from .norm_kernels import add_norm_mean

        return add_norm_mean(*self._before_last_norm(x, qkv), self.norm2.weight, self.norm2.bias, self.norm2.eps)

    def _before_last_norm(self, x: Tensor, qkv: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The two terms, (N, L, C) each, whose sum the last norm takes: the residual and the feed-forward part."""
        from .norm_kernels import add_norm

        first, attention = self.norm1, self.self_attn
        # The output of the attention gets no name: one would keep it, 17 MB a head and chunk, while the rest runs.
        x = add_norm(
            x, attention(x, x, x)[0] if qkv is None else attention.attend(qkv), first.weight, first.bias, first.eps
        )
        inner = torch._addmm_activation(self.linear1.bias, x.flatten(0, 1), self.linear1.weight.t())
        return x, self.linear2(inner).view_as(x)


def one_pass_norms(module: nn.Module) -> nn.Module | None:
    """A copy of a network that shares its weights, with PostNormLayer wherever one fits; None where none does."""
    rewritten = copy_sharing_weights(module)
    fitting = [(name, layer) for name, layer in rewritten.named_modules() if PostNormLayer.fits(layer)]
    for name, layer in fitting:
        assert isinstance(layer, nn.TransformerEncoderLayer)
        set_submodule(rewritten, name, PostNormLayer(layer).eval())
    return rewritten if fitting else None
