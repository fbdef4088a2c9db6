"""What every detector offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ..config import DetectorConfig
from ..device_frame import DeviceFrame
from ..errors import UserError
from ..types import CameraIntrinsics, Detection


class DetectorError(UserError, ValueError):
    """A detector that cannot be built: weights, classes or masks that do not fit. The message says what to do."""


@dataclass(frozen=True)
class DetectionReport:
    """detections: at or above their threshold, best first. best_below: object -> best score that missed its threshold.

    thresholds: object -> the threshold in force. judges: whether an object that is not in ``detections`` was looked for.
    """

    detections: list[Detection]
    best_below: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    judges: bool = True


class Detector(Protocol):
    """source: as the setting detector.source names it. backend: how the network really runs. weights: what is loaded, for people.
    degraded: why it does not run as it was asked to; empty when it does."""

    @property
    def source(self) -> str: ...

    @property
    def backend(self) -> str: ...

    @property
    def weights(self) -> str: ...

    @property
    def degraded(self) -> Sequence[str]: ...

    def warm_up(self, camera: CameraIntrinsics) -> None:
        """Run the real path at this image size."""

    def detect(self, frame: DeviceFrame) -> DetectionReport:
        """Detections of one frame. Raises InputError for a frame that cannot be used."""

    def apply(self, config: DetectorConfig) -> None:
        """Take new thresholds."""


@runtime_checkable
class OverlappingDetector(Protocol):
    """A detector that can be left to work while something else is done."""

    def start(self, frame: DeviceFrame) -> Callable[[], DetectionReport]:
        """Enqueue the work on the current CUDA stream. The returned function waits for it and gives the report;
        masks it makes are on the stream that is current then. ``frame`` must be kept until it was called."""
