"""RF-DETR's losses and matching costs of masks, for a padded batch and without a wait for the device.

The same numbers as rfdetr's SetCriterion.loss_masks and HungarianMatcher give for the same points (a test holds them
together): binary cross-entropy and dice at points, of which three quarters are where the prediction is least sure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# These are the costs and weights of rfdetr's SegmentationTrainConfig.
_COST_CE, _COST_DICE = 5.0, 5.0
_WEIGHT_CE, _WEIGHT_DICE = 5.0, 5.0
_POINTS_RATIO, _OVERSAMPLE, _UNSURE = 16, 3, 0.75
MOST_MASKS = 16
"""So many instances of an image, drawn anew in each step, learn masks: whole predictions are made for them."""


@dataclass(frozen=True)
class MaskTargets:
    """ids: (B, R, R) integer, the row of ``Targets`` that each pixel shows, -1 for none. known: (B, T) bool, rows that are to
    be found and whose outline is known. boxed: (B, T) bool, rows of which ``ids`` has the box, because the outline is not known: what
    lies in there is no background of other rows either, so nothing is learned at these pixels."""

    ids: Tensor
    known: Tensor
    boxed: Tensor

    def first(self, images: int) -> MaskTargets:
        """Of the first images alone."""
        return MaskTargets(self.ids[:images], self.known[:images], self.boxed[:images])

    def at(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each point shows the row, (B, N, P) float, and whether that is known, (B, M, P) float.

        points: (B, M, P, 2) x, y in [0, 1]; M is N, or 1 for all rows. rows: (B, N).
        """
        size = self.ids.shape[-1]
        cell = (points * size).long().clamp(0, size - 1)
        flat = (cell[..., 1] * size + cell[..., 0]).flatten(1)
        seen = self.ids.flatten(1).gather(1, flat).long()
        last = self.boxed.shape[1] - 1
        boxed = self.boxed.gather(1, seen.clamp(0, last)) & (seen >= 0) & (seen <= last)
        seen = seen.view(cell.shape[:-1])
        return (seen == rows[..., None]).float(), (~boxed).float().view(cell.shape[:-1])


def mask_costs(masks: dict[str, Any], targets: MaskTargets) -> Tensor:
    """(B, N, T) cost of each of a layer's N queries for each row, at points that all share; 0 for rows without an outline.

    masks: spatial_features (B, C, h, w), query_features (B, N, C), bias (1,), as rfdetr's head gives them in training.
    """
    spatial = masks["spatial_features"].float()
    batch, _, height, width = spatial.shape
    points = torch.rand(1, height * width // _POINTS_RATIO, 2, device=spatial.device).expand(batch, -1, -1)
    sampled = _sample(spatial, points[:, None])[:, :, 0]
    logits = masks["query_features"].float() @ sampled + masks["bias"].float()
    rows = torch.arange(targets.known.shape[1], device=spatial.device).expand_as(targets.known)
    wanted, certain = targets.at(points[:, None], rows)
    wanted = wanted.transpose(1, 2)
    count = certain.sum(2).clamp(min=1)[..., None]
    ce = ((F.softplus(-logits) * certain) @ wanted + (F.softplus(logits) * certain) @ (1 - wanted)) / count
    chance = logits.sigmoid() * certain
    dice = 1 - (2 * chance @ wanted + 1) / (chance.sum(-1)[..., None] + wanted.sum(1)[:, None] + 1)
    return (_COST_CE * ce + _COST_DICE * dice) * targets.known[:, None]


def mask_losses(layers: list[dict[str, Any]], index: Tensor, targets: MaskTargets) -> dict[str, Tensor]:
    """ "mask_ce" and "mask_dice", weighted and summed over the layers, and "mask_iou", mean overlap of the last layer.

    layers: outputs with "pred_masks". index: (L, B, G, T) int64, query of each row within its group.
    """
    groups = index.shape[2]
    kept = min(MOST_MASKS, targets.known.shape[1])
    # A random choice of the known rows; where there are fewer, the rest counts nothing.
    order = torch.rand(targets.known.shape, device=index.device) + targets.known
    chosen = order.topk(kept, 1).indices
    known = targets.known.gather(1, chosen)
    weight = known.repeat(1, groups).float()
    normalizer = weight.sum().clamp(min=1)
    found: dict[str, Tensor] = {}
    for layer, queries in zip(layers, index, strict=True):
        logits = _chosen_masks(layer["pred_masks"], queries, chosen)
        ce, dice = _point_losses(logits, targets, chosen.repeat(1, groups))
        found["mask_ce"] = found.get("mask_ce", 0) + _WEIGHT_CE * (ce * weight).sum() / normalizer
        found["mask_dice"] = found.get("mask_dice", 0) + _WEIGHT_DICE * (dice * weight).sum() / normalizer
    found["mask_iou"] = (_overlap(logits.detach(), targets, chosen.repeat(1, groups)) * weight).sum() / normalizer
    return found


def _chosen_masks(masks: dict[str, Any], queries: Tensor, chosen: Tensor) -> Tensor:
    """(B, G * K, h, w) float32 mask logits of the queries (B, G, T) of the chosen rows (B, K)."""
    spatial, features = masks["spatial_features"], masks["query_features"]
    groups = queries.shape[1]
    first = torch.arange(groups, device=queries.device) * (features.shape[1] // groups)
    columns = queries.gather(2, chosen[:, None].expand(-1, groups, -1)) + first[None, :, None]
    columns = columns.flatten(1)
    picked = features.gather(1, columns[..., None].expand(-1, -1, features.shape[2]))
    logits = picked.to(spatial.dtype) @ spatial.flatten(2)
    return logits.float().unflatten(2, spatial.shape[2:]) + masks["bias"].float()


def _point_losses(logits: Tensor, targets: MaskTargets, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice (B, N) of logits (B, N, h, w) for rows (B, N)."""
    height, width = logits.shape[-2:]
    count = max(height, height * width // _POINTS_RATIO)
    maps = logits.flatten(0, 1)[:, None]
    with torch.no_grad():
        points = _unsure_points(maps, count)
    seen = _sample(maps, points[:, None])[:, 0, 0].unflatten(0, rows.shape)
    wanted, certain = targets.at(points.unflatten(0, rows.shape), rows)
    ce = (F.binary_cross_entropy_with_logits(seen, wanted, reduction="none") * certain).sum(-1)
    ce = ce / certain.sum(-1).clamp(min=1)
    chance = seen.sigmoid() * certain
    dice = 1 - (2 * (chance * wanted).sum(-1) + 1) / (chance.sum(-1) + wanted.sum(-1) + 1)
    return ce, dice


def _unsure_points(maps: Tensor, count: int) -> Tensor:
    """(N, count, 2) points x, y in [0, 1] for maps (N, 1, h, w): most where the logits are nearest to 0, the rest anywhere."""
    points = torch.rand(len(maps), count * _OVERSAMPLE, 2, device=maps.device)
    unsure = _sample(maps, points[:, None])[:, 0, 0].abs()
    first = int(_UNSURE * count)
    best = unsure.topk(first, 1, largest=False).indices
    chosen = points.gather(1, best[..., None].expand(-1, -1, 2))
    return torch.cat([chosen, torch.rand(len(maps), count - first, 2, device=maps.device)], 1)


def _sample(maps: Tensor, points: Tensor) -> Tensor:
    """(N, C, 1, P) values of maps (N, C, h, w) at points (N, 1, P, 2) x, y in [0, 1]."""
    return F.grid_sample(maps, 2 * points - 1, mode="bilinear", padding_mode="border", align_corners=False)


@torch.no_grad()
def _overlap(logits: Tensor, targets: MaskTargets, rows: Tensor) -> Tensor:
    """(B, N) intersection over union at the head's resolution."""
    height, width = logits.shape[-2:]
    y = (torch.arange(height, device=logits.device) + 0.5) / height
    x = (torch.arange(width, device=logits.device) + 0.5) / width
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(1, 1, -1, 2).expand(len(logits), -1, -1, -1)
    wanted, certain = targets.at(grid, rows)
    seen = (logits.flatten(2) > 0).float() * certain
    both = (seen * wanted).sum(-1)
    return both / (seen.sum(-1) + wanted.sum(-1) - both).clamp(min=1)
