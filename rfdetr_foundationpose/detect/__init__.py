"""Which objects are where in the image."""

from .build import build_detector
from .detector import DetectionReport, Detector, DetectorError

__all__ = ["DetectionReport", "Detector", "DetectorError", "build_detector"]
