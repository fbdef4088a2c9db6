"""Masks of detections: the box, the box sharpened by depth, an instance mask; and the depth inside them."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..types import CameraIntrinsics

# Depth is sampled on a grid over the middle part of the box, where the object most likely is.
_GRID = 16
_MIDDLE = 0.6
# An instance mask reaches so much of the box's longer side beyond it; a network's mask fits its box where so much of it is
# within, filling so much of it.
_MARGIN, _WITHIN, _SPECK = 0.1, 0.5, 0.04
# A mask that fills so much of its box may be no more than the box.
_FILLED = 0.97


def clip_box(box: NDArray[np.floating], height: int, width: int) -> tuple[int, int, int, int]:
    """Pixel bounds x0, y0, x1, y1 (end exclusive, at least one pixel) of a box (4,) in an image."""
    x0 = int(np.clip(np.floor(box[0]), 0, width - 1))
    y0 = int(np.clip(np.floor(box[1]), 0, height - 1))
    x1 = int(np.clip(np.ceil(box[2]), x0 + 1, width))
    y1 = int(np.clip(np.ceil(box[3]), y0 + 1, height))
    return x0, y0, x1, y1


def box_mask(box: NDArray[np.floating], height: int, width: int, device: torch.device) -> Tensor:
    """(H, W) bool, true inside the box (4,)."""
    x0, y0, x1, y1 = clip_box(box, height, width)
    mask = torch.zeros((height, width), dtype=torch.bool, device=device)
    mask[y0:y1, x0:x1] = True
    return mask


def box_depths(boxes: Tensor, depth: Tensor) -> Tensor:
    """Median measured depth in the middle of each box. boxes: (N, 4) pixels. depth: (H, W) metres, 0 for none.

    Returns (N,) float32 metres, NaN where nothing was measured. Fixed shapes, no wait for the device.
    """
    height, width = depth.shape
    steps = (torch.arange(_GRID, device=boxes.device, dtype=torch.float32) + 0.5) / _GRID
    steps = (1 - _MIDDLE) / 2 + _MIDDLE * steps
    boxes = boxes.float()
    x = (boxes[:, 0:1] + (boxes[:, 2:3] - boxes[:, 0:1]) * steps).long().clamp(0, width - 1)
    y = (boxes[:, 1:2] + (boxes[:, 3:4] - boxes[:, 1:2]) * steps).long().clamp(0, height - 1)
    samples = depth[y[:, :, None], x[:, None, :]].flatten(1)
    samples = torch.where(samples > 0, samples, torch.full_like(samples, torch.nan))
    return samples.nanmedian(dim=1).values


def depth_mask(box: NDArray[np.floating], median: float | None, depth: Tensor, camera: CameraIntrinsics) -> Tensor:
    """The box sharpened by depth: (H, W) bool on the device of ``depth`` (H, W), metres, 0 for none.

    Kept are the pixels of the box whose depth lies within the object's size of its median depth; that size is the
    box's extent at that depth. On the CPU only the connected component that fills the middle of the box stays;
    on CUDA the band alone is taken, which needs no wait. Without a median, or when nothing is left, it is the box.
    """
    height, width = depth.shape
    if median is None:
        return box_mask(box, height, width, depth.device)
    x0, y0, x1, y1 = clip_box(box, height, width)
    extent = median * max((x1 - x0) / camera.fx, (y1 - y0) / camera.fy)
    crop = depth[y0:y1, x0:x1]
    near = (crop > 0) & ((crop - median).abs() < 0.6 * extent)
    if depth.device.type == "cpu":
        near = torch.from_numpy(_middle_component(near.numpy()))
        if not near.any():
            return box_mask(box, height, width, depth.device)
    mask = torch.zeros((height, width), dtype=torch.bool, device=depth.device)
    mask[y0:y1, x0:x1] = near
    return mask


def _middle_component(near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected component with the most pixels in the inner half of the box; gaps of two pixels do not part it."""
    closed = cv2.dilate(near.astype(np.uint8), np.ones((3, 3), np.uint8))
    count, labels = cv2.connectedComponents(closed, connectivity=4)
    if count <= 2:
        return near
    labels[~near] = 0
    h, w = near.shape
    inner = labels[h // 4 : h - h // 4, w // 4 : w - w // 4]
    votes = np.bincount(inner.ravel(), minlength=count)
    votes[0] = 0
    if votes.max() == 0:
        votes = np.bincount(labels.ravel(), minlength=count)
        votes[0] = 0
    chosen: NDArray[np.bool_] = labels == int(votes.argmax())
    return chosen


def bilinear_taps(
    length: int, size: int, device: torch.device, span: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """How torch resizes ``length`` pixels to ``size`` without antialiasing: for the output pixels of ``span`` (first, end; by
    default all) the two source pixels of each, and the weight of the second."""
    first, end = span or (0, size)
    position = torch.arange(first, end, dtype=torch.float64, device=device)
    position = ((position + 0.5) * (length / size) - 0.5).clamp(min=0)
    low = position.long().clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    return low, high, (position - low).float()


def instance_mask(logits: Tensor, box: NDArray[np.floating], height: int, width: int) -> Tensor:
    """Network mask logits (h, w) of a detection with ``box`` (4,) pixels -> (H, W) bool on their device.

    As RF-DETR's own post-processing, which upsamples the whole image, but nothing beyond the box, by a little, is the object's.
    """
    grow = _MARGIN * max(float(box[2] - box[0]), float(box[3] - box[1]))
    x0, y0, x1, y1 = clip_box(box + np.array([-grow, -grow, grow, grow]), height, width)
    mask = torch.zeros((height, width), dtype=torch.bool, device=logits.device)
    if logits.device.type == "cuda":  # what counts there is the number of kernels
        whole = F.interpolate(logits[None, None].float(), (height, width), mode="bilinear", align_corners=False)
        mask[y0:y1, x0:x1] = whole[0, 0, y0:y1, x0:x1] > 0
        return mask
    top, bottom, wy = bilinear_taps(logits.shape[0], height, logits.device, (y0, y1))
    left, right, wx = bilinear_taps(logits.shape[1], width, logits.device, (x0, x1))
    rows = torch.lerp(logits[top].float(), logits[bottom].float(), wy[:, None])
    mask[y0:y1, x0:x1] = torch.lerp(rows[:, left], rows[:, right], wx) > 0
    return mask


def masks_fit(logits: Tensor, boxes: Tensor) -> Tensor:
    """(K,) bool: whether each mask is one of the thing in its box: mostly within it, and more than a speck of it.

    logits: (K, h, w). boxes: (K, 4) x0, y0, x1, y1 as shares of the image. Fixed shapes, no wait for the device.
    """
    height, width = logits.shape[1:]
    y = (torch.arange(height, device=logits.device) + 0.5) / height
    x = (torch.arange(width, device=logits.device) + 0.5) / width
    boxes = boxes.float()
    # Half a pixel of the mask more on each side.
    in_y = (y > boxes[:, 1:2] - 0.5 / height) & (y < boxes[:, 3:4] + 0.5 / height)
    in_x = (x > boxes[:, 0:1] - 0.5 / width) & (x < boxes[:, 2:3] + 0.5 / width)
    on = (logits > 0).float()
    inside = (on * in_y[:, :, None] * in_x[:, None, :]).sum((1, 2))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * (height * width)
    return (inside >= _WITHIN * on.sum((1, 2))) & (inside >= _SPECK * area) & (inside >= 1)


def is_outline(mask: NDArray[np.bool_], box: NDArray[np.floating]) -> bool:
    """Whether a given mask (H, W) is more than its filled box (4,), which detectors without masks have drawn for them."""
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return float(np.count_nonzero(mask)) < _FILLED * area


def mask_box(mask: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Tight box (4,) x0, y0, x1, y1 (end exclusive) of a (H, W) mask; None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)
