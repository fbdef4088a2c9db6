"""The tensorrt backend: build an engine from ONNX (TensorRT 8.6, 10, 11) and run it on torch's stream and buffers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import BackendUnavailable, BaseRunner, Key, Outputs, Program, RunnerContext
from .engine_cache import EngineCache, EngineKey
from .onnx_export import file_digest, inspect_onnx
from .onnx_fp16 import has_float16, to_float16

logger = logging.getLogger(__name__)

WORKSPACE_BYTES = 1 << 30


def import_tensorrt() -> Any:
    """The ``tensorrt`` module. Raises BackendUnavailable where it is missing or too old."""
    try:
        import tensorrt
    except ImportError as error:
        raise BackendUnavailable(f"TensorRT is not installed ({error})") from error
    version = getattr(tensorrt, "__version__", "unknown")
    if not hasattr(tensorrt, "OnnxParser"):
        raise BackendUnavailable(f"the installed tensorrt {version} is a stub without OnnxParser")
    if tuple(int(p) for p in version.split(".")[:2]) < (8, 5):
        raise BackendUnavailable(f"TensorRT {version} is too old: 8.5 or later has the tensor-address API")
    return tensorrt


def build_engine(onnx_path: Path, precision: str, batch: int, trt: Any) -> bytes:
    """Serialized engine for a fixed batch. precision: "fp16" or "fp32". Raises BackendUnavailable with TensorRT's reason.

    Where networks can be strongly typed (9.1 and later; always in 11) the types come from the graph, so an FP32 file is
    converted to FP16 first; before that, the FP16 builder flag decides.
    """
    spec = inspect_onnx(onnx_path)
    model = onnx_path.read_bytes()
    own = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(own)
    config = builder.create_builder_config()
    flags = trt.NetworkDefinitionCreationFlag
    weakly_typed = not hasattr(flags, "STRONGLY_TYPED") and hasattr(trt.BuilderFlag, "FP16")
    creation = 0
    if hasattr(flags, "STRONGLY_TYPED"):
        creation |= 1 << int(flags.STRONGLY_TYPED)
    elif hasattr(flags, "EXPLICIT_BATCH"):
        creation |= 1 << int(flags.EXPLICIT_BATCH)
    if precision == "fp16":
        if weakly_typed:
            config.set_flag(trt.BuilderFlag.FP16)
        elif not has_float16(model):
            model = to_float16(model)
    network = builder.create_network(creation)
    parser = trt.OnnxParser(network, own)
    if not parser.parse(model):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendUnavailable(f"TensorRT cannot parse {onnx_path.name}: {errors}")
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if spec.batch is None:
        profile = builder.create_optimization_profile()
        shape = input_shape(spec.layout, batch, spec.size)
        for name in spec.inputs:
            profile.set_shape(name, shape, shape, shape)
        config.add_optimization_profile(profile)
    typing = "FP16 flag" if weakly_typed else "strongly typed"
    logger.info("TensorRT %s: %s, %s, batch %d", trt.__version__, onnx_path.name, typing, batch)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BackendUnavailable(f"TensorRT could not build an engine from {onnx_path.name}; its log above says why")
    return bytes(serialized)


def input_shape(layout: str, batch: int, size: int) -> tuple[int, int, int, int]:
    """Shape of an input in "nchw" or "nhwc"."""
    return (batch, 6, size, size) if layout == "nchw" else (batch, size, size, 6)


class TensorRTRunner(BaseRunner):
    """An ONNX refiner or scorer as TensorRT engines, one per batch size, from the engine cache."""

    name = "tensorrt"
    dtype = torch.float16

    def __init__(self, path: Path, context: RunnerContext, *, precision: str = "fp16") -> None:
        device = context.device
        self._trt = self.check_available(device)
        self.spec = inspect_onnx(path)
        super().__init__(context)
        self.crop = (6, self.spec.size)
        self.fixed_batch = self.spec.batch
        self.precision = precision
        self._cache = EngineCache(None if context.cache_dir is None else context.cache_dir / "engines")
        self._digest = file_digest(path)
        self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.WARNING))
        self._stream = torch.cuda.Stream(device)

    @staticmethod
    def check_available(device: torch.device) -> Any:
        """The tensorrt module. Raises BackendUnavailable with the reason why the backend cannot run on ``device``."""
        if device.type != "cuda":
            raise BackendUnavailable("TensorRT needs a CUDA device")
        return import_tensorrt()

    def engine(self, batch: int) -> bytes:
        """The serialized engine for a batch size, built and cached when it is not there or no longer fits."""
        shape = input_shape(self.spec.layout, batch, self.spec.size)
        key = EngineKey.make(
            self.context.role,
            self.device,
            self._trt.__version__,
            self.precision,
            self._digest,
            dict.fromkeys(self.spec.inputs, shape),
        )
        return self._cache.get_or_build(key, lambda: build_engine(self.spec.path, self.precision, batch, self._trt))

    def _build(self, key: Key) -> Program:
        engine = self._runtime.deserialize_cuda_engine(self.engine(key[0]))
        if engine is None:
            raise BackendUnavailable("TensorRT cannot deserialize the engine; its log above says why")
        context = engine.create_execution_context()
        shape = input_shape(self.spec.layout, key[0], self.spec.size)
        buffers = {name: self._buffer(engine, name, shape) for name in self.spec.inputs}
        for name in self.spec.inputs:
            context.set_input_shape(name, shape)
        outputs = {
            name: self._buffer(engine, name, tuple(context.get_tensor_shape(name))) for name in self.spec.outputs
        }
        for name, tensor in {**buffers, **outputs}.items():
            context.set_tensor_address(name, tensor.data_ptr())
        a, b = (t if self.spec.layout == "nchw" else t.permute(0, 3, 1, 2) for t in buffers.values())
        grouped = self.spec.role == "scorer" and self.spec.layout == "nhwc"
        default = torch.cuda.default_stream(self.device)

        def run(rendered: Tensor, observed: Tensor) -> Outputs:
            a.copy_(rendered)
            b.copy_(observed)
            current = torch.cuda.current_stream(self.device)
            if current == default:  # TensorRT synchronizes by itself on the default stream
                self._stream.wait_stream(current)
                ok = context.execute_async_v3(self._stream.cuda_stream)
                current.wait_stream(self._stream)
            else:
                ok = context.execute_async_v3(current.cuda_stream)
            if not ok:
                raise RuntimeError(f"{self.label}: TensorRT refused to run batch {key[0]}; its log above says why")
            return tuple((o.reshape(-1) if grouped else o).float() for o in outputs.values())

        run(*self._example(key))
        torch.cuda.current_stream(self.device).synchronize()
        return run

    def _buffer(self, engine: Any, name: str, shape: tuple[int, ...]) -> Tensor:
        half = engine.get_tensor_dtype(name) == self._trt.DataType.HALF
        return torch.zeros(shape, dtype=torch.float16 if half else torch.float32, device=self.device)
