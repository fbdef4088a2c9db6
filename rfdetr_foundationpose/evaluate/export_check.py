"""Whether an exported network says what torch says, on what it will really see."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from ..accel.network import ScorerNetwork
from ..accel.torch_runners import CHUNK
from ..engines.onnx_export import run_onnx
from ..pose.example_crops import Crops

TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2}
"""An output may differ from torch in FP32 by this share of its range over the crops."""
MIN_TAU = 0.99
"""Scores of 252 hypotheses must be in the order that torch has them in FP32: Kendall's tau at least."""


@dataclass(frozen=True)
class ExportCheck:
    """difference: largest of any output, as a share of that output's range. tau: Kendall's, of a scorer, worst scene; 1 for a
    refiner. reasons: why the file is refused; none for a good one."""

    difference: float
    tau: float
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        order = "" if math.isnan(self.tau) else f", tau {self.tau:.4f}"
        return f"{self.difference:.1e}{order}"


def reference_outputs(network: nn.Module, crops: Crops) -> tuple[Tensor, ...]:
    """What torch gives in FP32. network: in eval mode on the CPU."""
    parts = [slice(i, i + CHUNK) for i in range(0, len(crops.rendered), CHUNK)]
    with torch.inference_mode():
        if isinstance(network, ScorerNetwork):
            embeddings = torch.cat([network.encode(crops.rendered[p], crops.observed[p]) for p in parts])
            return (network.rank(embeddings),)
        outputs = [network(crops.rendered[p], crops.observed[p]) for p in parts]
    return tuple(torch.cat(o) for o in zip(*outputs, strict=True))


@dataclass
class FileCheck:
    """The comparison of one file, scene by scene. ordered: whether the order of scores is looked at, which random weights do not
    have. Calls raise ImportError without onnxruntime."""

    path: Path
    precision: str
    ordered: bool = True
    worst: float = 0.0
    tau: float = math.nan
    reasons: list[str] = field(default_factory=list)

    def __call__(self, crops: Crops, expected: tuple[Tensor, ...]) -> None:
        """Run the file in onnxruntime on crops whose ``reference_outputs`` are known."""
        found = run_onnx(self.path, crops.rendered, crops.observed)
        scorer = len(expected) == 1
        for e, f in zip(expected, found, strict=True):
            if not bool(torch.isfinite(f).all()):
                bad = int((~torch.isfinite(f)).sum())
                self.reasons.append(f"{bad} of {f.numel()} outputs are not finite ({crops.name})")
                self.worst = math.inf
                continue
            spread = (e.max() - e.min()).item()
            difference = (f - e).abs().max().item() / max(spread, 1e-3 * e.abs().max().item(), 1e-12)
            self.worst = max(self.worst, difference)
            if scorer and self.ordered:
                order = float(kendalltau(e.numpy(), f.numpy()).statistic)
                self.tau = order if math.isnan(self.tau) else min(self.tau, order)
                if not order >= MIN_TAU:
                    at_least = f"at least {MIN_TAU} ({crops.name})"
                    self.reasons.append(f"the order of its scores has tau {order:.3f}, {at_least}")
            elif not difference <= TOLERANCE[self.precision]:
                allowed = TOLERANCE[self.precision]
                self.reasons.append(f"an output differs by {difference:.1e} of its range, at most {allowed:.0e}")

    def result(self) -> ExportCheck:
        return ExportCheck(self.worst, self.tau, tuple(dict.fromkeys(self.reasons)))
