"""Heads that serve training alone: they tell every feature token directly what it sees."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .detector_data import DetectorBatch
from .detector_loss import Targets, corners, ious


class TokenHeads(nn.Module):
    """What each feature token sees: class of every pixel of a 4 x 4 raster in it, and the box around its centre."""

    RASTER = 4

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.kind = nn.Conv2d(width, (classes + 1) * self.RASTER**2, 1)
        self.box = nn.Conv2d(width, 4, 1)

    def forward(self, features: Tensor, batch: DetectorBatch) -> Tensor:
        """Loss for features (B, C, h, w) of a batch."""
        height, width = features.shape[2:]
        fine = F.pixel_shuffle(self.kind(features).float(), self.RASTER)
        step = batch.kind.shape[1] // fine.shape[2]
        seen = batch.kind[:, step // 2 :: step, step // 2 :: step].long() + 1
        weight = torch.ones(fine.shape[1], device=fine.device)
        weight[:1].fill_(0.3)  # assigning a Python number would wait for the device
        kind = F.cross_entropy(fine, seen, weight=weight)

        stride = batch.kind.shape[1] // height
        y = (torch.arange(height, device=fine.device) + 0.5) / height
        x = (torch.arange(width, device=fine.device) + 0.5) / width
        center = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        predicted = torch.cat([torch.zeros_like(center), torch.full_like(center, 0.1)], -1)
        raw = self.box(features).float().permute(0, 2, 3, 1)
        predicted = torch.cat([center + 0.1 * raw[..., :2], predicted[..., 2:] * raw[..., 2:].clamp(-4, 3).exp()], -1)
        wanted, on = _token_boxes(batch.targets, center, batch.kind[:, stride // 2 :: stride, stride // 2 :: stride])
        _, giou = ious(corners(predicted), corners(wanted))
        box = ((1 - giou) * on).sum() / on.sum().clamp(min=1)
        return kind + 0.5 * box


def _token_boxes(targets: Targets, center: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest box of the token's own class around its centre: boxes (B, h, w, 4), and where there is one."""
    edges = corners(targets.boxes)[:, None, None]
    inside = ((center[None, :, :, None] > edges[..., :2]) & (center[None, :, :, None] < edges[..., 2:])).all(-1)
    inside &= targets.valid[:, None, None] & (targets.labels[:, None, None] == kind[..., None])
    area = (targets.boxes[..., 2] * targets.boxes[..., 3])[:, None, None].expand(inside.shape)
    chosen = torch.where(inside, area, torch.full_like(area, 9.0)).argmin(-1)
    boxes = targets.boxes.gather(1, chosen.flatten(1)[..., None].expand(-1, -1, 4))
    return boxes.view(*chosen.shape, 4), inside.any(-1)
