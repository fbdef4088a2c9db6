"""Training batches for the detector: images kept on the device and shown again in ever new crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import warp as wp
from torch import Tensor

from ..synth.scene import SceneBatch
from ..warp_setup import launch
from .coco_source import CocoBatch
from .detector_kernels import color_crops, crop_scenes
from .detector_loss import Targets
from .detector_mask_loss import MaskTargets

# An instance with less than this share of its pixels in sight, or this few pixels in the network's image, is ignored.
MIN_VISIBILITY = 0.3
MIN_PIXELS = 40
# What lies outside the image that a crop is taken from has this grey level.
OUTSIDE = 110.0


class Source(Protocol):
    """Where images come from: SceneSampler renders them, CocoSource reads them. max_targets: most wanted instances."""

    size: tuple[int, int]
    device: torch.device
    max_targets: int
    names: tuple[str, ...]

    def sample(self, count: int) -> SceneBatch | CocoBatch: ...


@dataclass(frozen=True)
class DetectorBatch:
    """image: (B, 3, R, R) float32, normalized. kind: (B, R, R) int16, class of each pixel, -1 background. masks: of the
    targets whose outline is known."""

    image: Tensor
    kind: Tensor
    targets: Targets
    masks: MaskTargets


class ScenePool:
    """A ring of images. ``fill`` fetches new ones; ``draw`` is cheap, so an image is seen many times, each time
    cropped, squeezed and coloured otherwise. size: images held; slots: instances of wanted objects in a scene.
    """

    def __init__(self, source: Source, size: int, *, seed: int) -> None:
        height, width = source.size
        device = source.device
        self._source = source
        self._slots = source.max_targets
        self._rgb = torch.zeros((size, height, width, 3), dtype=torch.uint8, device=device)
        self._instance = torch.full((size, height, width), -1, dtype=torch.int8, device=device)
        self._label = torch.full((size, self._slots), -1, dtype=torch.int64, device=device)
        self._visibility = torch.zeros((size, self._slots), device=device)
        self._pixels = torch.zeros((size, self._slots), dtype=torch.int64, device=device)
        self._outlined = torch.zeros((size, self._slots), dtype=torch.bool, device=device)
        # Whose box is taken from ``_box``, not from the pixels: those without an outline, and those under the box of one.
        self._by_box = torch.zeros((size, self._slots), dtype=torch.bool, device=device)
        self._box = torch.zeros((size, self._slots, 4), device=device)
        self._sides = torch.tensor([width, height, width, height], device=device)
        self._generator = torch.Generator(device=device)
        self._generator.manual_seed(seed)
        self._next = 0
        self.filled = 0
        self.rendered = 0

    def fill(self, count: int) -> None:
        """Put ``count`` new images over the oldest ones."""
        batch = self._source.sample(count)
        rows = (torch.arange(count, device=self._rgb.device) + self._next) % len(self._rgb)
        self._rgb[rows] = batch.rgb
        instance = batch.instance.to(torch.int8)
        self._instance[rows] = instance
        self._pixels[rows] = torch.stack([(instance == t).sum((1, 2)) for t in range(self._slots)], 1)
        self._label[rows] = batch.label[:, : self._slots]
        self._visibility[rows] = batch.visibility[:, : self._slots]
        self._outlined[rows] = batch.outlined[:, : self._slots]
        by_box = ~batch.outlined | batch.covered if isinstance(batch, CocoBatch) else ~batch.outlined
        self._by_box[rows] = by_box[:, : self._slots]
        self._box[rows] = batch.box[:, : self._slots] / self._sides
        self._next = (self._next + count) % len(self._rgb)
        self.filled = min(self.filled + count, len(self._rgb))
        self.rendered += count

    def draw(self, count: int, size: int, mean: Tensor, std: Tensor, *, augment: bool = True) -> DetectorBatch:
        """A batch at the network's resolution; without ``augment`` the first ``count`` scenes as they are."""
        device, g = self._rgb.device, self._generator
        if augment:
            rows = torch.randint(self.filled, (count,), device=device, generator=g)
        else:
            rows = torch.arange(count, device=device) % self.filled
        window = _windows(count, self._rgb.shape[1:3], device, g) if augment else _whole(count, device)
        image = torch.empty((count, 3, size, size), device=device)
        ids = torch.empty((count, size, size), dtype=torch.int8, device=device)
        kind = torch.empty((count, size, size), dtype=torch.int16, device=device)
        sources = [wp.from_torch(t) for t in (self._rgb, self._instance, self._label, rows)]
        crops = wp.from_torch(window, dtype=wp.vec4f)
        outputs = [wp.from_torch(t) for t in (image, ids, kind)]
        launch(crop_scenes, ids.shape, [*sources, crops, OUTSIDE, *outputs], device)
        if augment:
            _color(image, mean, std, g)
        else:
            image = (image / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
        targets = self._targets(ids, rows, window)
        outlined = self._outlined[rows]
        boxed = ~outlined & (self._label[rows] >= 0)
        return DetectorBatch(image, kind, targets, MaskTargets(ids, targets.valid & outlined, boxed))

    def _targets(self, ids: Tensor, rows: Tensor, window: Tensor) -> Targets:
        size = ids.shape[-1]
        label, visibility = self._label[rows], self._visibility[rows]
        boxes, pixels = instance_boxes(ids, self._slots)
        # How much of the visible part the crop kept: its pixels here over those it had, at the crop's scale.
        height, width = self._rgb.shape[1:3]
        scale = (size / (window[:, 2] * width)) * (size / (window[:, 3] * height))
        had = self._pixels[rows] * scale[:, None]
        boxes = boxes / size
        cut, cut_area, whole_area = _cut(self._box[rows], window)
        by_box = self._by_box[rows]
        boxes = torch.where(by_box[..., None], cut, boxes)
        pixels = torch.where(by_box, cut_area * size**2, pixels)
        had = torch.where(by_box, whole_area * size**2, had)
        kept = pixels / had.clamp(min=1e-6)
        present = (pixels > 0) & (label >= 0)
        good = (pixels >= MIN_PIXELS) & (visibility * kept.clamp(max=1) >= MIN_VISIBILITY)
        return Targets(label, boxes, present & good, present & ~good)


def instance_boxes(ids: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Boxes (B, T, 4) cx, cy, w, h in pixels and pixel counts (B, T) of the instances 0 .. T - 1 of ids (B, R, R)."""
    columns, rows = [], []
    for t in range(slots):
        mask = ids == t
        columns.append(mask.any(1))
        rows.append(mask.sum(2))
    counts = torch.stack(rows, 1)
    x0, x1 = _extent(torch.stack(columns, 1))
    y0, y1 = _extent(counts > 0)
    return torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], -1), counts.sum(-1)


def _extent(present: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true index of each row (..., R), as float; 0, 1 where there is none."""
    size = present.shape[-1]
    numbers = torch.arange(size, device=present.device)
    low = torch.where(present, numbers, size).amin(-1)
    high = torch.where(present, numbers + 1, 0).amax(-1)
    none = high == 0
    return low.masked_fill(none, 0).float(), high.masked_fill(none, 1).float()


def _cut(boxes: Tensor, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, T, 4) x0, y0, x1, y1 in shares of the image, in a crop of it: cx, cy, w, h in shares of the crop of what lies inside;
    its area, and that of the whole box, in areas of the crop. window: (B, 4), see ``_windows``."""
    low, high = (
        (corner - window[:, None, :2]) / window[:, None, 2:] + 0.5 for corner in (boxes[..., :2], boxes[..., 2:])
    )
    inner_low, inner_high = low.clamp(0, 1), high.clamp(0, 1)
    side = inner_high - inner_low
    whole = high - low
    cut = torch.cat([(inner_low + inner_high) / 2, side], -1)
    return cut, side[..., 0] * side[..., 1], whole[..., 0] * whole[..., 1]


def _whole(count: int, device: torch.device) -> Tensor:
    return torch.tensor([0.5, 0.5, 1.0, 1.0], device=device).expand(count, 4)


def _windows(count: int, shape: torch.Size, device: torch.device, g: torch.Generator) -> Tensor:
    """(B, 4) centre x, y and width, height of the crops, in shares of the image.

    Half are the whole width at an aspect ratio between the scenes' own and 16:9, as cameras give it; the others zoom,
    from 0.4 of the image to 1.8 times it: small things are what takes longest to learn.
    """
    u = torch.rand((7, count), device=device, generator=g)
    own = shape[1] / shape[0]
    aspect = own + (max(16 / 9, own) - own) * u[0]
    full = u[1] < 0.5
    zoom = 0.4 * (1.8 / 0.4) ** u[2]
    width = torch.where(full, torch.ones_like(zoom), zoom)
    height = width * own / aspect * torch.where(full, torch.ones_like(zoom), 0.85 + 0.3 * u[3])
    free_x, free_y = (1 - width).abs() / 2, (1 - height).abs() / 2
    x = 0.5 + free_x * (2 * u[4] - 1) * torch.where(full, torch.zeros_like(zoom), torch.ones_like(zoom))
    y = 0.5 + free_y * (2 * u[5] - 1)
    return torch.stack([x, y, width, height], 1)


def _color(image: Tensor, mean: Tensor, std: Tensor, g: torch.Generator) -> None:
    """Random gain, contrast, white balance, saturation and noise, and normalization: image (B, 3, R, R), in place."""
    count, device = len(image), image.device
    u = torch.rand((4, count, 1), device=device, generator=g)
    balance = 0.9 + 0.2 * torch.rand((count, 3), device=device, generator=g)
    middle = image.mean((1, 2, 3))[:, None]
    look = torch.cat([0.7 + 0.6 * u[0], 0.75 + 0.5 * u[1], middle, 6 * u[3], balance * (0.6 + 0.8 * u[2])], 1)
    noise = torch.randn(image.shape, device=device, generator=g)
    arrays = [wp.from_torch(t) for t in (image, noise, look, mean, std)]
    launch(color_crops, (count, *image.shape[2:]), arrays, device)
