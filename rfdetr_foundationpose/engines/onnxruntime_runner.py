"""The onnxruntime backend, on its CPU or CUDA provider, with torch's buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..accel.base import BackendUnavailable, BaseRunner, Key, Outputs, Program, RunnerContext
from .onnx_file import OnnxSpec, inspect_onnx


class OnnxRuntimeRunner(BaseRunner):
    """Runs an ONNX refiner or scorer, ours or NVIDIA's (see onnx_file)."""

    name = "onnxruntime"
    capturable = False

    def __init__(self, path: Path, context: RunnerContext) -> None:
        device = context.device
        onnxruntime = self.check_available(device)
        self.spec: OnnxSpec = inspect_onnx(path)
        super().__init__(context)
        self.files = (path,)
        self.crop = (6, self.spec.size)
        self.fixed_batch = self.spec.batch
        self.library = f"onnxruntime {onnxruntime.__version__}"
        self._stream: torch.cuda.Stream | None = None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            settings: dict[str, Any] = {
                "device_id": device.index or 0,
                "user_compute_stream": str(self._stream.cuda_stream),
                "cudnn_conv_algo_search": "EXHAUSTIVE",
            }
            providers: list[Any] = [("CUDAExecutionProvider", settings)]
        else:
            options.intra_op_num_threads = torch.get_num_threads()
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch needs the cores in between
            providers = ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's own exception classes are not public
            raise BackendUnavailable(
                f"onnxruntime cannot load {path.name}: {str(error).strip().splitlines()[0]}"
            ) from error
        active = self._session.get_providers()[0]
        if device.type == "cuda" and active != "CUDAExecutionProvider":
            raise BackendUnavailable(f"onnxruntime fell back to {active}: its CUDA libraries do not load here")
        self._run_options = onnxruntime.RunOptions()
        if device.type == "cuda":  # torch's stream orders the work; onnxruntime need not wait for it
            self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    @staticmethod
    def check_available(device: torch.device) -> Any:
        """The onnxruntime module. Raises BackendUnavailable with the reason why the backend cannot run on ``device``."""
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailable(f"onnxruntime is not installed ({error}); pip install onnxruntime") from error
        available = onnxruntime.get_available_providers()
        if device.type == "cuda" and "CUDAExecutionProvider" not in available:
            raise BackendUnavailable(
                f"this onnxruntime has no CUDA provider (it has {', '.join(available)}); pip install onnxruntime-gpu"
            )
        return onnxruntime

    def _build(self, key: Key) -> Program:
        batch = key[0]
        shape = self.spec.input_shape(batch)
        buffers = [torch.zeros(shape, device=self.device) for _ in range(2)]
        views = [self.spec.as_crops(b) for b in buffers]
        outputs = self._output_buffers(batch, shape)
        binding = self._bind(dict(zip(self.spec.inputs, buffers, strict=True)), outputs)
        results = self.spec.unpack(list(outputs.values()))  # views of the static buffers

        def run(rendered: Tensor, observed: Tensor) -> Outputs:
            views[0].copy_(rendered)
            views[1].copy_(observed)
            if self._stream is None:
                self._session.run_with_iobinding(binding, self._run_options)
            else:
                self._stream.wait_stream(torch.cuda.current_stream(self.device))
                self._session.run_with_iobinding(binding, self._run_options)
                torch.cuda.current_stream(self.device).wait_stream(self._stream)
            return results

        return run

    def _output_buffers(self, batch: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        shapes: list[tuple[int, ...]] = [tuple(batch if d is None else d for d in s) for s in self.spec.shapes]
        if any(not s or s.count(None) > 1 for s in self.spec.shapes):  # not declared: one run tells
            feeds = {name: np.zeros(shape, np.float32) for name in self.spec.inputs}
            shapes = [tuple(o.shape) for o in self._session.run(list(self.spec.outputs), feeds)]
        return {n: torch.zeros(s, device=self.device) for n, s in zip(self.spec.outputs, shapes, strict=True)}

    def _bind(self, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Any:
        binding = self._session.io_binding()
        where = (self.device.type, self.device.index or 0)
        for name, tensor in inputs.items():
            binding.bind_input(name, *where, np.float32, tuple(tensor.shape), tensor.data_ptr())
        for name, tensor in outputs.items():
            binding.bind_output(name, *where, np.float32, tuple(tensor.shape), tensor.data_ptr())
        return binding
