"""Ground truth of a recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORLD = "world"
GROUND_TRUTH_FRAME = "ground_truth/"


@dataclass(frozen=True)
class InstanceTruth:
    """Where one object instance really is. name: ``mug``, ``mug_1``. T_cam_obj: (4, 4) float64, metres.

    visibility: visible share of the silhouette in [0, 1], None where the recording does not say.
    """

    name: str
    object: str
    T_cam_obj: NDArray[np.float64]
    visibility: float | None = None


@dataclass(frozen=True)
class GroundTruth:
    """The true poses of one frame. T_world_cam: (4, 4) float64, None where the recording does not say."""

    instances: tuple[InstanceTruth, ...] = ()
    T_world_cam: NDArray[np.float64] | None = None
