"""How well a detector finds the instances of generated scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..detect.predictor import RawDetections
from ..detect.rfdetr_detector import RfDetrDetector
from ..synth.batch_frames import host_frames, instance_pixels
from ..types import Frame
from .detector_data import MIN_PIXELS, MIN_VISIBILITY, Source

MATCH_IOU = 0.5


@dataclass(frozen=True)
class Truth:
    """names: (M,) object of each instance. boxes: (M, 4) pixels of what is visible. counted: (M,) bool; the others
    are too small or too hidden to be asked for. masks: (M, H, W) bool, what is visible, of those that are outlined (M,)
    bool; the others' are boxes, or what no smaller thing covers of them."""

    names: list[str]
    boxes: NDArray[np.float32]
    counted: NDArray[np.bool_]
    masks: NDArray[np.bool_]
    outlined: NDArray[np.bool_]

    @cached_property
    def boxed(self) -> NDArray[np.bool_]:
        """(H, W) bool, pixels of those boxes: what they show is not known, so that no mask is judged there."""
        return np.asarray(self.masks[~self.outlined].any(0), dtype=bool)


def scenes(source: Source, count: int, names: Sequence[str] = (), chunk: int = 8) -> Iterator[tuple[Frame, Truth]]:
    """Frames on the host with their truth. names: what to call the source's classes, by default as it does."""
    names = names or source.names
    made = 0
    while made < count:
        batch = source.sample(min(chunk, count - made))
        height, width = source.size
        label, box, visibility = (t.cpu().numpy() for t in (batch.label, batch.box, batch.visibility))
        instance, outlined = batch.instance.cpu().numpy(), batch.outlined.cpu().numpy()
        pixels = instance_pixels(batch)
        frames = host_frames(batch, made)
        for i, frame in enumerate(frames):
            wanted = np.flatnonzero((label[i] >= 0) & (pixels[i] > 0))
            counted = asked_for(visibility[i][wanted], pixels[i][wanted], height * width)
            masks = instance[i] == wanted[:, None, None]
            named = [names[label[i][m]] for m in wanted]
            yield frame, Truth(named, box[i][wanted], counted, masks, outlined[i][wanted])
        made += len(frames)


def asked_for(visibility: NDArray[np.floating], pixels: NDArray[np.integer], area: int) -> NDArray[np.bool_]:
    """Which instances are to be found, as in training. visibility, pixels: of each. area: pixels of the image.

    Pixels count as in the network's 384 x 384 image, so that the bar does not depend on the camera.
    """
    return (visibility >= MIN_VISIBILITY) & (pixels * (384 * 384 / area) >= MIN_PIXELS)


@dataclass(frozen=True)
class Evaluation:
    """metrics: figures over all classes. by_class: class -> its figures. pictures: the first images with what was found,
    (H, W, 3) uint8 RGB: green right, red false, yellow missed."""

    metrics: dict[str, float]
    by_class: dict[str, dict[str, float]]
    pictures: list[NDArray[np.uint8]]

    def as_dict(self) -> dict[str, Any]:
        return {**self.metrics, "by_class": self.by_class}


def evaluate(
    detector: RfDetrDetector,
    images: Iterable[tuple[Frame, Truth]],
    threshold: float = 0.5,
    *,
    pictures: int = 0,
    advance: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Recall and precision at IoU 0.5, mean IoU of the right ones, the threshold of the best F1, and mAP as COCO has it.

    Of a detector that finds masks also their mAP, and the IoU that half (``mask_iou_p50``) and all but a tenth
    (``mask_iou_p10``) of the masks of right detections exceed. The classes are those of the detector that are objects.
    advance: gets the number of images done.
    """
    names = list(detector.class_objects.values())
    boxes = _Boxes(names, threshold)
    outlines = _Outlines(names, threshold) if detector.mask_kind == "instance" else None
    drawn: list[NDArray[np.uint8]] = []
    for done, (frame, truth) in enumerate(images, 1):
        raw = detector.raw(frame)
        found = match(raw, detector.class_objects, truth)
        boxes.add(found, truth)
        masks = None
        if outlines is not None:
            masks = detector.masks(raw, [m.row for m in found], frame, own=True)
            outlines.add(found, masks, truth)
        if len(drawn) < pictures:
            drawn.append(_draw(frame, truth, found, threshold, masks, detector.object_labels))
        advance(done)
    metrics, by_class = boxes.figures()
    if outlines is not None:
        of_masks, of_classes = outlines.figures()
        metrics |= of_masks
        for name, values in of_classes.items():
            by_class[name] |= values
    return Evaluation(metrics, by_class, drawn)


class _Boxes:
    """What was found, and what was to be found, in the images so far."""

    def __init__(self, names: Sequence[str], threshold: float) -> None:
        from supervision.metrics import MeanAveragePrecision

        self._names = names
        self._threshold = threshold
        self._rows: dict[str, list[tuple[float, bool]]] = {name: [] for name in names}
        self._wanted = dict.fromkeys(names, 0)
        self._overlaps: list[float] = []
        self._images = 0
        self._precision = MeanAveragePrecision()

    def add(self, found: Sequence[Match], truth: Truth) -> None:
        self._images += 1
        for name, counted in zip(truth.names, truth.counted, strict=True):
            if name in self._wanted:
                self._wanted[name] += bool(counted)
        for m in found:
            self._rows[m.object].append((m.score, m.right))
        self._overlaps += [m.iou for m in found if m.right]
        self._precision.update(_detections(found, self._names), _wanted(truth, self._names))

    def figures(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Of all classes, and by class."""
        scored = [row for rows in self._rows.values() for row in rows]
        total = sum(self._wanted.values())
        metrics = _figures(scored, total, self._images, self._threshold)
        metrics["mean_iou"] = float(np.mean(self._overlaps)) if self._overlaps else 0.0
        scores, right = np.array([s for s, _ in scored]), np.array([r for _, r in scored], dtype=bool)
        best = max(((_f1(scores, right, total, t), t) for t in np.arange(0.05, 0.96, 0.05)), default=(0.0, 0.0))
        metrics |= {"best_f1": best[0], "best_threshold": float(best[1])}
        by_class = {n: _figures(self._rows[n], self._wanted[n], self._images, self._threshold) for n in self._names}
        if total:
            average, averages = _average_precision(self._precision, self._names, "")
            metrics |= average
            for name, values in averages.items():
                by_class[name] |= values
        return metrics, by_class


class _Outlines:
    """The same of masks, by the instances whose outline is known."""

    def __init__(self, names: Sequence[str], threshold: float) -> None:
        from supervision.metrics import MeanAveragePrecision, MetricTarget

        self._names = names
        self._threshold = threshold
        self._outlined = 0
        self._overlaps: list[float] = []
        self._precision = MeanAveragePrecision(metric_target=MetricTarget.MASKS)

    def add(self, found: Sequence[Match], masks: NDArray[np.bool_], truth: Truth) -> None:
        """masks: (N, H, W) of what was found."""
        masks = masks & ~truth.boxed
        self._outlined += int((truth.counted & truth.outlined).sum())
        judged = np.array([m.instance < 0 or truth.outlined[m.instance] for m in found], dtype=bool)
        self._precision.update(
            _detections([m for m, j in zip(found, judged, strict=True) if j], self._names, _smaller(masks[judged])),
            _wanted(truth, self._names, masks=True),
        )
        self._overlaps += [
            mask_iou(mask, truth.masks[m.instance])
            for m, mask in zip(found, masks, strict=True)
            if m.right and m.score >= self._threshold and truth.outlined[m.instance]
        ]

    def figures(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Of all classes, and by class; nothing where nothing was to be judged."""
        metrics = {f"mask_iou_p{p}": float(np.percentile(self._overlaps, p)) for p in (50, 10) if self._overlaps}
        if not self._outlined:
            return metrics, {}
        average, averages = _average_precision(self._precision, self._names, "mask_")
        return metrics | average, averages


def _average_precision(
    metric: Any, names: Sequence[str], prefix: str
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """mAP of supervision's MeanAveragePrecision over all classes, and by class."""
    result = metric.compute()
    by_class = {
        names[int(index)]: {f"{prefix}ap_50": float(values[0]), f"{prefix}ap_50_95": float(np.mean(values))}
        for index, values in zip(result.matched_classes, result.ap_per_class, strict=True)
    }
    return {f"{prefix}map_50": float(result.map50), f"{prefix}map_50_95": float(result.map50_95)}, by_class


def _figures(rows: Sequence[tuple[float, bool]], wanted: int, images: int, threshold: float) -> dict[str, float]:
    scores, right = np.array([s for s, _ in rows]), np.array([r for _, r in rows], dtype=bool)
    at = scores >= threshold
    return {
        "scenes": float(images),
        "instances": float(wanted),
        "recall": float((right & at).sum() / max(wanted, 1)),
        "precision": float((right & at).sum() / max(at.sum(), 1)),
        "false_per_scene": float((~right & at).sum() / max(images, 1)),
    }


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks (H, W), 0 where both are empty."""
    return int((a & b).sum()) / max(int((a | b).sum()), 1)


def _detections(found: Sequence[Match], names: Sequence[str], masks: NDArray[np.bool_] | None = None) -> Any:
    from supervision import Detections

    return Detections(
        xyxy=np.array([m.box for m in found], np.float64).reshape(-1, 4),
        confidence=np.array([m.score for m in found], np.float64),
        class_id=np.array([names.index(m.object) for m in found], np.int64),
        mask=masks,
    )


def _smaller(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Every second pixel: the metric keeps the masks of all images to its end."""
    return masks[:, ::2, ::2]


def _wanted(truth: Truth, names: Sequence[str], *, masks: bool = False) -> Any:
    from supervision import Detections

    kept = np.flatnonzero(truth.counted & truth.outlined if masks else truth.counted)
    return Detections(
        xyxy=truth.boxes[kept].astype(np.float64).reshape(-1, 4),
        class_id=np.array([names.index(truth.names[i]) for i in kept], np.int64),
        mask=_smaller(truth.masks[kept]) if masks else None,
    )


def _draw(
    frame: Frame,
    truth: Truth,
    found: Sequence[Match],
    threshold: float,
    masks: NDArray[np.bool_] | None,
    labels: Mapping[str, str],
) -> NDArray[np.uint8]:
    picture = frame.rgb.copy()
    shown = [m for m in found if m.score >= threshold]
    for m, mask in zip(found, () if masks is None else masks, strict=False):
        if m.score >= threshold:
            outlines = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(picture, outlines, -1, (255, 255, 255), 1)
    hit = {m.instance for m in shown if m.right}
    for i, box in enumerate(truth.boxes):
        if truth.counted[i] and i not in hit:
            draw_box(picture, box, f"missed {labels.get(truth.names[i], truth.names[i])}", (255, 210, 0))
    for m in shown:
        draw_box(picture, m.box, f"{labels[m.object]} {m.score:.2f}", (60, 230, 60) if m.right else (255, 60, 60))
    return picture


def draw_box(picture: NDArray[np.uint8], box: NDArray[np.floating], text: str, color: tuple[int, int, int]) -> None:
    """A box (4,) x0, y0, x1, y1 with a line of text, into the picture."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    cv2.rectangle(picture, (x0, y0), (x1, y1), color, 2)
    cv2.putText(picture, text, (x0 + 2, max(y0 - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, text, (x0 + 2, max(y0 - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1, cv2.LINE_AA)


def _f1(scores: NDArray[np.float64], right: NDArray[np.bool_], wanted: int, threshold: float) -> float:
    at = scores >= threshold
    hits = float((right & at).sum())
    return 2 * hits / max(float(at.sum()) + wanted, 1.0)


@dataclass(frozen=True)
class Match:
    """A row of the detector, the ``row``-th. right: it found a counted instance, whose index in the truth is ``instance``
    (else -1)."""

    object: str
    box: NDArray[np.floating]
    score: float
    right: bool
    iou: float
    instance: int
    row: int


def match(raw: RawDetections, objects: dict[int, str], truth: Truth, floor: float = 0.05) -> list[Match]:
    """Greedy matching, best score first, of the rows above ``floor``.

    Rows on instances that are not counted are left out, as are second rows on one of those.
    """
    rows: list[Match] = []
    taken = np.zeros(len(truth.names), dtype=bool)
    for row, (box, score, index) in enumerate(zip(raw.boxes, raw.scores, raw.classes, strict=True)):
        if score < floor:
            continue
        name = objects[int(index)]
        same = np.array([n == name for n in truth.names], dtype=bool)
        overlap = np.where(same, pair_ious(box[None], truth.boxes)[0], 0.0) if len(same) else np.zeros(0)
        free = np.where(taken & truth.counted, 0.0, overlap)
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= MATCH_IOU:
            if truth.counted[best]:
                taken[best] = True
                rows.append(Match(name, box, float(score), True, float(free[best]), best, row))
            continue
        rows.append(Match(name, box, float(score), False, 0.0, -1, row))
    return rows


def pair_ious(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, M) IoU of corner boxes (N, 4) and (M, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(-1) for x in (a, b))
    result: NDArray[np.float64] = inter / np.maximum(area_a[:, None] + area_b[None] - inter, 1e-9)
    return result
