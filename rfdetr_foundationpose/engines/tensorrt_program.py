"""A TensorRT engine with fixed shapes, on torch's stream and buffers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..accel.base import BackendUnavailable
from .kernel_cache import KernelCache
from .tensorrt_build import Shapes
from .tensorrt_library import Library


class EngineProgram:
    """inputs, outputs: name -> static tensor, float32 or as the engine has them. ``enqueue`` runs it.

    cache: file of the kernels that TensorRT for RTX compiles on the GPU, which the next start takes; None for no file.
    Raises BackendUnavailable where the engine does not run on this machine.
    """

    def __init__(
        self,
        library: Library,
        engine: bytes,
        shapes: Shapes,
        outputs: Sequence[str],
        device: torch.device,
        label: str,
        cache: Path | None = None,
    ) -> None:
        self._trt = library.trt
        self._device, self._label = device, label
        self._runtime = library.trt.Runtime(library.logger)
        if reason := invalidity(library, self._runtime, engine):
            raise BackendUnavailable(f"{library.title} cannot run the engine of the {label} here: {reason}")
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise BackendUnavailable(f"{library.title} cannot load the engine of the {label}; its lines above say why")
        self._kernels: KernelCache | None = None
        self._context = self._create_context(cache)
        self.inputs = {name: self._buffer(name, tuple(shape)) for name, shape in shapes.items()}
        for name, shape in shapes.items():
            self._context.set_input_shape(name, tuple(shape))
        self.outputs = {name: self._buffer(name, tuple(self._context.get_tensor_shape(name))) for name in outputs}
        for name, tensor in {**self.inputs, **self.outputs}.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        self._stream = torch.cuda.Stream(device)
        self._default = torch.cuda.default_stream(device)
        self.enqueue()
        torch.cuda.current_stream(device).synchronize()
        if self._kernels is not None:
            self._kernels.keep()

    def enqueue(self) -> None:
        """Run on torch's current stream; waits for nothing."""
        current = torch.cuda.current_stream(self._device)
        if current == self._default:  # TensorRT synchronizes by itself on the default stream
            self._stream.wait_stream(current)
            ok = self._context.execute_async_v3(self._stream.cuda_stream)
            current.wait_stream(self._stream)
        else:
            ok = self._context.execute_async_v3(current.cuda_stream)
        if not ok:
            raise RuntimeError(f"{self._label}: TensorRT refused to run; its lines above say why")

    @property
    def capturable(self) -> bool:
        """Whether calls may be recorded in a CUDA graph: TensorRT for RTX says no while it would still compile."""
        if not hasattr(self._context, "is_stream_capturable"):
            return True
        return bool(self._context.is_stream_capturable(self._stream.cuda_stream))

    def _create_context(self, cache: Path | None) -> Any:
        if not hasattr(self._engine, "create_runtime_config"):
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        strategies = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is not None:  # the shapes are fixed: compile for them now, not while a frame waits
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        if hasattr(config, "create_runtime_cache"):
            compiled = config.create_runtime_cache()
            if cache is not None:
                self._kernels = KernelCache(compiled, cache, self._label)
                torch.cuda.synchronize(self._device)  # what is loaded is compared with the GPU of the current context
                self._kernels.load()
            config.set_runtime_cache(compiled)
        return self._engine.create_execution_context(config)

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Tensor:
        half = self._engine.get_tensor_dtype(name) == self._trt.DataType.HALF
        return torch.zeros(shape, dtype=torch.float16 if half else torch.float32, device=self._device)


def invalidity(library: Library, runtime: Any, engine: bytes) -> str:
    """Why an engine does not run on this machine, as far as the library can tell before it is loaded; "" where it may."""
    if not hasattr(runtime, "get_engine_validity"):
        return ""
    validity, diagnostics = runtime.get_engine_validity(engine)
    if validity != library.trt.EngineValidity.INVALID:
        return ""
    members = library.trt.EngineInvalidityDiagnostics.__members__
    said = [name.lower().replace("_", " ") for name, flag in members.items() if int(flag) & int(diagnostics)]
    return ", ".join(said) or "it gives no reason (no usable GPU or driver)"
