"""What every backend is: a network over crop pairs, prepared per batch size."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import UserError

if TYPE_CHECKING:
    from .graph import GraphPool

logger = logging.getLogger(__name__)

Outputs = tuple[Tensor, ...]
Key = tuple[int, int]
"""(rendered crops, observed crops): the observed crop may be one for all hypotheses."""
Program = Callable[[Tensor, Tensor], Outputs]


class Step(Enum):
    """The steps that a coarse runner may be precise enough for.

    RESCORED: all of a registration that drops nothing, whose best hypotheses exact runners refine and score again.
    DROPPING: refining and scoring hypotheses of which some are dropped before exact runners refine the rest.
    TRACKING: all of a tracking step.
    """

    RESCORED = "rescored"
    DROPPING = "dropping"
    TRACKING = "tracking"


EXAMPLES_OF_A_FRAME = 12
"""So many consecutive examples (``RunnerContext.examples``) are hypotheses of one object in one frame."""


class BackendUnavailable(UserError, RuntimeError):
    """A way to run a network that does not work on this machine; the message is the reason shown to the user."""


@runtime_checkable
class Runner(Protocol):
    """A network over (rendered, observed) crop pairs.

    name: the backend that really runs. degraded: why it is not the one that was asked for, "" when it is.
    capturable: calls may be recorded in an outer CUDA graph. dtype: of the arithmetic; inputs are converted to it.
    """

    name: str
    degraded: str
    capturable: bool
    dtype: torch.dtype

    @property
    def library(self) -> str:
        """What runs the network besides torch, with its version and why it was taken; "" for nothing."""

    @property
    def coarse(self) -> Runner | None:
        """Another runner, faster and less precise, for the steps of ``coarse_for``; None where there is none."""

    @property
    def coarse_for(self) -> frozenset[Step]:
        """Where ``coarse`` takes the place of this one."""

    @property
    def pool(self) -> GraphPool | None:
        """The memory pool in which programs that call this runner must be captured; None where any will do."""

    def prepare(self, batch: int, observed: int | None = None) -> None:
        """Build, warm up or capture what a batch of this size needs. observed: 1 when all share one observed crop."""

    def inputs(self, rendered: int, observed: int) -> tuple[Tensor, Tensor] | None:
        """Static inputs (rendered, 6, R, R) and (observed, 6, R, R), channels-last: crops that are written there need no copy.
        None where the runner has no static inputs."""

    def __call__(self, rendered: Tensor, observed: Tensor) -> Outputs:
        """rendered (N, 6, R, R), observed (N or 1, 6, R, R) on the runner's device, any strides -> float32 outputs.

        Runs on torch's current stream and waits for nothing. Outputs may be static: the next call with the same batch
        size overwrites them.
        """


@runtime_checkable
class ScoreRunner(Runner, Protocol):
    """A runner over a scorer that can be called in two steps, so that some embeddings can be replaced in between."""

    def embed(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """(N, C) float32: one embedding a hypothesis, independent of the others. Arguments as of ``Runner.__call__``."""

    def rank(self, embeddings: Tensor) -> Tensor:
        """Logits (N,): the hypotheses compared with each other by their embeddings (N, C)."""


@dataclass(frozen=True)
class EngineOptions:
    """Where engines are, and what runs them. folder: engines that were built before (pose.engines), None for none. library:
    "auto", "tensorrt" or "tensorrt_rtx", the one behind the backend ``tensorrt``. cache: directory of ONNX files and engines,
    None for the user's."""

    folder: Path | None = None
    library: str = "auto"
    cache: Path | None = None


@dataclass(frozen=True)
class RunnerContext:
    """Where and as what a network runs.

    device: a name is turned into a torch.device. crop: channels and size of its inputs. label: for the log; its last word
    is the role of the network, by which caches know it ("register refiner" shares those of "refiner"). pool: shared by
    runners that never run at the same time, which saves memory on a GPU. engines: for backends that run ONNX files or engines.
    examples: role -> crops, rendered and observed, as its network sees them; backends are calibrated and checked on these.
    about: the weights, for people, in the manifest of the engines that are kept. step: the only step that the runner is used
    for, so that nothing is prepared for others; None for any.
    """

    device: torch.device
    crop: tuple[int, int] = (6, 160)
    label: str = "network"
    pool: GraphPool | None = None
    engines: EngineOptions = EngineOptions()
    examples: Callable[[str], tuple[Tensor, Tensor]] | None = None
    about: str = ""
    step: Step | None = None

    def __init__(
        self,
        device: torch.device | str = "cpu",
        crop: tuple[int, int] = (6, 160),
        label: str = "network",
        pool: GraphPool | None = None,
        engines: EngineOptions | None = None,
        examples: Callable[[str], tuple[Tensor, Tensor]] | None = None,
        about: str = "",
        step: Step | None = None,
    ) -> None:
        values = (torch.device(device), crop, label, pool, engines or EngineOptions(), examples, about, step)
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def role(self) -> str:
        """What the network is, whoever runs it: "refiner" or "scorer"."""
        return self.label.rsplit(" ", 1)[-1]


class BaseRunner:
    """Shared bookkeeping: one prepared program per batch key.

    fixed_batch: the only size that it can run, None where it can run any. owns_copy: it runs a copy of the network that it was
    made of, which may be moved to another device. files: the ONNX files that it runs. coarse_error: largest accepted error of
    ``coarse``, as a share of the spread of the outputs over the hypotheses of one frame; None where the backend checks it itself.
    """

    name = "eager"
    capturable = True
    dtype = torch.float32
    quiet: ClassVar[bool] = False
    """Whether preparing takes no time worth a line in the log."""

    def __init__(self, context: RunnerContext) -> None:
        self.context = context
        self.device = context.device
        self.crop = context.crop
        self.label = context.label
        self.pool: GraphPool | None = context.pool
        self.degraded = ""
        self.library = ""
        self.coarse: Runner | None = None
        self.coarse_for: frozenset[Step] = frozenset()
        self.coarse_error: float | None = None
        self.files: tuple[Path, ...] = ()
        self.fixed_batch: int | None = None
        self.owns_copy = True
        self._programs: dict[Key, Program] = {}

    def prepare(self, batch: int, observed: int | None = None) -> None:
        key = (batch, batch if observed is None else observed)
        if batch < 1 or key[1] not in (1, batch):
            raise ValueError(f"batch={batch}, observed={key[1]}: need batch >= 1 and observed 1 or {batch}")
        if self.fixed_batch not in (None, batch):
            raise BackendUnavailable(f"{self.label} has a fixed batch of {self.fixed_batch}, {batch} was asked for")
        if key not in self._programs:
            self._programs[key] = self._build(key)

    def inputs(self, rendered: int, observed: int) -> tuple[Tensor, Tensor] | None:
        return None

    def __call__(self, rendered: Tensor, observed: Tensor) -> Outputs:
        key = (rendered.shape[0], observed.shape[0])
        program = self._programs.get(key)
        if program is None:
            program = self._prepare_late(key)
        return program(rendered, observed)

    def _prepare_late(self, key: Key) -> Program:
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(f"{self.label}: batch {key} was not prepared before the CUDA graph capture that uses it")
        self.prepare(*key)
        if not self.quiet:
            logger.info("%s: %s prepared for batch %d", self.label, self.name, key[0])
        return self._programs[key]

    def _build(self, key: Key) -> Program:
        raise NotImplementedError

    def _example(self, key: Key, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Random crops of a prepared shape, channels-last."""
        channels, size = self.crop
        generator = torch.Generator().manual_seed(0)
        shapes = [(n, channels, size, size) for n in key]
        a, b = (torch.rand(s, generator=generator).to(self.device, dtype) for s in shapes)
        return a.contiguous(memory_format=torch.channels_last), b.contiguous(memory_format=torch.channels_last)


def runner_for(step: Step, runner: Runner) -> Runner:
    """The runner that takes a step: the coarse one where it is precise enough, else ``runner`` itself."""
    return runner.coarse if runner.coarse is not None and step in runner.coarse_for else runner


def as_tuple(outputs: Tensor | Outputs) -> Outputs:
    """Outputs of a network with one or several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
