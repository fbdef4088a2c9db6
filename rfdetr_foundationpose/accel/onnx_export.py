"""ONNX files of the pose networks: written from torch, checked, and read back (ours and NVIDIA's NGC files)."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..errors import UserError
from .attention import plain_attention
from .base import as_tuple
from .fold import fold_batch_norm
from .outputs import FloatOutputs

OPSET = 17
INPUTS = ("rendered", "observed")
OUTPUTS = {"refiner": ("trans", "rot"), "scorer": ("scores",)}
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}
CHANNELS = 6


class OnnxFormatError(UserError, ValueError):
    """An ONNX file that is not a refiner or scorer as we know them; the message names what was found and expected."""


@dataclass(frozen=True)
class OnnxSpec:
    """What an ONNX network of crop pairs takes and gives.

    layout: "nchw" or "nhwc" (NVIDIA's NGC files). batch: fixed batch size, or None when it is dynamic.
    shapes: of the outputs as declared, None where a size depends on the batch.
    """

    path: Path
    inputs: tuple[str, str]
    outputs: tuple[str, ...]
    layout: str
    batch: int | None
    size: int
    shapes: tuple[tuple[int | None, ...], ...]

    @property
    def role(self) -> str:
        """ "refiner" or "scorer", told by the number of outputs."""
        return "refiner" if len(self.outputs) == 2 else "scorer"


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


def inspect_onnx(path: str | Path) -> OnnxSpec:
    """Names, layout and batch of a refiner or scorer file. Raises OnnxFormatError when it is neither."""
    path = Path(path)
    if not path.is_file():
        raise OnnxFormatError(f"{path} does not exist")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf has no stable exception of its own
        raise OnnxFormatError(f"{path} is not an ONNX file: {error}") from error
    weights = {w.name for w in graph.initializer}
    inputs = [(i.name, _shape(i)) for i in graph.input if i.name not in weights]
    outputs = [(o.name, _shape(o)) for o in graph.output]
    seen = f"inputs {_show(inputs)}, outputs {_show(outputs)}"
    if len(inputs) != 2 or inputs[0][1] != inputs[1][1]:
        raise OnnxFormatError(f"{path}: {seen}; expected two inputs of one shape: rendered, then observed crops")
    ordered = _order(inputs)
    shape = inputs[0][1]
    if len(shape) != 4 or CHANNELS not in (shape[1], shape[3]):
        raise OnnxFormatError(
            f"{path}: {seen}; expected inputs (N, {CHANNELS}, R, R) or, as NVIDIA's, (N, R, R, {CHANNELS})"
        )
    layout, size = ("nchw", shape[2]) if shape[1] == CHANNELS else ("nhwc", shape[1])
    if size is None:
        raise OnnxFormatError(f"{path}: {seen}; the crop size must be fixed")
    if len(outputs) not in (1, 2):
        raise OnnxFormatError(f"{path}: {seen}; expected two outputs (refiner) or one (scorer)")
    if len(outputs) == 2 and any(s and s[-1] not in (3, None) for _, s in outputs):
        raise OnnxFormatError(f"{path}: {seen}; a refiner has outputs (N, 3) translation and (N, 3) rotation")
    names = _output_order(outputs)
    shapes = dict(outputs)
    return OnnxSpec(path, ordered, names, layout, shape[0], size, tuple(shapes[n] for n in names))


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


def _show(values: list[tuple[str, tuple[int | None, ...]]]) -> str:
    return ", ".join(f"{name} {tuple('N' if d is None else d for d in shape)}" for name, shape in values)


def _order(inputs: list[tuple[str, tuple[int | None, ...]]]) -> tuple[str, str]:
    """Rendered first: by our names or NVIDIA's, else in file order."""
    names = [name for name, _ in inputs]
    for known in (INPUTS, ("input1", "input2")):
        if set(names) == set(known):
            return known
    return names[0], names[1]


def _output_order(outputs: list[tuple[str, tuple[int | None, ...]]]) -> tuple[str, ...]:
    names = tuple(name for name, _ in outputs)
    for known in (OUTPUTS["refiner"], ("output1", "output2")):
        if set(names) == set(known):
            return known
    return names


def compare_with_torch(path: str | Path, module: nn.Module, batch: int = 2, seed: int = 0) -> dict[str, float]:
    """Largest difference of each output to ``module`` in FP32, relative to the output's largest magnitude.

    Runs the file in onnxruntime on the CPU with random crops. ``module`` is an eval-mode network on the CPU.
    """
    import onnxruntime

    spec = inspect_onnx(path)
    batch = spec.batch or batch
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(batch, CHANNELS, spec.size, spec.size, generator=generator) for _ in range(2))
    with torch.inference_mode():
        expected = as_tuple(module(a, b))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = dict(zip(spec.inputs, (_in_layout(a, spec.layout), _in_layout(b, spec.layout)), strict=True))
    found = session.run(list(spec.outputs), {k: v.contiguous().numpy() for k, v in feeds.items()})
    differences = {}
    for name, e, f in zip(spec.outputs, expected, found, strict=True):
        reference = e.numpy().reshape(-1)
        worst = float(np.abs(np.asarray(f, dtype=np.float32).reshape(-1) - reference).max())
        differences[name] = worst / max(float(np.abs(reference).max()), 1e-12)
    return differences


def _in_layout(x: Tensor, layout: str) -> Tensor:
    return x if layout == "nchw" else x.permute(0, 2, 3, 1)


def state_digest(module: nn.Module) -> str:
    """SHA-256 over names, shapes and values of parameters and buffers, hex: tells when an exported file is stale."""
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
