"""RF-DETR's training loss for a padded batch, without a wait for the device.

The same numbers as rfdetr's SetCriterion with its HungarianMatcher (IoU-aware BCE, L1, generalized IoU; a test holds
the two together), but assignment and losses of all layers and query groups are single tensor programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import warp as wp
from torch import Tensor

from ..warp_setup import launch
from .detector_kernels import assign_rows
from .detector_mask_loss import MaskTargets, mask_costs, mask_losses

# These are the costs and weights of rfdetr's ModelDefaults and TrainConfig.
_COST_CLASS, _COST_L1, _COST_GIOU = 2.0, 5.0, 2.0
_WEIGHT_CLASS, _WEIGHT_L1, _WEIGHT_GIOU = 1.0, 5.0, 2.0
_ALPHA = 0.25


@dataclass(frozen=True)
class Targets:
    """labels: (B, T) int64. boxes: (B, T, 4) float32 cx, cy, w, h in [0, 1]. valid, ignore: (B, T) bool.

    valid rows are to be found; ignore rows may be found or not (too small or hidden); all others are padding.
    """

    labels: Tensor
    boxes: Tensor
    valid: Tensor
    ignore: Tensor


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) cx, cy, w, h -> x0, y0, x1, y1."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def area(low: Tensor, high: Tensor) -> Tensor:
    """Area between corners (..., 2), 0 where they are crossed; not prod, whose gradient waits for the device."""
    side = (high - low).clamp(min=0)
    return side[..., 0] * side[..., 1]


def ious(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalized IoU of broadcasting corner boxes (..., 4)."""
    inter = area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - inter
    iou = inter / union.clamp(min=1e-9)
    hull = area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    return iou, iou - (hull - union) / hull.clamp(min=1e-9)


@torch.no_grad()
def assign(cost: Tensor) -> Tensor:
    """Optimal one-to-one assignment of T rows to Q >= T columns, for N problems at once.

    cost: (N, T, Q) float. Returns (N, T) int64, the column of each row. One thread a problem; nothing is read back.
    """
    count, rows, columns = cost.shape
    if columns < rows:
        raise ValueError(f"{rows} rows cannot be assigned to {columns} columns one to one")

    def work(size: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros((size, count), dtype=dtype, device=cost.device)

    space = [work(rows + 1, torch.float64), *(work(columns + 1, torch.float64) for _ in range(2))]
    space += [work(columns + 1, torch.int32) for _ in range(3)]
    result = torch.zeros((count, rows), dtype=torch.int64, device=cost.device)
    arrays = [wp.from_torch(t) for t in (cost.permute(1, 2, 0).float().contiguous(), *space, result)]
    launch(assign_rows, count, arrays, cost.device)
    return result


def detection_loss(
    outputs: dict[str, Any], targets: Targets, groups: int, masks: MaskTargets | None = None
) -> dict[str, Tensor]:
    """Losses of a forward pass of rfdetr's LWDETR in training mode, summed over decoder layers and encoder.

    Returns "class", "l1", "giou" (weighted, to be added up) and "iou": mean overlap of the last layer's matches. With
    ``masks``, for a network with a segmentation head, also "mask_ce", "mask_dice" and "mask_iou"; they may be of the first
    images of the batch only, as then "pred_masks" are.
    """
    layers = [*outputs.get("aux_outputs", []), outputs]
    if "enc_outputs" in outputs:
        layers.insert(0, outputs["enc_outputs"])
    logits = torch.stack([o["pred_logits"] for o in layers]).float()
    boxes = torch.stack([o["pred_boxes"] for o in layers]).float()
    depth, batch, queries, classes = logits.shape
    shape = (depth, batch, groups, queries // groups)
    logits, boxes = logits.view(*shape, classes), boxes.view(*shape, 4)

    cost = None
    if masks is not None:
        with torch.no_grad():
            cost = torch.stack([mask_costs(o["pred_masks"], masks) for o in layers])
        cost = F.pad(cost, (0, 0, 0, 0, 0, batch - cost.shape[1])).view(*shape, -1)
    index = _match(logits.detach(), boxes.detach(), targets, cost)
    valid = targets.valid[None, :, None, :].expand_as(index)
    wanted = targets.boxes[None, :, None].expand(*index.shape, 4)
    matched = boxes.gather(3, index[..., None].expand(*index.shape, 4))
    iou, giou = ious(corners(matched), corners(wanted))
    # Mean over groups, as rfdetr has it.
    normalizer = (targets.valid.sum() * groups).clamp(min=1)

    weight_l1 = (matched - wanted).abs().sum(-1) * valid
    weight_giou = (1 - giou) * valid
    found = {} if masks is None else mask_losses(layers, index[:, : len(masks.known)], masks)
    return found | {
        "class": _WEIGHT_CLASS * _class_loss(logits, boxes, targets, index, iou.detach(), valid) / normalizer,
        "l1": _WEIGHT_L1 * weight_l1.sum() / normalizer,
        "giou": _WEIGHT_GIOU * weight_giou.sum() / normalizer,
        "iou": (iou[-1] * valid[-1]).sum().detach() / normalizer,
    }


def _match(logits: Tensor, boxes: Tensor, targets: Targets, masks: Tensor | None) -> Tensor:
    """(L, B, G, T) int64: the query of each target. masks: (L, B, G, Q, T) costs of masks."""
    depth, batch, groups, queries, _ = logits.shape
    labels = targets.labels.clamp(min=0)[None, :, None, None, :].expand(depth, -1, groups, queries, -1)
    chosen = logits.gather(4, labels)
    probability = chosen.sigmoid()
    negative = (1 - _ALPHA) * probability**2 * -F.logsigmoid(-chosen)
    positive = _ALPHA * (1 - probability) ** 2 * -F.logsigmoid(chosen)
    wanted = targets.boxes[None, :, None, None]
    _, giou = ious(corners(boxes)[..., None, :], corners(wanted))
    l1 = (boxes[..., None, :] - wanted).abs().sum(-1)
    cost = _COST_CLASS * (positive - negative) + _COST_L1 * l1 - _COST_GIOU * giou
    if masks is not None:
        cost = cost + masks
    cost = torch.nan_to_num(cost, nan=1e4, posinf=1e4, neginf=-1e4)
    # Padding costs the same everywhere, so it takes what is left over.
    cost = cost.masked_fill(~targets.valid[None, :, None, None, :], 0.0)
    return assign(cost.flatten(0, 2).transpose(1, 2)).view(depth, batch, groups, -1)


def _class_loss(logits: Tensor, boxes: Tensor, targets: Targets, index: Tensor, iou: Tensor, valid: Tensor) -> Tensor:
    probability = logits.sigmoid()
    negative = probability**2
    positive = torch.zeros_like(logits)
    spare = _ignored(boxes.detach(), targets)
    negative = negative.masked_fill(spare[..., None], 0.0)

    classes = logits.shape[-1]
    cell = index * classes + targets.labels.clamp(min=0)[None, :, None, :]
    flat_positive, flat_negative = positive.flatten(3), negative.flatten(3)
    now = probability.detach().flatten(3).gather(3, cell)
    quality = (now.pow(_ALPHA) * iou.pow(1 - _ALPHA)).clamp(min=0.01)
    # scatter, not scatter_: the untouched negatives keep their gradient
    flat_positive = flat_positive.scatter(3, cell, quality * valid)
    flat_negative = flat_negative.scatter(3, cell, torch.where(valid, 1 - quality, flat_negative.gather(3, cell)))
    flat = logits.flatten(3)
    return (flat_negative * flat - F.logsigmoid(flat) * (flat_positive + flat_negative)).sum()


def _ignored(boxes: Tensor, targets: Targets) -> Tensor:
    """(L, B, G, Q) bool: boxes that lie mostly on something that may be found or not."""
    a, b = corners(boxes)[..., None, :], corners(targets.boxes)[None, :, None, None]
    inter = area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    on = (inter > 0.5 * area(a[..., :2], a[..., 2:])) & targets.ignore[None, :, None, None, :]
    return on.any(-1)
