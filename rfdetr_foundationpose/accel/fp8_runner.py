"""The rung ``fp8``: ``cuda_graph``, and beside it the same in FP8 for outputs that a later call corrects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from .base import BaseRunner, FloatOutputs, Log, Outputs, RungUnavailable
from .graph import Lane
from .memory import frugally
from .torch_runners import CHUNK, GraphRunner, disagreement

NEWEST_WITHOUT = (8, 9)
"""Compute capability: GPUs up to this one lack the copy engine that the kernels use."""
TOLERANCE = 0.2
"""Of the range of the outputs for random crops: of real ones, FP8 errs by 4 % of an update (docs/accuracy.md)."""


class Fp8Runner(GraphRunner):
    """As GraphRunner. ``coarse`` is a runner of less precision that is faster for many pairs; itself where the network has no
    ``encoders``, since what a scorer tells apart is less than FP8 errs by."""

    name = "fp8"

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        crop: tuple[int, int],
        label: str,
        log: Log,
        lane: Lane | None = None,
    ) -> None:
        if device.type == "cuda" and (capability := torch.cuda.get_device_capability(device)) <= NEWEST_WITHOUT:
            raise RungUnavailable(f"FP8 needs compute capability 9.0 (Hopper) or newer, this GPU has {capability}")
        super().__init__(module, device, crop, label, log, lane)
        self.coarse: BaseRunner = CoarseRunner(self) if hasattr(module, "encoders") else self


class CoarseRunner(GraphRunner):
    """The bodies of another runner and one in FP8, of which the fastest is taken for each batch size."""

    name = "fp8"

    def __init__(self, exact: GraphRunner) -> None:
        BaseRunner.__init__(self, exact.device, exact.crop, f"coarse {exact.label}", exact.log)
        self.dtype, self.lane, self.body, self.network = exact.dtype, exact.lane, exact.body, exact.network
        self._bodies: dict[str, Callable[..., Outputs]] = {**exact._bodies, "fp8": self._reduced()}

    def _reduced(self) -> FloatOutputs:
        """Raises RungUnavailable where FP8 does not work here."""
        if self.network is None:
            raise RungUnavailable(f"{self.label}: FP8 builds on fused convolutions, which do not work here")
        try:
            from .fp8 import Fp8Refiner
        except ImportError as error:
            raise RungUnavailable(f"FP8 needs Triton 3.4 or newer: {error}") from error
        example = self._example((2, 2), self.dtype)
        try:
            network = frugally(partial(Fp8Refiner, self.network, example), self.device)
        except ValueError as error:
            raise RungUnavailable(f"{self.label}: {error}") from error
        body = FloatOutputs(network, self.dtype, 2 * CHUNK)
        reason = frugally(partial(disagreement, self.body, body, example, TOLERANCE), self.device)
        if reason:
            raise RungUnavailable(f"{self.label}: in FP8 {reason}")
        return body
