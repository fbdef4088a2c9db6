"""Image on the device in, detections on the device out; one small copy back. The same numbers as rfdetr's predict()."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..accel.graph import GraphedProgram
from .backends import Network
from .masks import bilinear_taps, box_depths, masks_fit

# The packed result has these columns: x0, y0, x1, y1, score, class, query, depth; with masks also whether the mask fits.
_COLUMNS = 8


@dataclass(frozen=True)
class RawDetections:
    """Host copy, best first. boxes (K, 4) pixels, scores (K,), classes (K,) and queries (K,) int, depths (K,) metres
    with NaN for none, best (C,) highest score of each class; mask_logits (Q, h, w) still on the device, or None; mask_fits (K,)
    bool, whether the query's mask is one of the thing in the box, or None."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    queries: NDArray[np.int64]
    depths: NDArray[np.float32]
    best: NDArray[np.float32]
    mask_logits: Tensor | None
    mask_fits: NDArray[np.bool_] | None = None


class Sampler:
    """Bilinear resize of an (H, W, 3) uint8 image to (1, 3, R, R), as torch does without antialiasing, and ImageNet
    normalization. Only the four pixels that each output pixel needs are read."""

    def __init__(
        self, height: int, width: int, size: int, means: Sequence[float], stds: Sequence[float], device: torch.device
    ) -> None:
        self.shape = (height, width)
        self._y0, self._y1, wy = bilinear_taps(height, size, device)
        self._x0, self._x1, wx = bilinear_taps(width, size, device)
        self._wy, self._wx = wy[:, None, None], wx[None, :, None]
        std = torch.tensor(stds, device=device) * 255
        self.box_scale = torch.tensor([width, height, width, height], dtype=torch.float32, device=device)
        self._scale, self._offset = 1 / std, torch.tensor(means, device=device) * 255 / std

    def __call__(self, rgb: Tensor, dtype: torch.dtype) -> Tensor:
        top, bottom = rgb[self._y0], rgb[self._y1]
        upper = torch.lerp(top[:, self._x0].float(), top[:, self._x1].float(), self._wx)
        lower = torch.lerp(bottom[:, self._x0].float(), bottom[:, self._x1].float(), self._wx)
        image = torch.lerp(upper, lower, self._wy) * self._scale - self._offset
        return image.permute(2, 0, 1)[None].to(dtype).contiguous()


class Predictor:
    """The detector's device program for one image size; with ``network.graph`` replayed as one CUDA graph.

    classes: indices of the network's classes that matter; all others, and the no-object column, are left out.
    """

    def __init__(
        self,
        network: Network,
        *,
        size: int,
        means: Sequence[float],
        stds: Sequence[float],
        classes: Sequence[int],
        select: int,
        device: torch.device,
    ) -> None:
        self._network = network
        self._size, self._means, self._stds, self._select = size, means, stds, select
        self._classes = torch.tensor(list(classes), device=device)
        self._device = device
        self._sampler: Sampler | None = None
        self._program: GraphedProgram | None = None
        self._rgb = self._depth = torch.empty(0, device=device)
        self._host = torch.empty(0)
        self.degraded = ""

    def prepare(self, height: int, width: int) -> None:
        """Build the program for an image size; on CUDA it is warmed up, and captured where that was asked for."""
        self._sampler = Sampler(height, width, self._size, self._means, self._stds, self._device)
        self._program = None
        self._rgb = torch.zeros((height, width, 3), dtype=torch.uint8, device=self._device)
        self._depth = torch.zeros((height, width), device=self._device)
        if self._device.type == "cuda":
            self._choose_algorithms()
        if self._network.graph:
            program = GraphedProgram(
                lambda: self._body(self._rgb, self._depth),
                self._device,
                name="detector",
            )
            program.prepare((height, width))
            self._program = program
            self.degraded = program.degraded

    def _choose_algorithms(self) -> None:
        """The shapes are fixed from here on, so cuDNN may look for its fastest algorithms; it remembers them."""
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            with torch.inference_mode():
                for _ in range(3):
                    self._body(self._rgb, self._depth)
        finally:
            torch.backends.cudnn.benchmark = before

    @property
    def captured(self) -> bool:
        return self._program is not None and self._program.captured

    def __call__(self, rgb: Tensor, depth: Tensor) -> RawDetections:
        """rgb: (H, W, 3) uint8, depth: (H, W) float32 metres, on the device. Waits once, for the small result."""
        return self.start(rgb, depth)()

    @torch.inference_mode()
    def start(self, rgb: Tensor, depth: Tensor) -> Callable[[], RawDetections]:
        """Enqueue on the current stream; the returned function waits for the result, and is to be called before the
        next start."""
        if self._sampler is None or self._sampler.shape != tuple(depth.shape):
            self.prepare(*depth.shape)
        if self._program is not None:
            self._rgb.copy_(rgb)
            self._depth.copy_(depth)
            packed, mask_logits = self._program.replay()
        else:
            packed, mask_logits = self._body(rgb, depth)
        if self._device.type != "cuda":
            return lambda: self._unpack(packed.numpy(), mask_logits)
        if self._host.shape != packed.shape:
            self._host = torch.empty(packed.shape, pin_memory=True)
        self._host.copy_(packed, non_blocking=True)
        done = torch.cuda.current_stream(self._device).record_event()

        def finish() -> RawDetections:
            done.synchronize()
            return self._unpack(self._host.numpy(), mask_logits)

        return finish

    def _body(self, rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor | None]:
        assert self._sampler is not None
        boxes, logits, *masks = self._network.forward(self._sampler(rgb, self._network.dtype))
        scores = logits[0].float().sigmoid().index_select(1, self._classes)
        count = min(self._select, scores.numel())
        values, flat = scores.flatten().topk(count)
        query = flat.div(scores.shape[1], rounding_mode="floor")
        center, extent = boxes[0].float().index_select(0, query).split(2, dim=1)
        shares = torch.cat([center - extent / 2, center + extent / 2], dim=1).clamp(0, 1)
        pixels = shares * self._sampler.box_scale
        columns = [values, self._classes[flat % scores.shape[1]].float(), query.float(), box_depths(pixels, depth)]
        if masks:
            columns.append(masks_fit(masks[0][0].index_select(0, query), shares).float())
        packed = torch.cat([pixels, torch.stack(columns, dim=1)], dim=1)
        return torch.cat([packed.flatten(), scores.amax(0)]), masks[0][0] if masks else None

    def _unpack(self, packed: NDArray[np.float32], mask_logits: Tensor | None) -> RawDetections:
        width = _COLUMNS + (mask_logits is not None)
        count = (packed.size - len(self._classes)) // width
        table = packed[: count * width].reshape(count, width)
        return RawDetections(
            boxes=table[:, :4].copy(),
            scores=table[:, 4].copy(),
            classes=table[:, 5].astype(np.int64),
            queries=table[:, 6].astype(np.int64),
            depths=table[:, 7].copy(),
            best=packed[count * width :].copy(),
            mask_logits=mask_logits,
            mask_fits=None if mask_logits is None else table[:, 8] > 0.5,
        )
