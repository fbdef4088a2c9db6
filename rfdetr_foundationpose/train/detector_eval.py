"""How well a detector finds the instances of generated scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    are too small or too hidden to be asked for."""

    names: list[str]
    boxes: NDArray[np.float32]
    counted: NDArray[np.bool_]


def scenes(source: Source, count: int, names: Sequence[str] = (), chunk: int = 8) -> Iterator[tuple[Frame, Truth]]:
    """Frames on the host with their truth. names: what to call the source's classes, by default as it does."""
    names = names or source.names
    made = 0
    while made < count:
        batch = source.sample(min(chunk, count - made))
        height, width = source.size
        label, box, visibility = (t.cpu().numpy() for t in (batch.label, batch.box, batch.visibility))
        pixels = instance_pixels(batch)
        frames = host_frames(batch, made)
        for i, frame in enumerate(frames):
            wanted = np.flatnonzero((label[i] >= 0) & (pixels[i] > 0))
            counted = asked_for(visibility[i][wanted], pixels[i][wanted], height * width)
            yield frame, Truth([names[label[i][m]] for m in wanted], box[i][wanted], counted)
        made += len(frames)


def asked_for(visibility: NDArray[np.floating], pixels: NDArray[np.integer], area: int) -> NDArray[np.bool_]:
    """Which instances are to be found, as in training. visibility, pixels: of each. area: pixels of the image.

    Pixels count as in the network's 384 x 384 image, so that the bar does not depend on the camera.
    """
    return (visibility >= MIN_VISIBILITY) & (pixels * (384 * 384 / area) >= MIN_PIXELS)


def evaluate(
    detector: RfDetrDetector, source: Source, count: int, names: Sequence[str] = (), threshold: float = 0.5
) -> dict[str, float]:
    """Recall and precision at IoU 0.5 over ``count`` images, their mean IoU, and the threshold of the best F1.

    names: object of each class of the source, by default the class's own name.
    """
    rows: list[tuple[float, bool]] = []
    overlaps: list[float] = []
    wanted = 0
    for frame, truth in scenes(source, count, names):
        raw = detector.raw(frame)
        wanted += int(truth.counted.sum())
        found, ious = match(raw, detector.class_objects, truth)
        rows += found
        overlaps += ious
    scores = np.array([s for s, _ in rows])
    right = np.array([r for _, r in rows], dtype=bool)
    at = scores >= threshold
    metrics = {
        "scenes": float(count),
        "instances": float(wanted),
        "recall": float((right & at).sum() / max(wanted, 1)),
        "precision": float((right & at).sum() / max(at.sum(), 1)),
        "mean_iou": float(np.mean(overlaps)) if overlaps else 0.0,
        "false_per_scene": float((~right & at).sum() / count),
    }
    best = max(((_f1(scores, right, wanted, t), t) for t in np.arange(0.05, 0.96, 0.05)), default=(0.0, 0.0))
    return metrics | {"best_f1": best[0], "best_threshold": float(best[1])}


def _f1(scores: NDArray[np.float64], right: NDArray[np.bool_], wanted: int, threshold: float) -> float:
    at = scores >= threshold
    hits = float((right & at).sum())
    return 2 * hits / max(float(at.sum()) + wanted, 1.0)


def match(
    raw: RawDetections, objects: dict[int, str], truth: Truth, floor: float = 0.05
) -> tuple[list[tuple[float, bool]], list[float]]:
    """Greedy matching, best score first: (score, is right) of each row above ``floor``, and the IoU of the right ones.

    Rows on instances that are not counted are left out, as are second rows on one of those.
    """
    rows: list[tuple[float, bool]] = []
    ious: list[float] = []
    taken = np.zeros(len(truth.names), dtype=bool)
    for box, score, index in zip(raw.boxes, raw.scores, raw.classes, strict=True):
        if score < floor:
            continue
        same = np.array([n == objects[int(index)] for n in truth.names], dtype=bool)
        overlap = np.where(same, pair_ious(box[None], truth.boxes)[0], 0.0) if len(same) else np.zeros(0)
        free = np.where(taken & truth.counted, 0.0, overlap)
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= MATCH_IOU:
            if truth.counted[best]:
                taken[best] = True
                rows.append((float(score), True))
                ious.append(float(free[best]))
            continue
        rows.append((float(score), False))
    return rows, ious


def pair_ious(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, M) IoU of corner boxes (N, 4) and (M, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(-1) for x in (a, b))
    result: NDArray[np.float64] = inter / np.maximum(area_a[:, None] + area_b[None] - inter, 1e-9)
    return result
