"""How far a faster way to run the networks is from the slower one: pose differences, score order, lost frames, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_MM = 0.5
MAX_DEG = 0.2
"""Two backends agree when the 95th percentiles of the differences of their poses are at most these."""


def pose_difference(
    A: NDArray[np.float64], B: NDArray[np.float64], symmetries: NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """Translation (mm) and rotation (deg) between two (4, 4) poses, at the symmetric equivalent of B nearest to A.

    symmetries: (K, 4, 4) in the frame that the poses are of, identity included.
    """
    candidates = B[None] if symmetries is None else B @ symmetries
    cosine = (np.einsum("ij,kij->k", A[:3, :3], candidates[:, :3, :3]) - 1) / 2
    # the angle from the chord is exact for small ones, where arccos is not
    chord = np.linalg.norm(A[None, :3, :3] - candidates[:, :3, :3], axis=(1, 2)) / (2 * np.sqrt(2))
    angles = np.where(cosine > 0, 2 * np.arcsin(np.clip(chord, 0, 1)), np.arccos(np.clip(cosine, -1, 1)))
    best = int(np.argmin(angles))
    distance = float(np.linalg.norm(A[:3, 3] - candidates[best, :3, 3])) * 1e3
    return distance, float(np.rad2deg(angles[best]))


@dataclass
class Differences:
    """Collected differences of one step ("register" or "track")."""

    mm: list[float] = field(default_factory=list)
    deg: list[float] = field(default_factory=list)

    def add(self, mm: float, deg: float) -> None:
        self.mm.append(mm)
        self.deg.append(deg)

    def __len__(self) -> int:
        return len(self.mm)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """{"mm": {"p50", "p95", "max"}, "deg": {...}}; raises ValueError when nothing was collected."""
        if not self.mm:
            raise ValueError("no differences were collected")
        return {
            unit: {"p50": float(np.percentile(v, 50)), "p95": float(np.percentile(v, 95)), "max": float(np.max(v))}
            for unit, v in (("mm", self.mm), ("deg", self.deg))
        }

    def within(self, mm: float = MAX_MM, deg: float = MAX_DEG) -> bool:
        """Whether both 95th percentiles are accepted. NaN is not."""
        p = self.percentiles()
        return p["mm"]["p95"] <= mm and p["deg"]["p95"] <= deg


@dataclass
class OrderChanges:
    """How two scorers order the same hypotheses."""

    compared: int = 0
    winner_changed: int = 0
    swapped: list[float] = field(default_factory=list)
    margin_lost: list[float] = field(default_factory=list)

    def add(self, reference: Sequence[float], other: Sequence[float]) -> None:
        """Logits (N,) of the same hypotheses; N of at least 2."""
        a, b = np.asarray(reference, np.float64), np.asarray(other, np.float64)
        if a.shape != b.shape or a.size < 2:
            raise ValueError(f"need two equal score vectors of at least 2, got {a.shape} and {b.shape}")
        first, second = int(a.argmax()), int(b.argmax())
        upper = np.triu_indices(len(a), 1)
        order = np.sign(a[:, None] - a)[upper] * np.sign(b[:, None] - b)[upper]
        self.compared += 1
        self.winner_changed += first != second
        self.swapped.append(float((order < 0).mean()))
        self.margin_lost.append(float((a[first] - a[second]) / max(float(np.ptp(a)), 1e-12)))

    def summary(self) -> dict[str, Any]:
        """winner_changed of compared; share of pairs swapped; what the other winner is worth, in score ranges."""
        if not self.compared:
            return {"compared": 0}
        return {
            "compared": self.compared,
            "winner_changed": self.winner_changed,
            "pairs_swapped_mean": float(np.mean(self.swapped)),
            "winner_margin_lost_max": float(np.max(self.margin_lost)),
        }
