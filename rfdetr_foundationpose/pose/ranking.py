"""What a registration decides between, and the last choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .agreement_columns import DESCRIBED, RESULT_COLUMNS
from .confidence import Calibration

OVERLAP_WEIGHT = 10.0
"""An overlap with the whole mask is worth as much as this logit of the scorer, in the last choice."""


@dataclass(frozen=True)
class Ranking:
    """scores: (M,) the scorer's own logits of the scored hypotheses, best first; UNSCORED where it gave none, -inf where the
    pose is not finite; where the first were refined again, exactly, those after them are coarse, and may be higher. poses:
    (M, 4, 4) T_cam_center of theirs. chosen: which of them was taken: 0, unless the confidence said otherwise."""

    scores: Tensor
    poses: Tensor
    chosen: int


@dataclass(frozen=True)
class TopHypotheses:
    """The first K of a ranking, on the host. rows: (K, RESULT_COLUMNS) float64, see agreement_columns; scores: (K,) float64,
    best first; overlaps: (K,) of silhouettes and mask, [0, 1], 0 where the mask is no silhouette; pixels: of the mask, and those
    of them with depth. With fewer than MIN_DEPTH_PIXELS of the latter the rest means nothing, and may be missing."""

    rows: NDArray[np.float64]
    scores: NDArray[np.float64]
    overlaps: NDArray[np.float64]
    pixels: tuple[int, int]

    @classmethod
    def unpack(cls, flat: NDArray[np.float64]) -> TopHypotheses:
        """From what ``RegisterProgram.run`` packs: of each hypothesis its row, overlap and score, then the pixels."""
        rows = flat[:-2].reshape(-1, RESULT_COLUMNS + 2)
        return cls(rows[:, :-2], rows[:, -1], rows[:, -2], (int(flat[-2]), int(flat[-1])))

    def best(self, calibration: Calibration, weight: float) -> int:
        """The one with the highest score plus ``weight`` times the log-odds of its confidence plus OVERLAP_WEIGHT times its
        overlap. One whose row is not finite is it only where all are like that."""
        return int((self.scores + self.support(calibration, weight)).argmax())

    def support(self, calibration: Calibration, weight: float) -> NDArray[np.float64]:
        """(K,) what the image says for each: ``weight`` times the log-odds of its confidence plus OVERLAP_WEIGHT times its
        overlap; -inf where the row is not finite. Unlike scores, which rank hypotheses beside each other, it compares those of
        different searches."""
        usable = np.all(np.isfinite(self.rows), axis=1)
        described = np.where(usable[:, None], self.rows[:, DESCRIBED], 0.0)
        worth = weight * calibration.log_odds(described) + OVERLAP_WEIGHT * self.overlaps
        return np.where(usable, worth, -np.inf)
