"""The detector that the settings ask for."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from ..config import Config
from ..engines.options import engine_options
from ..objects import ObjectSpec
from .detector import Detector
from .mask_topic import MaskTopicDetector
from .starts import NoDetector

logger = logging.getLogger(__name__)


def build_detector(config: Config, specs: Sequence[ObjectSpec], device: torch.device) -> Detector:
    """Load and prepare it on ``device``. Raises DetectorError that says what is wrong and how to put it right."""
    settings = config.detector
    if settings.source == "mask-topic":
        return MaskTopicDetector(specs, device)
    if settings.source == "none":
        return NoDetector()
    from .checkpoint import load_model
    from .rfdetr_detector import RfDetrDetector

    loaded = load_model(settings.weights, settings.variant, device, settings.first_class_id)
    detector = RfDetrDetector(loaded, specs, settings, device, engines=engine_options(config))
    logger.info("detector: RF-DETR %s, %s", detector.weights, detector.backend)
    return detector
