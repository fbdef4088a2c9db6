"""A faster way to run RF-DETR held against FP32 predict(), on generated images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import DetectorConfig
from ..detect.checkpoint import load_model
from ..detect.predictor import RawDetections
from ..detect.rfdetr_detector import RfDetrDetector
from ..device import matmul_precision
from ..objects import ObjectSpec
from ..pose.mesh import load_object
from ..synth.scene import SceneSampler
from ..train.detector_eval import pair_ious, scenes

IMAGE_SIZE = (720, 1280)
# Two backends agree when the 95th percentile of the differences of their boxes (px), the 99th of those of their scores, and
# the share of detections that both have are within these.
MAX_BOX_P95 = 2.0
MAX_SCORE_P99 = 0.02
MIN_AGREEMENT = 0.99
# Detections of two runs are the same when their boxes overlap by this much (IoU).
_SAME_IOU = 0.5


@dataclass(frozen=True)
class Comparison:
    """reference, candidate: how each was run. box_*: largest coordinate difference of a pair, pixels of a 1280 x 720
    image. agreement: share of the detections above threshold in either run that both have."""

    reference: str
    candidate: str
    device: str
    weights: str
    images: int
    detections: int
    threshold: float
    box_p50: float
    box_p95: float
    box_max: float
    score_p50: float
    score_p99: float
    score_max: float
    agreement: float
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"passed": self.passed}

    def table(self) -> str:
        """For people."""
        rows = [
            ("reference", self.reference),
            ("candidate", self.candidate),
            ("device", self.device),
            ("weights", self.weights),
            ("images", f"{self.images} of {IMAGE_SIZE[1]}x{IMAGE_SIZE[0]}, {self.detections} detections"),
            (
                "box difference",
                f"p50 {self.box_p50:.3f}, p95 {self.box_p95:.3f} (<= {MAX_BOX_P95}), max {self.box_max:.2f} px",
            ),
            (
                "score difference",
                f"p50 {self.score_p50:.5f}, p99 {self.score_p99:.5f} (<= {MAX_SCORE_P99}), max {self.score_max:.4f}",
            ),
            (
                "same detections",
                f"{100 * self.agreement:.2f} % above {self.threshold} (>= {100 * MIN_AGREEMENT:.0f} %)",
            ),
            ("verdict", "PASS" if self.passed else "FAIL: " + "; ".join(self.failures)),
        ]
        return "\n".join(f"{name:<17} {value}" for name, value in rows)


def validate_detector(
    specs: Sequence[ObjectSpec],
    settings: DetectorConfig,
    device: torch.device,
    *,
    images: int,
    seed: int,
    stop: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Compare the backend of ``settings`` with predict() in FP32 on ``images`` generated scenes; of the other settings weights,
    variant and threshold count. "auto" is FP16 traced, on CUDA replayed as a graph; on the CPU FP16 is slow and only shows the
    numbers. The reference has no TF32 in it, the candidate what torch allows. stop: asked after each image; those before are
    compared. Raises DetectorError when weights do not fit."""
    on_cpu, backend, threshold = device.type == "cpu", settings.backend, settings.threshold
    asked = "traced" if backend == "auto" and on_cpu else backend
    make = [
        RfDetrDetector(
            load_model(settings.weights, settings.variant, device),
            specs,
            dataclasses.replace(settings, backend=r, mask="box"),
            device,
            half_on_cpu=on_cpu and backend in ("auto", "half"),
        )
        for r in ("reference", asked)
    ]
    reference, candidate = make
    sampler = SceneSampler([load_object(s) for s in specs], device, IMAGE_SIZE, seed)
    pairs = []
    for frame, _ in scenes(sampler, images, chunk=4):
        with _exact_float32():
            expected = reference.raw(frame)
        pairs.append((expected, candidate.raw(frame)))
        if stop():
            break
    precision = "FP16" if candidate.dtype == torch.float16 else "FP32"
    return compare(
        pairs,
        threshold,
        reference="FP32 eager predict()",
        candidate=f"{precision} {candidate.backend}, predictor",
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        weights=reference.weights,
    )


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """FP32 on CUDA as it is on paper: torch lets convolutions round their inputs to TF32 by default."""
    before = torch.backends.cudnn.allow_tf32, matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def compare(pairs: Sequence[tuple[RawDetections, RawDetections]], threshold: float, **words: Any) -> Comparison:
    """Differences of (reference, candidate) results of the same images; ``words`` are the texts of Comparison."""
    boxes: list[float] = []
    scores: list[float] = []
    both = either = 0
    for a, b in pairs:
        high_a, high_b = a.scores >= threshold, b.scores >= threshold
        matched_a, matched_b = np.zeros(len(high_a), bool), np.zeros(len(high_b), bool)
        # A detection that the other run has a little below the threshold is compared, and counts as a disagreement.
        for i in np.flatnonzero(high_a):
            j = _twin(a, int(i), b, ~matched_b & (b.scores > 0.1 * threshold))
            if j is None:
                continue
            matched_a[i], matched_b[j] = True, True
            boxes.append(float(np.abs(a.boxes[i] - b.boxes[j]).max()))
            scores.append(float(abs(a.scores[i] - b.scores[j])))
            both += bool(high_b[j])
        either += int(high_a.sum()) + int((high_b & ~matched_b).sum())
    agreement = both / either if either else 1.0
    box, score = np.array(boxes or [0.0]), np.array(scores or [0.0])
    result = Comparison(
        images=len(pairs),
        detections=either,
        threshold=threshold,
        box_p50=float(np.percentile(box, 50)),
        box_p95=float(np.percentile(box, 95)),
        box_max=float(box.max()),
        score_p50=float(np.percentile(score, 50)),
        score_p99=float(np.percentile(score, 99)),
        score_max=float(score.max()),
        agreement=agreement,
        **words,
    )
    failures = []
    if either == 0:
        failures.append(f"nothing was detected above {threshold}, so nothing was compared")
    if result.box_p95 > MAX_BOX_P95:
        failures.append(f"boxes differ by {result.box_p95:.2f} px at p95")
    if result.score_p99 > MAX_SCORE_P99:
        failures.append(f"scores differ by {result.score_p99:.3f} at p99")
    if agreement < MIN_AGREEMENT:
        failures.append(f"only {100 * agreement:.1f} % of the detections are the same")
    return dataclasses.replace(result, failures=failures)


def _twin(a: RawDetections, i: int, b: RawDetections, open_rows: NDArray[np.bool_]) -> int | None:
    """The open row of ``b`` that is row ``i`` of ``a``: same class, nearest box."""
    candidates = np.flatnonzero((b.classes == a.classes[i]) & open_rows)
    if not candidates.size:
        return None
    overlap = pair_ious(a.boxes[i : i + 1], b.boxes[candidates])[0]
    # Among queries that sit on the same thing the one with the nearest score is the same query.
    same = candidates[overlap >= max(_SAME_IOU, overlap.max() - 0.05)]
    return int(same[np.abs(b.scores[same] - a.scores[i]).argmin()]) if same.size else None
