"""RF-DETR as a detector of the objects in objects.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..accel.base import EngineOptions
from ..config import DetectorConfig
from ..device_frame import DeviceFrame, Uploader
from ..objects import ObjectSpec
from ..types import CameraIntrinsics, Detection, Frame, as_numpy
from . import backends
from .checkpoint import LoadedModel
from .classes import map_classes, thresholds
from .detector import DetectionReport, DetectorError
from .masks import box_depths, box_mask, depth_mask, instance_mask, masks_fit
from .predictor import Predictor, RawDetections


class RfDetrDetector:
    """Runs a loaded RF-DETR at a backend of the fallback order; see backends.build.

    half_on_cpu: see backends.build. Raises DetectorError when labels are no classes of the model, or a mask is asked for that it cannot give.
    """

    source = "rf-detr"

    def __init__(
        self,
        loaded: LoadedModel,
        specs: Sequence[ObjectSpec],
        config: DetectorConfig,
        device: torch.device,
        *,
        engines: EngineOptions | None = None,
        half_on_cpu: bool = False,
    ) -> None:
        self.weights = loaded.description
        self.model = loaded.model
        self._map = map_classes(loaded.class_names, specs, loaded.description)
        self._specs = list(specs)
        self._device = device
        has_masks = bool(getattr(self.model.model_config, "segmentation_head", False))
        self._mask = _mask_kind(config.mask, has_masks, loaded.description)
        self.apply(config)
        self._network = backends.build(self.model, config.backend, device, engines=engines, half_on_cpu=half_on_cpu)
        self._predictor = Predictor(
            self._network,
            size=self.model.model.resolution,
            means=self.model.means,
            stds=self.model.stds,
            classes=list(self._map.objects),
            select=self.model.model_config.num_select,
            device=device,
        )

    @property
    def backend(self) -> str:
        """The backend that runs; "traced" instead of "cuda_graph" when the capture failed."""
        if self._network.backend == "cuda_graph" and self._predictor.degraded:
            return "traced"
        return self._network.backend

    @property
    def degraded(self) -> list[str]:
        """Why it does not run as it was asked to; a failed capture is known after ``warm_up``."""
        return [reason for reason in (self._network.degraded, self._predictor.degraded) if reason]

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's input and weights."""
        return self._network.dtype

    @property
    def class_objects(self) -> dict[int, str]:
        """Network class index -> object name."""
        return dict(self._map.objects)

    @property
    def object_labels(self) -> dict[str, str]:
        """Object name -> class name of the network."""
        return {name: self._map.labels[index] for index, name in self._map.objects.items()}

    def apply(self, config: DetectorConfig) -> None:
        """Take new thresholds."""
        self._thresholds = thresholds(self._specs, config.threshold)

    def warm_up(self, camera: CameraIntrinsics) -> None:
        """Run the whole path at the camera's size; on CUDA this captures the graph."""
        rgb = torch.zeros((camera.height, camera.width, 3), dtype=torch.uint8, device=self._device)
        depth = torch.zeros((camera.height, camera.width), device=self._device)
        if self.backend == "reference":
            self._predict(rgb.cpu().numpy(), depth)
            return
        for _ in range(3):
            self._predictor(rgb, depth)

    def detect(self, frame: DeviceFrame) -> DetectionReport:
        """Detections above their object's threshold, with masks and depths."""
        return self.start(frame)()

    def start(self, frame: DeviceFrame) -> Callable[[], DetectionReport]:
        """See OverlappingDetector."""
        if self.backend == "reference":
            raw = self._predict(as_numpy(frame.frame.rgb), frame.depth)
            return lambda: self._report(raw, frame)
        finish = self._predictor.start(frame.rgb, frame.depth)
        return lambda: self._report(finish(), frame)

    def _report(self, raw: RawDetections, frame: DeviceFrame) -> DetectionReport:
        detections = list(self._above(raw, frame))
        found = {d.object for d in detections}
        best = {
            name: float(b) for name, b in zip(self._map.objects.values(), raw.best, strict=True) if name not in found
        }
        return DetectionReport(detections, best, dict(self._thresholds))

    def _above(self, raw: RawDetections, frame: DeviceFrame) -> Iterator[Detection]:
        for i, (index, score) in enumerate(zip(raw.classes, raw.scores, strict=True)):
            name = self._map.objects[int(index)]
            if score < self._thresholds[name]:
                continue
            box = raw.boxes[i]
            if not (box[2] - box[0] >= 1 and box[3] - box[1] >= 1):
                continue
            depth = float(raw.depths[i]) if np.isfinite(raw.depths[i]) else None
            mask, outlined = self._make_mask(raw, i, frame)
            yield Detection(
                object=name,
                label=self._map.labels[int(index)],
                score=float(score),
                box=box,
                mask=mask,
                source=self.source,
                depth=depth,
                outlined=outlined,
            )

    def _make_mask(self, raw: RawDetections, i: int, frame: DeviceFrame) -> tuple[Tensor, bool]:
        """(H, W) bool, and whether it is an outline. An instance mask that does not fit its box gives way to depth."""
        height, width = frame.rgb.shape[:2]
        if self._mask == "box":
            return box_mask(raw.boxes[i], height, width, self._device), False
        if self._mask == "instance" and raw.mask_logits is not None and raw.mask_fits is not None and raw.mask_fits[i]:
            return instance_mask(raw.mask_logits[int(raw.queries[i])], raw.boxes[i], height, width), True
        depth = float(raw.depths[i]) if np.isfinite(raw.depths[i]) else None
        return depth_mask(raw.boxes[i], depth, frame.depth, frame.camera), False

    @property
    def mask_kind(self) -> str:
        """ "instance", "box" or "box-depth"."""
        return self._mask

    def masks(self, raw: RawDetections, rows: Sequence[int], frame: Frame, *, own: bool = False) -> NDArray[np.bool_]:
        """(N, H, W): the masks that detections of these rows have, for measurements. own: those of the network, whether they
        fit their boxes or not."""
        if own:
            raw = replace(raw, mask_fits=np.ones(len(raw.scores), bool))
        on_device = Uploader(self._device)(frame)
        found = [self._make_mask(raw, i, on_device)[0].cpu().numpy() for i in rows]
        return np.stack(found) if found else np.zeros((0, *frame.depth.shape), bool)

    def _predict(self, rgb: np.ndarray, depth: Tensor) -> RawDetections:
        """rfdetr's own predict(), as the reference that the hot path is held to. rgb: (H, W, 3) uint8 on the host."""
        found: Any = self.model.predict(rgb, threshold=0.0, include_source_image=False)
        keep = np.isin(found.class_id, list(self._map.objects))
        boxes, scores, classes = found.xyxy[keep], found.confidence[keep], found.class_id[keep]
        best = [float(scores[classes == index].max(initial=0.0)) for index in self._map.objects]
        depths = box_depths(torch.from_numpy(boxes).to(depth.device), depth).cpu().numpy()
        masks = fits = None
        if found.mask is not None:
            # predict() has thresholded them already; +1 / -1 are logits that say the same.
            masks = torch.from_numpy(found.mask[keep]).to(depth.device, torch.float32) * 2 - 1
            shares = torch.from_numpy(boxes / np.array([*rgb.shape[1::-1]] * 2)).to(depth.device)
            fits = masks_fit(masks, shares).cpu().numpy()
        return RawDetections(
            boxes=boxes.astype(np.float32),
            scores=scores.astype(np.float32),
            classes=classes.astype(np.int64),
            queries=np.arange(len(classes)),
            depths=depths,
            best=np.asarray(best, np.float32),
            mask_logits=masks,
            mask_fits=fits,
        )

    def raw(self, frame: Frame) -> RawDetections:
        """All selected rows of one host frame, whatever their score: for validation and benchmarks."""
        depth = torch.from_numpy(np.nan_to_num(frame.depth.astype(np.float32) * frame.depth_scale)).to(self._device)
        if self.backend == "reference":
            return self._predict(frame.rgb, depth)
        return self._predictor(torch.from_numpy(frame.rgb).to(self._device), depth)


def _mask_kind(asked: str, has_masks: bool, weights: str) -> str:
    if asked == "auto":
        return "instance" if has_masks else "box-depth"
    if asked == "instance" and not has_masks:
        raise DetectorError(
            f"detector.mask=instance needs a segmentation variant (seg-nano, ...), but {weights} finds boxes only; "
            "use detector.mask=box-depth"
        )
    return asked
