"""What every backend of the fallback order is: a network over crop pairs, prepared per batch size."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import UserError

Log = Callable[[str], None]
Outputs = tuple[Tensor, ...]
Key = tuple[int, int]
"""(rendered crops, observed crops): the observed crop may be one for all hypotheses."""


class BackendUnavailable(UserError, RuntimeError):
    """A way to run a network that does not work on this machine; the message is the reason shown to the user."""


@runtime_checkable
class Runner(Protocol):
    """A network over (rendered, observed) crop pairs.

    name: the backend that really runs. degraded: why it is not the one that was asked for, "" when it is.
    capturable: calls may be recorded in an outer CUDA graph. dtype: of the arithmetic; inputs are converted to it.

    A runner may have more, which is looked for: ``pool`` and ``inputs`` (GraphRunner), and ``coarse`` (Fp8Runner), another
    runner, faster and less precise, for what exact ones decide in the end. A scorer that has it offers ``vectors`` and ``rank``
    besides, in both (Fp8ScoreRunner).
    """

    name: str
    degraded: str
    capturable: bool
    dtype: torch.dtype

    def prepare(self, batch: int, observed: int | None = None) -> None:
        """Build, warm up or capture what a batch of this size needs. observed: 1 when all share one observed crop."""

    def __call__(self, rendered: Tensor, observed: Tensor) -> Outputs:
        """rendered (N, 6, R, R), observed (N or 1, 6, R, R) on the runner's device, any strides -> float32 outputs.

        Runs on torch's current stream and waits for nothing. Outputs may be static: the next call with the same batch
        size overwrites them.
        """


def one_line(error: BaseException, limit: int = 300) -> str:
    """What an exception says, in one line: the first line alone is often only a heading."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def role_of(label: str) -> str:
    """What the network is, whoever runs it: the last word of a runner's label."""
    return label.rsplit(" ", 1)[-1]


class BaseRunner:
    """Shared bookkeeping: one prepared program per batch key."""

    name = "eager"
    capturable = True
    dtype = torch.float32

    def __init__(self, device: torch.device, crop: tuple[int, int], label: str, log: Log) -> None:
        self.device = device
        self.degraded = ""
        self.crop = crop
        self.label = label
        self.log = log
        self._programs: dict[Key, Callable[[Tensor, Tensor], Outputs]] = {}

    def prepare(self, batch: int, observed: int | None = None) -> None:
        key = (batch, batch if observed is None else observed)
        if batch < 1 or key[1] not in (1, batch):
            raise ValueError(f"batch={batch}, observed={key[1]}: need batch >= 1 and observed 1 or {batch}")
        if key not in self._programs:
            self._programs[key] = self._build(key)

    def __call__(self, rendered: Tensor, observed: Tensor) -> Outputs:
        key = (rendered.shape[0], observed.shape[0])
        program = self._programs.get(key)
        if program is None:
            program = self._prepare_late(key)
        return program(rendered, observed)

    def _prepare_late(self, key: Key) -> Callable[[Tensor, Tensor], Outputs]:
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(f"{self.label}: batch {key} was not prepared before the CUDA graph capture that uses it")
        self.prepare(*key)
        if self.name not in ("eager", "reference"):
            self.log(f"{self.label}: {self.name} prepared for batch {key[0]}")
        return self._programs[key]

    def _build(self, key: Key) -> Callable[[Tensor, Tensor], Outputs]:
        raise NotImplementedError

    def _example(self, key: Key, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Random crops of a prepared shape, channels-last."""
        channels, size = self.crop
        generator = torch.Generator().manual_seed(0)
        shapes = [(n, channels, size, size) for n in key]
        a, b = (torch.rand(s, generator=generator).to(self.device, dtype) for s in shapes)
        return a.contiguous(memory_format=torch.channels_last), b.contiguous(memory_format=torch.channels_last)


def as_tuple(outputs: Tensor | Outputs) -> Outputs:
    """Outputs of a network with one or several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


class FloatOutputs(nn.Module):
    """The network in one dtype and channels-last layout behind float32 outputs; conversions belong to the program.

    chunk: batches much larger go through the network in equal parts of at most this many pairs, so that activations need
    less memory. A network whose outputs depend on the whole batch offers ``encode`` (per pair) and ``rank`` (over all), with the
    modules of the latter in ``ranking``: these stay in FP32, since what they tell apart is small beside what all share.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, chunk: int | None = None) -> None:
        super().__init__()
        ranking = [p for module in getattr(network, "ranking", ()) for p in module.parameters()]
        exact = [p.data for p in ranking]
        self.network = network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for parameter, values in zip(ranking, exact, strict=True):
            parameter.data = values
        self.dtype = dtype
        self.chunk = chunk

    def forward(self, rendered: Tensor, observed: Tensor) -> Outputs:
        a = rendered.to(self.dtype, memory_format=torch.channels_last)
        b = observed.to(self.dtype, memory_format=torch.channels_last)
        return tuple(o.float() for o in as_tuple(self._run(a, b)))

    def _run(self, a: Tensor, b: Tensor) -> Tensor | Outputs:
        n = a.shape[0]
        rank = getattr(self.network, "rank", None)
        few = self.chunk is None or n <= 1.5 * self.chunk
        if few and rank is None:
            return self.network(a, b)  # type: ignore[no-any-return]
        parts = 1 if few else -(-n // self.chunk)  # type: ignore[operator]
        bounds = [n * i // parts for i in range(parts + 1)]
        slices = [slice(low, high) for low, high in pairwise(bounds)]
        each = getattr(self.network, "encode", self.network)
        found = [as_tuple(each(a[s], b if b.shape[0] == 1 else b[s])) for s in slices]
        joined = tuple(torch.cat(part) for part in zip(*found, strict=True))
        return rank(joined[0].float()) if rank is not None else joined  # type: ignore[no-any-return]
