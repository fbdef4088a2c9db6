"""How a cost grows with a size: exponents of power laws, the knee, and steps that are out of line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

STEEP = 0.5
"""The knee is where the cost begins to grow faster than with this power of the size."""
OUT_OF_LINE = 1.5
"""A cliff costs more than so many times what its neighbours lead one to expect."""


@dataclass(frozen=True)
class Limit:
    """Something that changes for sizes above ``above``. what: a sentence's words on it."""

    above: float
    what: str


@dataclass(frozen=True)
class Cliff:
    """A size that costs ``ratio`` times what is expected. reason: the limits that lie just below it, "" where none is known."""

    x: float
    cost: float
    expected: float
    ratio: float
    reason: str


@dataclass(frozen=True)
class Growth:
    """slopes: of log cost over log size, between each size and the next. exponent: of the power law through all points
    (least squares), None for a single one. knee: the size from which every slope is above STEEP, None where the last is not."""

    exponent: float | None
    slopes: tuple[float, ...]
    knee: float | None
    cliffs: tuple[Cliff, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def growth(sizes: Sequence[float], costs: Sequence[float], limits: Sequence[Limit] = ()) -> Growth:
    """sizes: ascending, positive. costs: one for each, positive. limits: what is known to change on the way.

    Raises ValueError for anything else.
    """
    if len(sizes) != len(costs) or not sizes:
        raise ValueError(f"{len(sizes)} sizes and {len(costs)} costs")
    if min(*sizes, *costs) <= 0 or any(b <= a for a, b in pairwise(sizes)):
        raise ValueError("sizes must be ascending, sizes and costs positive")
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(costs, float))
    slopes = tuple(float(s) for s in np.diff(y) / np.diff(x))
    exponent = float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else None
    return Growth(exponent, slopes, _knee(sizes, slopes), _cliffs(sizes, costs, slopes, limits))


def _knee(sizes: Sequence[float], slopes: Sequence[float]) -> float | None:
    found = None
    for size, slope in reversed(list(zip(sizes, slopes, strict=False))):
        if slope <= STEEP:
            break
        found = size
    return found


def _cliffs(
    sizes: Sequence[float], costs: Sequence[float], slopes: Sequence[float], limits: Sequence[Limit]
) -> tuple[Cliff, ...]:
    cliffs = []
    for i, (size, cost) in enumerate(zip(sizes, costs, strict=True)):
        expected = _expected(i, sizes, costs, slopes)
        if expected is None or cost <= OUT_OF_LINE * expected:
            continue
        passed = [limit.what for limit in limits if i > 0 and sizes[i - 1] <= limit.above < size]
        cliffs.append(Cliff(size, cost, expected, cost / expected, "; ".join(passed)))
    return tuple(cliffs)


def _expected(i: int, sizes: Sequence[float], costs: Sequence[float], slopes: Sequence[float]) -> float | None:
    """What the other points say of point i: the power law through its neighbours. The last one may go on as before, or in
    proportion where that is steeper; the first may cost what the second does."""
    if len(sizes) < 3:
        return None
    if i == 0:
        return costs[1]
    steepness = max(slopes[i - 2], 1.0)
    if i < len(sizes) - 1:
        steepness = float(np.log(costs[i + 1] / costs[i - 1]) / np.log(sizes[i + 1] / sizes[i - 1]))
    return float(costs[i - 1] * (sizes[i] / sizes[i - 1]) ** steepness)
