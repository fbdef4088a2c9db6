"""The parts of the real pipeline, from settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ..config import Config
from ..detect import build_detector
from ..device import resolve_device
from ..objects import ObjectSpec, load_objects
from ..pose.build import build_estimator
from ..process import prepare_process
from ..resources import default_objects_file
from .extent import ObjectExtent, symmetries_about

if TYPE_CHECKING:
    from ..detect.detector import Detector
    from ..pose.estimator import PoseEstimator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipelineParts:
    """What a pipeline is made of. extents: object name -> extent of its mesh."""

    detector: Detector
    estimator: PoseEstimator
    specs: Sequence[ObjectSpec]
    extents: Mapping[str, ObjectExtent]
    device: torch.device


def build_parts(config: Config) -> PipelineParts:
    """Load objects, pose networks and detector. Raises as Pipeline.build."""
    device = prepare_process(resolve_device(config.device))
    logger.info("device %s", device)
    specs = load_objects(config.objects_file or default_objects_file())
    estimator = build_estimator(config, specs)
    detector = build_detector(config, specs, device)
    extents = {
        m.name: replace(
            ObjectExtent.from_vertices(m.arrays.vertices + m.center, m.diameter, m.arrays.faces),
            symmetries=symmetries_about(m.symmetries, m.center),
        )
        for m in estimator.objects
    }
    return PipelineParts(detector, estimator, specs, extents, device)
