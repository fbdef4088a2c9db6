"""Accuracy of ``register`` and ``track`` on frames with known poses: attempts, their errors, and the summary."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..device_frame import DeviceFrame, Uploader
from ..replay.metrics import ADDS_THRESHOLD, ObjectGeometry, PoseError, percentiles, pose_error, recall
from ..types import Frame

if TYPE_CHECKING:
    from ..pose.estimator import PoseEstimator, TrackRequest
    from ..pose.observation import Observation

Mask = NDArray[np.bool_]
# The AUC of ADD-S runs over thresholds from 0 to this, as in the YCB-Video evaluation.
AUC_LIMIT_MM = 100.0
# A registration mask of fewer pixels is not tried.
MIN_MASK = 50


@dataclass(frozen=True)
class Attempt:
    """One pose asked for. step: "register" or "track". error: None when refused. T_cam_obj: (4, 4) float64 or None."""

    scene: str
    frame: int
    object: str
    step: str
    milliseconds: float
    error: PoseError | None = None
    refusal: str = ""
    confidence: float | None = None
    visibility: float | None = None
    T_cam_obj: NDArray[np.float64] | None = None


def detector_like_mask(mask: Mask, rng: np.random.Generator, dilate: int = 4, bite: float = 0.15) -> Mask:
    """A true silhouette made as wrong as a detector's: grown by ``dilate`` pixels, a disc bitten out of its edge.

    bite: share of the area that the disc has; its centre lies on the contour. Empty stays empty.
    """
    if not mask.any():
        return mask.copy()
    size = 2 * dilate + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    grown = cv2.dilate(mask.astype(np.uint8), kernel)
    if bite > 0:
        contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        edge = max(contours, key=len)
        x, y = (int(v) for v in edge[rng.integers(len(edge)), 0])
        radius = round(float(np.sqrt(2 * bite * mask.sum() / np.pi)))  # half of the disc is outside
        cv2.circle(grown, (x, y), radius, 0, -1)
    return grown > 0


class Evaluator:
    """Runs one estimator on frames and judges what it says."""

    def __init__(
        self, estimator: PoseEstimator, geometries: Mapping[str, ObjectGeometry], device: torch.device | str
    ) -> None:
        self._estimator = estimator
        self._geometries = geometries
        self._upload = Uploader(device)
        self._device = torch.device(device)
        self._warm = (0, 0)

    def prepare(self, frame: Frame) -> Observation:
        """Upload and filter one frame; the first of a size warms everything up, so that times are those of work.

        Raises InputError.
        """
        size = (frame.camera.width, frame.camera.height)
        if size != self._warm:
            self._estimator.warm_up(frame.camera)
            self._warm = size
        uploaded: DeviceFrame = self._upload(frame)
        return self._estimator.prepare(uploaded)

    def register(
        self, frame: Observation, mask: Mask, truth: NDArray[np.float64], *, object: str, scene: str, index: int
    ) -> Attempt:
        """Register from a mask (H, W); a refusal is an attempt without error."""
        from ..pose.estimator import RegistrationError

        begin = self._now()
        try:
            estimate = self._estimator.register(frame, object, torch.from_numpy(mask).to(self._device))
        except RegistrationError as refused:
            return Attempt(scene, index, object, "register", self._now() - begin, refusal=str(refused))
        return self._attempt(scene, index, object, "register", self._now() - begin, estimate, truth)

    def track(
        self,
        frame: Observation,
        last: Sequence[TrackRequest],
        truths: Mapping[str, NDArray[np.float64]],
        *,
        scene: str,
        index: int,
    ) -> list[Attempt]:
        """Track all objects of ``last`` together."""
        begin = self._now()
        estimates = self._estimator.track(frame, last)
        took = self._now() - begin
        return [
            self._attempt(scene, index, request.object, "track", took, estimate, truths[request.object])
            for request, estimate in zip(last, estimates, strict=True)
        ]

    def drift(self, frame: Observation, object: str, T_cam_obj: NDArray[np.float64], times: int) -> PoseError:
        """Where tracking the same frame ``times`` times from the true pose (4, 4) ends."""
        from ..pose.estimator import TrackRequest

        last = TrackRequest(object, T_cam_obj, confidence=1.0)
        for _ in range(times):
            (estimate,) = self._estimator.track(frame, [last])
            T = np.asarray(estimate.T_cam_obj, dtype=np.float64)
            last = TrackRequest(object, T, estimate.confidence)
        return pose_error(last.T_cam_obj, T_cam_obj, self._geometries[object])

    def _attempt(
        self, scene: str, index: int, object: str, step: str, took: float, estimate: Any, truth: NDArray[np.float64]
    ) -> Attempt:
        T = np.asarray(estimate.T_cam_obj, dtype=np.float64)
        return Attempt(
            scene,
            index,
            object,
            step,
            took,
            error=pose_error(T, truth, self._geometries[object]),
            confidence=float(estimate.confidence),
            visibility=float(estimate.visibility),
            T_cam_obj=T,
        )

    def _now(self) -> float:
        """Milliseconds; waits for the device, so that differences are whole durations."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() * 1e3


def auc(errors: Sequence[PoseError | None], limit_mm: float = AUC_LIMIT_MM) -> float | None:
    """Area under the recall curve of ADD-S from 0 to ``limit_mm``, in [0, 1]; refused attempts count as 0.

    The area is exact: each attempt adds the share of thresholds that its error is below.
    """
    if not errors:
        return None
    return float(np.mean([0.0 if e is None else max(0.0, 1 - e.adds_mm / limit_mm) for e in errors]))


def summarize_attempts(attempts: Iterable[Attempt]) -> dict[str, Any]:
    """ "register" and "track" -> figures over all objects and by object."""
    summary: dict[str, Any] = {}
    attempts = list(attempts)
    for step in ("register", "track"):
        of_step = [a for a in attempts if a.step == step]
        if of_step:
            by_object = {name: _figures([a for a in of_step if a.object == name]) for name in _names(of_step)}
            summary[step] = {"all": _figures(of_step), "by_object": by_object}
    return summary


def _names(attempts: Sequence[Attempt]) -> list[str]:
    return sorted({a.object for a in attempts})


def _figures(attempts: Sequence[Attempt]) -> dict[str, Any]:
    errors = [a.error for a in attempts]
    found = [e for e in errors if e is not None]
    right = [a for a in attempts if a.error is not None and a.error.adds_ratio < 0.1]
    wrong = [a for a in attempts if a.error is not None and a.error.adds_ratio >= 0.1]
    return {
        "attempts": len(attempts),
        "refused": sum(a.error is None for a in attempts),
        "translation_error_mm": percentiles((e.translation_mm for e in found), ("p50", "p95", "max")),
        "rotation_error_deg": percentiles((e.rotation_deg for e in found), ("p50", "p95", "max")),
        "adds_mm": percentiles(e.adds_mm for e in found),
        "adds_recall_0.1d": recall(errors) if errors else None,
        "add_recall_0.1d": float(np.mean([e is not None and e.add_ratio < ADDS_THRESHOLD for e in errors]))
        if errors
        else None,
        "adds_auc_10cm": auc(errors),
        "milliseconds": percentiles((a.milliseconds for a in attempts), ("p50", "p95", "max")),
        "confidence_right": percentiles((a.confidence for a in right if a.confidence is not None), ("p50",))["p50"],
        "confidence_wrong": percentiles((a.confidence for a in wrong if a.confidence is not None), ("p50",))["p50"],
    }


def attempt_row(a: Attempt) -> dict[str, Any]:
    """An attempt for JSON."""
    row: dict[str, Any] = {
        "scene": a.scene,
        "frame": a.frame,
        "object": a.object,
        "step": a.step,
        "milliseconds": a.milliseconds,
        "refusal": a.refusal,
        "confidence": a.confidence,
        "visibility": a.visibility,
    }
    if a.error is not None:
        row |= {
            "translation_error_mm": a.error.translation_mm,
            "rotation_error_deg": a.error.rotation_deg,
            "adds_mm": a.error.adds_mm,
            "adds_over_diameter": a.error.adds_ratio,
            "add_mm": a.error.add_mm,
            "add_over_diameter": a.error.add_ratio,
        }
    if a.T_cam_obj is not None:
        row["T_cam_obj"] = a.T_cam_obj.tolist()
    return row
