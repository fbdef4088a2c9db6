"""The first stage's choice of proposals, with gradients only where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def quicken(transformer: Any) -> None:
    """Let a training rfdetr Transformer choose by ``select``; versions before 1.11, which have no such step, stay as is."""
    if hasattr(transformer, "_two_stage_group_selection"):
        transformer._two_stage_group_selection = lambda *arguments: select(transformer, *arguments)


def select(transformer: Any, memory: Tensor, proposals: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As rfdetr's Transformer._two_stage_group_selection, for memory (B, S, C) and proposals (B, S, 4).

    All S tokens are ranked without a graph, a group at a time; only the K chosen ones of each group, the only ones that
    any loss sees, are run again with one. Returns reference points without gradient, queries, boxes and class logits,
    each (B, groups * K, ...), group by group.
    """
    batch, tokens, width = memory.shape
    kept = min(transformer.num_queries, tokens)
    with torch.no_grad():
        index = torch.stack([_best(transformer, memory, g, kept) for g in range(groups)], 1).flatten(1)

    def grouped(x: Tensor) -> Tensor:
        return x.view(batch, groups, kept, -1).transpose(0, 1).reshape(groups, batch * kept, -1)

    def merged(x: Tensor) -> Tensor:
        return x.view(groups, batch, kept, -1).transpose(0, 1).reshape(batch, groups * kept, -1)

    # Gathered from (B, S, C): from a copy for each group, the gradient would be as many times larger.
    chosen = grouped(memory.gather(1, index[..., None].expand(-1, -1, width)))
    anchors = grouped(proposals.gather(1, index[..., None].expand(-1, -1, 4)))
    norms = transformer.enc_output_norm
    hidden = F.layer_norm(_linear(transformer.enc_output, chosen), (width,), eps=norms[0].eps)
    hidden = hidden * torch.stack([n.weight for n in norms])[:, None] + torch.stack([n.bias for n in norms])[:, None]
    logits = _linear(transformer.enc_out_class_embed, hidden)
    mlps = transformer.enc_out_bbox_embed
    delta = hidden
    for i in range(len(mlps[0].layers)):
        delta = _linear([mlp.layers[i] for mlp in mlps], delta if i == 0 else F.relu(delta))
    if transformer.bbox_reparam:
        center = delta[..., :2] * anchors[..., 2:] + anchors[..., :2]
        boxes = torch.cat([center, delta[..., 2:].exp() * anchors[..., 2:]], -1)
    else:
        boxes = delta + anchors
    boxes = merged(boxes)
    return boxes.detach(), merged(hidden), boxes, merged(logits)


def _best(transformer: Any, memory: Tensor, group: int, kept: int) -> Tensor:
    """(B, kept) int64: the tokens with the highest class scores of one group."""
    output, norm, score = (
        getattr(transformer, name)[group] for name in ("enc_output", "enc_output_norm", "enc_out_class_embed")
    )
    hidden = output(memory)
    with torch.autocast(memory.device.type, enabled=False):
        # In the type that the product came in: autocast would write the norm of every token as FP32 and read it again.
        kind = hidden.dtype
        hidden = F.layer_norm(hidden, norm.normalized_shape, norm.weight.to(kind), norm.bias.to(kind), norm.eps)
        scores = F.linear(hidden, score.weight.to(kind), score.bias.to(kind))
    best: Tensor = scores.amax(-1).topk(kept, 1).indices
    return best


def _linear(layers: Sequence[Any], x: Tensor) -> Tensor:
    """One layer for each group: (G, N, C) -> (G, N, D)."""
    weight, bias = torch.stack([m.weight for m in layers]), torch.stack([m.bias for m in layers])
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
