"""The real pipeline from settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..config import Config
from ..detect import build_detector
from ..device import resolve_device
from ..objects import load_objects
from ..pose.build import build_estimator
from ..resources import default_objects_file
from .association import ObjectGeometry

if TYPE_CHECKING:
    from .pipeline import Pipeline


def build_pipeline(
    cls: type[Pipeline], config: Config, log: Callable[[str], None], *, background: bool = True
) -> Pipeline:
    """See Pipeline.build."""
    device = resolve_device(config.device)
    log(f"device {device}")
    specs = load_objects(config.objects_file or default_objects_file())
    estimator = build_estimator(config, specs, log)
    detector = build_detector(config, specs, device, log)
    geometry = {
        m.name: ObjectGeometry.from_vertices(m.arrays.vertices + m.center, m.diameter, m.arrays.faces)
        for m in estimator.objects
    }
    return cls(detector, estimator, specs, geometry, config, device, background=background, log=log)
