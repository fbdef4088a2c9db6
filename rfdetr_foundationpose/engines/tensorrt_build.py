"""Serialized TensorRT engines from ONNX models: TensorRT 8.5 to 11, and TensorRT for RTX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..accel.base import BackendUnavailable
from .onnx_fp16 import has_float16, ranking_nodes, to_float16
from .tensorrt_library import Library

WORKSPACE_BYTES = 1 << 30

Shapes = Mapping[str, tuple[int, ...]]


def build_engine(
    model: bytes,
    shapes: Shapes,
    precision: str,
    library: Library,
    *,
    targets: Sequence[str] = (),
    role: str = "network",
    fixed: bool = False,
) -> bytes:
    """Serialized engine of an ONNX model for fixed shapes. Raises BackendUnavailable with the library's reason.

    shapes: of each input. precision: "fp16" or "fp32". targets: GPUs that it is for ("sm_89"), () for the GPU at hand.
    role: "scorer" keeps what compares hypotheses in FP32. fixed: the model's own shapes are these already.

    Where networks can be strongly typed (TensorRT 9.1 and later, always in 11 and in TensorRT for RTX) the types come from
    the graph, so that an FP32 model is converted to FP16 first; before that, the FP16 builder flag decides.
    """
    trt = library.trt
    builder = trt.Builder(library.logger)
    config = builder.create_builder_config()
    flags = trt.NetworkDefinitionCreationFlag
    weakly_typed = not hasattr(flags, "STRONGLY_TYPED") and hasattr(trt.BuilderFlag, "FP16")
    creation = 0
    if hasattr(flags, "STRONGLY_TYPED"):
        creation |= 1 << int(flags.STRONGLY_TYPED)
    elif hasattr(flags, "EXPLICIT_BATCH"):
        creation |= 1 << int(flags.EXPLICIT_BATCH)
    exact: set[str] = set()
    if precision == "fp16":
        exact = ranking_nodes(model) if role == "scorer" else set()
        if weakly_typed:
            config.set_flag(trt.BuilderFlag.FP16)
        elif not has_float16(model):
            model = to_float16(model, exact)
    network = builder.create_network(creation)
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse(model):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendUnavailable(f"{library.title} cannot parse the {role}'s ONNX: {errors}")
    if weakly_typed and exact:
        _keep_float32(network, exact, config, trt)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if not fixed:
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, shape, shape, shape)
        config.add_optimization_profile(profile)
    if targets:
        if unknown := [t for t in targets if t not in library.targets]:
            raise BackendUnavailable(library.refusal(unknown[0]))
        config.num_compute_capabilities = len(targets)
        for i, target in enumerate(targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target.replace("_", "").upper()), i)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BackendUnavailable(f"{library.title} could not build an engine of the {role}; its lines above say why")
    return bytes(serialized)


def _keep_float32(network: Any, exact: set[str], config: Any, trt: Any) -> None:
    """Hold the layers of these ONNX nodes to FP32 where a builder flag would let them be FP16."""
    kept = 0
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.name not in exact or layer.type in (trt.LayerType.SHAPE, trt.LayerType.CONSTANT):
            continue
        outputs = [layer.get_output(k) for k in range(layer.num_outputs)]
        if any(o is not None and o.dtype not in (trt.DataType.FLOAT, trt.DataType.HALF) for o in outputs):
            continue
        layer.precision = trt.DataType.FLOAT
        for k in range(layer.num_outputs):
            layer.set_output_type(k, trt.DataType.FLOAT)
        kept += 1
    if not kept:
        raise BackendUnavailable(
            "the layers that rank hypotheses are not found in the parsed network, so that FP16 is unsafe"
        )
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
