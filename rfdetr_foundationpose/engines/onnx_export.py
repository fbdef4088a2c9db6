"""ONNX files of the pose networks: written from torch, checked, and compared with it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..accel.attention import plain_attention
from ..accel.base import Outputs, as_tuple
from ..accel.fold import fold_batch_norm
from ..accel.outputs import FloatOutputs
from .onnx_file import CHANNELS, INPUTS, OUTPUTS, inspect_onnx

OPSET = 17
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}
EXPORT_VERSION = 1
"""What is built from an export is built anew when this number grows: with every change of what is written."""


def export_onnx(
    module: nn.Module,
    path: str | Path,
    *,
    outputs: Sequence[str],
    precision: str = "fp32",
    batch: int | None = None,
    size: int = 160,
    opset: int = OPSET,
) -> Path:
    """Write ``module`` (eval mode, CPU) with folded norms; float32 inputs (N, 6, size, size) and outputs either way.

    precision "fp16" casts inside the graph, so that a strongly typed TensorRT build runs FP16. batch None: dynamic.
    The file appears only when onnx.checker has passed it. Raises ValueError for arguments that make no sense.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}")
    if opset < 17:
        raise ValueError(f"opset={opset} must be at least 17 (layer normalization)")
    path = Path(path)
    network = FloatOutputs(plain_attention(fold_batch_norm(module)), PRECISIONS[precision]).eval()
    example = torch.zeros(2 if batch is None else batch, CHANNELS, size, size)
    names = (*INPUTS, *outputs)
    axes = {name: {0: "batch"} for name in names} if batch is None else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        unchecked = Path(scratch) / path.name
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecation of the TorchScript exporter; the other one needs onnxscript
            torch.onnx.export(
                network,
                (example, example),
                str(unchecked),
                input_names=list(INPUTS),
                output_names=list(outputs),
                dynamic_axes=axes,
                opset_version=opset,
                dynamo=False,
            )
        onnx.checker.check_model(str(unchecked), full_check=True)
        inspect_onnx(unchecked)
        unchecked.replace(path)
    return path


def run_onnx(path: str | Path, rendered: Tensor, observed: Tensor) -> Outputs:
    """What a file gives in onnxruntime on the CPU, as a runner would. rendered, observed: (N, 6, R, R) on the CPU."""
    import onnxruntime

    spec = inspect_onnx(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {}
    for name, crops in zip(spec.inputs, (rendered, observed), strict=True):
        buffer = torch.empty(spec.input_shape(len(crops)))
        spec.as_crops(buffer).copy_(crops)
        feeds[name] = buffer.numpy()
    return spec.unpack([torch.from_numpy(np.asarray(o)) for o in session.run(list(spec.outputs), feeds)])


def compare_with_torch(path: str | Path, module: nn.Module, crops: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Largest difference of each output to ``module`` in FP32, relative to the output's largest magnitude; infinite where an
    output is not finite.

    module: an eval-mode network on the CPU. crops: rendered and observed, (N, 6, R, R).
    """
    with torch.inference_mode():
        expected = as_tuple(module(*crops))
    found = run_onnx(path, *crops)
    differences = {}
    for name, e, f in zip(OUTPUTS[inspect_onnx(path).role], expected, found, strict=True):
        worst = (f.reshape(-1) - e.reshape(-1)).abs().max().item() / max(e.abs().max().item(), 1e-12)
        differences[name] = worst if np.isfinite(worst) else float("inf")
    return differences
