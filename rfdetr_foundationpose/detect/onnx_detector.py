"""RF-DETR as an ONNX file of fixed shape, and run from one: by onnxruntime, or as a TensorRT engine."""

from __future__ import annotations

import copy
import hashlib
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..accel.base import BackendUnavailable
from ..accel.digests import state_digest
from ..engines.engine_provider import EngineProvider, EngineSource
from ..engines.onnx_file import ImageSpec
from ..resources import cache_directory
from . import rfdetr_library as library

if TYPE_CHECKING:
    from rfdetr.detr import RFDETR

    from .backends import Forward, Placement

logger = logging.getLogger(__name__)

OPSET = 17
EXPORT_VERSION = 2
"""What is built from an export is built anew when this number grows: with every change of what is written."""
OUTPUTS = ("boxes", "logits", "masks")
"""The outputs are (1, Q, 4) cxcywh in [0, 1], (1, Q, C + 1), and for segmentation variants (1, Q, R / 4, R / 4); float32."""


class _Exported(nn.Module):
    """float32 in and out, whatever the precision of what is between."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(o.float() for o in self.network(image.to(self.dtype)))


def image_spec(model: RFDETR) -> ImageSpec:
    """What a model's file takes and gives."""
    masks = bool(getattr(model.model_config, "segmentation_head", False))
    return ImageSpec(model.model.resolution, OUTPUTS if masks else OUTPUTS[:2])


def export_detector(model: RFDETR, path: Path, precision: str = "fp32") -> Path:
    """Write a model with shape (1, 3, R, R). precision: "fp32" or "fp16", in which the image encoder is FP16 and what follows
    it FP32 (see keep_float32). The file appears only when onnx.checker has passed it."""
    dtype = torch.float16 if precision == "fp16" else torch.float32
    spec = image_spec(model)
    network = _Exported(_fast(model, dtype).cpu(), dtype).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        unchecked = Path(scratch) / path.name
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter(
                "ignore"
            )  # of tracing, and of the exporter, which is deprecated but needs no onnxscript
            torch.onnx.export(
                network,
                (torch.zeros(spec.input_shape(1)),),
                str(unchecked),
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                opset_version=OPSET,
                dynamo=False,
            )
        onnx.checker.check_model(str(unchecked), full_check=True)
        unchecked.replace(path)
    return path


def _fast(model: RFDETR, dtype: torch.dtype) -> nn.Module:
    """A copy of the network in rfdetr's form for inference, which is the one that can be exported."""
    return copy.deepcopy(library.inference_form(model, trace=False, dtype=dtype))


def detector_source(model: RFDETR, cache: Path | None = None, about: str = "") -> EngineSource:
    """What engines of a model are built from; ``cache``: directory of its ONNX files, None for the user's."""
    spec = image_spec(model)
    state = f"{state_digest(library.network(model))} {spec.size} {EXPORT_VERSION}"
    digest = hashlib.sha256(state.encode()).hexdigest()

    def exported(precision: str) -> Path:
        path = (cache or cache_directory()) / "onnx" / f"detector-{digest[:16]}-{precision}.onnx"
        return path if path.is_file() else export_detector(model, path, precision)

    return EngineSource("detector", digest, spec, exported, about)


def tensorrt(model: RFDETR, place: Placement) -> Forward:
    """Its TensorRT engine. Raises BackendUnavailable where TensorRT does not work here."""
    source = detector_source(model, place.engines.cache)
    precision = "fp16" if place.dtype == torch.float16 else "fp32"
    program = EngineProvider(source, place.device, "detector", place.engines, precision).program(1)
    image_in = program.inputs["image"]
    outputs = [program.outputs[name] for name in source.spec.outputs]

    def forward(image: Tensor) -> tuple[Tensor, ...]:
        image_in.copy_(image)
        program.enqueue()
        return tuple(outputs)

    return forward


def onnxruntime(model: RFDETR, place: Placement) -> Forward:
    """Its ONNX file on onnxruntime's CPU or CUDA provider. Raises BackendUnavailable where that does not work here."""
    precision = "fp16" if place.dtype == torch.float16 else "fp32"
    return run_file(detector_source(model, place.engines.cache).onnx(precision), image_spec(model), place.device)


def run_file(path: Path, spec: ImageSpec, device: torch.device) -> Forward:
    """A forward over an ONNX file. Raises BackendUnavailable where onnxruntime does not run it here."""
    from ..engines.onnxruntime_runner import OnnxRuntimeRunner

    runtime = OnnxRuntimeRunner.check_available(device)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if device.type != "cuda":
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch needs the cores in between
    try:
        session = runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime's own exception classes are not public
        raise BackendUnavailable(f"onnxruntime cannot load {path.name}: {str(error).splitlines()[0]}") from error
    if session.get_providers()[0] != provider:
        raise BackendUnavailable(f"onnxruntime fell back to {session.get_providers()[0]}")

    def forward(image: Tensor) -> tuple[Tensor, ...]:
        found = session.run(list(spec.outputs), {"image": image.float().cpu().numpy()})
        return tuple(torch.from_numpy(np.asarray(o)).to(device) for o in found)

    return forward
