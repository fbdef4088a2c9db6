"""The tensorrt backend of refiner and scorer: engines from a folder that was built before, or built here."""

from __future__ import annotations

import torch
from torch import Tensor

from ..accel.base import BaseRunner, Key, Outputs, Program, RunnerContext
from .engine_provider import EngineProvider, EngineSource
from .onnx_file import OnnxSpec


class TensorRTRunner(BaseRunner):
    """An ONNX refiner or scorer as TensorRT engines, one per batch size."""

    name = "tensorrt"
    dtype = torch.float16

    def __init__(self, source: EngineSource, context: RunnerContext, *, precision: str = "fp16") -> None:
        super().__init__(context)
        assert isinstance(source.spec, OnnxSpec)
        self._spec = source.spec
        self._provider = EngineProvider(source, context.device, context.label, context.engines, precision)
        self.library = self._provider.about
        self.crop = (6, self._spec.size)
        self.fixed_batch = self._spec.batch

    def _build(self, key: Key) -> Program:
        spec, program = self._spec, self._provider.program(key[0])
        self.capturable = self.capturable and program.capturable
        rendered_in, observed_in = (spec.as_crops(program.inputs[name]) for name in spec.inputs)
        outputs = [program.outputs[name] for name in spec.outputs]

        def run(rendered: Tensor, observed: Tensor) -> Outputs:
            rendered_in.copy_(rendered)
            observed_in.copy_(observed)
            program.enqueue()
            return spec.unpack(outputs)

        return run
