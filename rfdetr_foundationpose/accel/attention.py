"""Self-attention in plain tensor operations, for exporters, tracers and half precision."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .fold import set_submodule


class PlainAttention(nn.Module):
    """Self-attention with the weights of an ``nn.MultiheadAttention``: (N, L, C) -> ((N, L, C), None).

    torch's own module bakes sequence lengths into traces and takes a fast path that exporters do not know.
    ``batch_first`` is False so that ``nn.TransformerEncoderLayer`` leaves its fast path too; inputs are batch first.
    """

    batch_first = False

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if not attention._qkv_same_embed_dim or attention.bias_k is not None or attention.add_zero_attn:
            raise ValueError("only plain self-attention can be rewritten: one embedding size, no bias_k, no zero token")
        if not attention.batch_first:
            raise ValueError("only batch-first attention can be rewritten")
        self.num_heads = attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **_: Any) -> tuple[Tensor, None]:
        """``key`` and ``value`` are ``query``; masks are not supported (the networks use none)."""
        return self.attend(F.linear(query, self.in_proj_weight, self.in_proj_bias)), None

    def attend(self, qkv: Tensor) -> Tensor:
        """What follows the projection of the input to (N, L, 3 C) queries, keys and values: (N, L, C)."""
        n, length, channels = *qkv.shape[:2], qkv.shape[2] // 3
        q, k, v = qkv.unflatten(2, (3, self.num_heads, channels // self.num_heads)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(attended.transpose(1, 2).reshape(n, length, channels))  # type: ignore[no-any-return]


def plain_attention(module: nn.Module) -> nn.Module:
    """A copy of an eval-mode network with every ``nn.MultiheadAttention`` replaced by ``PlainAttention``."""
    if module.training:
        raise ValueError("plain_attention needs a module in eval mode: attention dropout is left out")
    rewritten = copy.deepcopy(module)
    for name, child in list(rewritten.named_modules()):
        if isinstance(child, nn.MultiheadAttention):
            set_submodule(rewritten, name, PlainAttention(child).eval())
    return rewritten
