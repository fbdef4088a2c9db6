"""What takes the frames of a finished run, one after the other, with their poses and the picture drawn of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import Frame
from .result import PoseSample

Series = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class DrawnFrame:
    """index: in the recording. samples: its poses. picture: (H, W, 3) uint8 RGB, the frame with these drawn."""

    index: int
    frame: Frame
    samples: Sequence[PoseSample]
    picture: NDArray[np.uint8]


class Sink(Protocol):
    def add(self, drawn: DrawnFrame) -> None:
        """Frames come in the order of their stamps."""

    def finish(self, latency: Series, stamp_of: Callable[[float], int]) -> None:
        """latency: stage -> (seconds, ms). stamp_of: those seconds -> stamp in the recording, ns."""
