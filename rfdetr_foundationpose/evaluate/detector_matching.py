"""Which instance each detection found, and what those that found none lie on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..detect.masks import clip_box
from ..train.detector_eval import MATCH_IOU, pair_ious

WRONG_IOU = 0.3
"""A detection that overlaps an instance of its object by more is loose, not on a wrong thing. Two detections of consecutive
frames that overlap by more are one chain."""
PART_INSIDE, PART_PIXELS = 0.7, 0.25
"""A detection shows a part of an instance of its object when this share of it lies in that one's box, and that one's visible
pixels fill this share of it."""
Box = NDArray[np.floating]


def match(
    rows: Sequence[tuple[str, Box, float]],
    names: Sequence[str],
    boxes: Box,
    counted: Sequence[bool],
    masks: Sequence[NDArray[np.bool_]] = (),
) -> tuple[dict[int, tuple[float, float, int]], list[tuple[str, Box, float, str]]]:
    """Greedy matching, best score first, which is the same at every threshold.

    rows: (object, box (4,), score). names, boxes (M, 4), counted: the true instances. Returns instance -> (score, IoU, number of
    the row) of those that count and were found, and (object, box, score, on) of the false rows. Rows on instances that do not count
    are neither. masks: (H, W) visible pixels of each instance; without them no part is told from a wrong thing.
    """
    found: dict[int, tuple[float, float, int]] = {}
    false = []
    for number, (name, box, score) in enumerate(rows):
        overlap = pair_ious(box[None], boxes)[0] if len(boxes) else np.zeros(0)
        own = np.array([o if n == name else 0.0 for o, n in zip(overlap, names, strict=True)])
        free = np.array([0.0 if i in found else o for i, o in enumerate(own)])
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= MATCH_IOU:
            if counted[best]:
                found[best] = score, float(free[best]), number
            continue
        on = ""
        if own.max(initial=0.0) >= WRONG_IOU:
            on = "loose"
        elif any(n == name and _part(box, b, m) for n, b, m in zip(names, boxes, masks, strict=False)):
            on = "part"
        elif overlap.max(initial=0.0) >= WRONG_IOU:
            on = names[int(overlap.argmax())]
        false.append((name, box, score, on))
    return found, false


def _part(box: Box, whole: Box, mask: NDArray[np.bool_]) -> bool:
    """Whether a box shows a part of an instance of which ``whole`` is the box and ``mask`` what is visible."""
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    width, height = min(box[2], whole[2]) - max(box[0], whole[0]), min(box[3], whole[3]) - max(box[1], whole[1])
    if area <= 0 or width <= 0 or height <= 0 or width * height < PART_INSIDE * area:
        return False
    x0, y0, x1, y1 = clip_box(box, *mask.shape)
    return int(mask[y0:y1, x0:x1].sum()) >= PART_PIXELS * area
