"""The backends that need nothing but torch: reference, eager, half, traced, compile, cuda_graph."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import one_line
from .attention import plain_attention
from .base import BackendUnavailable, BaseRunner, Key, Outputs, Program, RunnerContext, as_tuple
from .encoder_layer import one_pass_norms
from .fold import fold_batch_norm, fuse_conv_relu, one_pass_copies
from .graph import GraphedProgram, GraphPool, inlining
from .heads import SideBySideHeads
from .memory import within_memory_limit
from .network import RefinerNetwork, ScorerNetwork
from .outputs import FloatOutputs

logger = logging.getLogger(__name__)

CHUNK = 42
"""So many pairs go through a network at once where there are more (see FloatOutputs): 6 x 42 are the 252 hypotheses, and 42
keep all 132 multiprocessors of an H200 busy in the deepest convolutions, without a remainder."""


def half_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """The reduced precision that is fast on ``device``, and why it is what it is."""
    if device.type == "cuda":
        return torch.float16, "FP16 on tensor cores"
    if cpu_has_bf16():
        return torch.bfloat16, "BF16: this CPU has BF16 instructions but no fast FP16"
    return torch.float32, "FP32: this CPU has neither BF16 nor fast FP16 instructions"


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies in BF16, which torch then does for convolutions and linear layers."""
    features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: older torch has neither
    return any(getattr(torch.cpu, f, lambda: False)() for f in features)


class EagerRunner(BaseRunner):
    """The module as it is, FP32."""

    name = "eager"
    quiet = True

    def __init__(self, module: nn.Module, context: RunnerContext) -> None:
        super().__init__(context)
        self.module = module
        self.owns_copy = False

    def _build(self, key: Key) -> Program:
        def run(rendered: Tensor, observed: Tensor) -> Outputs:
            with torch.inference_mode():
                return as_tuple(self.module(rendered.to(self.dtype), observed.to(self.dtype)))

        return run


class ReferenceRunner(EagerRunner):
    """As the official code runs it: eager, channels first, batch norm unfolded, autocast to FP16 on CUDA. Only the ranking of
    hypotheses stays in FP32: its attention leaves FP16's range on real crops, and all scores would be NaN."""

    name = "reference"
    capturable = False  # the official code launches every kernel by itself

    def _build(self, key: Key) -> Program:
        cuda = self.device.type == "cuda"
        scorer = self.module if isinstance(self.module, ScorerNetwork) else None
        first = self.module if scorer is None else scorer.encode

        def run(rendered: Tensor, observed: Tensor) -> Outputs:
            with torch.inference_mode():
                with torch.autocast(self.device.type, torch.float16, enabled=cuda):
                    outputs = as_tuple(first(rendered.contiguous(), observed.contiguous()))
                outputs = tuple(o.float() for o in outputs)
                return outputs if scorer is None else (scorer.rank(outputs[0]),)

        return run


class HalfRunner(BaseRunner):
    """Inference mode, reduced precision, channels-last, batch norm folded into convolutions, attention as plain products."""

    name = "half"

    exact_on_cpu: ClassVar[bool] = False
    """Whether it is FP32 on a CPU, whatever the CPU is fast at."""

    def __init__(self, module: nn.Module, context: RunnerContext) -> None:
        super().__init__(context)
        self.dtype, why = half_dtype(self.device)
        if self.exact_on_cpu and self.device.type != "cuda":
            self.dtype = torch.float32
        elif self.device.type != "cuda":
            logger.info("%s: half runs in %s", self.label, why)
        folded = fold_batch_norm(module)
        if self.device.type == "cuda" or self.exact_on_cpu:  # else torch's own attention is faster by a seventh
            folded = plain_attention(folded)
        self.plain = FloatOutputs(folded, self.dtype, CHUNK)

    def _build(self, key: Key) -> Program:
        run = self._inference(self.plain)
        if self.device.type == "cuda":  # cuDNN looks for its algorithms now; on a CPU the second call is no faster
            run(*self._example(key))
        return run

    def _inference(self, candidate: Callable[..., Outputs]) -> Program:
        def run(rendered: Tensor, observed: Tensor) -> Outputs:
            with torch.inference_mode():
                return tuple(candidate(rendered, observed))

        return run


class TracedRunner(HalfRunner):
    """TorchScript of the network of ``half``, one trace a batch size, frozen. FP32 on the CPU."""

    name = "traced"
    exact_on_cpu = True

    def _build(self, key: Key) -> Program:
        example = self._example(key)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # torch.jit is deprecated but works in every supported version
            traced = torch.jit.freeze(torch.jit.trace(self.plain.eval(), example, check_trace=False))
            for _ in range(3):  # the executor specializes during its first runs
                traced(*example)
        return self._inference(traced)


class GraphRunner(HalfRunner):
    """The network of ``half`` as one CUDA graph per batch size; inlined when an outer program is being captured.

    It makes candidates, forms of the network that compute the same, and takes the fastest one for each batch size. Each adds one
    thing to the one before: convolutions with bias, residual and ReLU in one cuDNN kernel; the stem over blocks of pixels;
    residual and layer norm in one pass; joins and embeddings copied 16 bytes at a time; the heads on parallel streams.
    """

    name = "cuda_graph"

    pool: GraphPool

    def __init__(self, module: nn.Module, context: RunnerContext) -> None:
        if context.device.type != "cuda":
            raise BackendUnavailable("CUDA graphs need a CUDA device")
        super().__init__(module, context)
        self.pool = context.pool or GraphPool(self.label, self.device)
        self._candidates: dict[str, Callable[..., Outputs]] = {"plain": self.plain}
        self.network: nn.Module | None = None  # the best fused form whose encoders are still fx graphs: FP8 rewrites it
        best = fuse_conv_relu(self.plain.network)
        if self._try("fused", best):
            blocked = fuse_conv_relu(self.plain.network, stem=True)
            best = blocked if self._try("blocked stem", blocked) else best
            lean = one_pass_norms(best) if self.dtype is torch.float16 else None
            best = lean if lean is not None and self._try("one-pass norms", lean) else best
            self.network = best
            copying = one_pass_copies(best) if self.dtype is torch.float16 else None
            best = copying if copying is not None and self._try("one-pass copies", copying) else best
            if isinstance(best, RefinerNetwork):
                self._try("parallel heads", SideBySideHeads(best, self.device))

    def _try(self, name: str, network: nn.Module) -> bool:
        """Add a network to the candidates if it computes what the plain one does."""
        candidate = FloatOutputs(network, self.dtype, CHUNK)
        compare = partial(disagreement, self.plain, candidate, self._example((2, 2), self.dtype))
        try:
            reason = within_memory_limit(compare, self.device)
        except torch.cuda.OutOfMemoryError as error:
            reason = one_line(error)
        if reason:
            logger.info("%s: %s is left out: %s", self.label, name, reason)
        else:
            self._candidates[name] = candidate
        return not reason

    def _build(self, key: Key) -> Program:
        times: dict[str, float] = {}
        reason = ""
        for name, candidate in self._candidates.items():
            try:
                times[name] = self._time(candidate, key)
            except Exception as error:  # out of memory, a capture that failed, or what Triton raises
                reason = f"{self.label}: {name} is left out for batch {key[0]}: {one_line(error)}"
                logger.info("%s", reason)
        if not times:
            raise BackendUnavailable(reason)
        name = min(times, key=lambda n: times[n])
        shown = ", ".join(f"{n} {t:.3f} ms" for n, t in times.items())
        logger.info("%s: %s batch %d: %s; takes %s", self.label, self.name, key[0], shown, name)
        candidate, buffers = self._candidates[name], self.inputs(*key)
        alone: list[
            GraphedProgram
        ] = []  # captured at the first call outside of a larger program: most are inside of one

        def run(rendered: Tensor, observed: Tensor) -> Outputs:
            if inlining(self.device):
                return candidate(rendered, observed)
            if not alone:
                alone.append(self._graphed(candidate, key, self.pool))
            for buffer, given in zip(buffers, (rendered, observed), strict=True):
                if buffer.data_ptr() != given.data_ptr():
                    buffer.copy_(given)
            return tuple(o.clone() for o in alone[0].replay())

        return run

    def _graphed(self, candidate: Callable[..., Outputs], key: Key, pool: GraphPool) -> GraphedProgram:
        buffers = self.inputs(*key)
        program = GraphedProgram(
            lambda: candidate(*buffers), self.device, name=f"{self.label} batch {key[0]}", pool=pool
        )
        program.prepare()
        if not program.captured:
            raise BackendUnavailable(program.degraded)
        return program

    def inputs(self, rendered: int, observed: int) -> tuple[Tensor, Tensor]:
        """The static inputs (rendered, 6, R, R) and (observed, 6, R, R), channels-last: who writes there saves this runner
        the copy.

        Smaller batches use the front of the largest ones, since only one program of a pool runs at a time.
        """
        pair = [self._input(kept, n) for kept, n in zip(self.pool.inputs, (rendered, observed), strict=True)]
        return pair[0], pair[1]

    def _input(self, kept: list[Tensor], batch: int) -> Tensor:
        size = (self.crop[1], self.crop[1])
        for buffer in kept:
            if buffer.shape[0] >= batch and buffer.dtype == self.dtype and buffer.shape[2:] == size:
                return buffer[:batch]
        with torch.inference_mode(False):  # they are written to inside and outside of it
            kept.append(self._example((batch, 1), self.dtype)[0])
        return kept[-1]

    def _time(self, candidate: Callable[..., Outputs], key: Key) -> float:
        """Milliseconds a replay, in a memory pool of its own that is given back."""
        program = self._graphed(candidate, key, GraphPool(self.pool.name, self.device))
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        repeats = 3 if key[0] > 32 else 20
        stream = torch.cuda.current_stream(self.device)
        program.replay()
        start.record(stream)
        for _ in range(repeats):
            program.replay()
        end.record(stream)
        end.synchronize()
        return start.elapsed_time(end) / repeats


class CompileRunner(HalfRunner):
    """torch.compile (inductor) of the network of ``half``, fixed shapes; in a CUDA graph of its own on CUDA. FP32 on the CPU."""

    name = "compile"
    exact_on_cpu = True

    def __init__(self, module: nn.Module, context: RunnerContext) -> None:
        super().__init__(module, context)
        self.pool = context.pool or GraphPool(self.label, self.device)

    def _build(self, key: Key) -> Program:
        begin = time.perf_counter()
        # static inputs, so that strides of a later call cannot ask for another compilation
        rendered_in, observed_in = self._example(key, self.dtype)
        compiled = torch.compile(self.plain.eval(), dynamic=False, fullgraph=True)
        candidate = self._inference(compiled)
        try:
            import torch._dynamo.config as dynamo

            limit = "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit"
            with dynamo.patch({limit: 64}):  # type: ignore[attr-defined]  # one compilation per batch size, none later
                candidate(rendered_in, observed_in)
        except Exception as error:  # inductor raises whatever its compiler raised
            raise BackendUnavailable(f"torch.compile failed: {one_line(error)}") from error
        logger.info("%s: compiled batch %d in %.0f s", self.label, key[0], time.perf_counter() - begin)
        program = GraphedProgram(
            lambda: candidate(rendered_in, observed_in),
            self.device,
            name=f"{self.label} batch {key[0]}",
            pool=self.pool,
        )
        program.prepare()

        def run(rendered: Tensor, observed: Tensor) -> Outputs:
            rendered_in.copy_(rendered)
            observed_in.copy_(observed)
            if inlining(self.device):
                return candidate(rendered_in, observed_in)
            return tuple(o.clone() for o in program.replay())

        return run


def disagreement(
    reference: nn.Module, candidate: nn.Module, example: tuple[Tensor, Tensor], tolerance: float = 0.05
) -> str:
    """Why ``candidate`` may not stand for ``reference``, "" when it may. tolerance: share of the outputs' range.

    Free memory is filled with NaN first: fused kernels have been known to read the output that they are to write.
    """
    with torch.inference_mode():
        expected = reference(*example)
        if example[0].is_cuda:
            poison = [torch.full((4 << 20,), float("nan"), device=example[0].device) for _ in range(4)]
            poison += [torch.full((1 << k,), float("nan"), device=example[0].device) for k in range(8, 22)]
            del poison
        try:
            found = candidate(*example)
        except torch.cuda.OutOfMemoryError:
            raise  # perhaps the limit of within_memory_limit, which tries again with more
        except Exception as error:  # Warp's compiler, cuDNN and cuBLAS each raise their own
            return one_line(error)
    for a, b in zip(expected, found, strict=True):
        scale = a.abs().max().item() + 1e-3
        worst = (a - b).abs().max().item() / scale
        if not worst < tolerance:
            return f"outputs differ by {worst:.1%} of their range"
    return ""
