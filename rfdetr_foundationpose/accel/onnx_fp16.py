"""An FP32 ONNX graph in FP16, for builders that take their types from the graph."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGEST = float(np.finfo(np.float16).max)


def has_float16(model: bytes) -> bool:
    """Whether a serialized ONNX model holds FP16 weights."""
    return any(w.data_type == TensorProto.FLOAT16 for w in onnx.load_from_string(model).graph.initializer)


def to_float16(model: bytes) -> bytes:
    """The same graph with FP16 weights and arithmetic; inputs and outputs stay FP32, cast at the border.

    Values beyond FP16's range are clipped to it (attention masks of -inf among them keep their meaning).
    Raises ValueError for graphs with control flow, whose inner graphs are not converted.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    for weight in graph.initializer:
        _convert(weight)
    weights = {w.name for w in graph.initializer}
    renamed: dict[str, str] = {}
    first, last = [], []
    for value in graph.input:
        if value.name not in weights and value.type.tensor_type.elem_type == TensorProto.FLOAT:
            renamed[value.name] = f"{value.name}_fp16"
            first.append(helper.make_node("Cast", [value.name], [renamed[value.name]], to=TensorProto.FLOAT16))
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            inner = renamed[value.name] = f"{value.name}_fp16"
            last.append(helper.make_node("Cast", [inner], [value.name], to=TensorProto.FLOAT))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                raise ValueError(
                    f"node {node.name or node.op_type} holds a graph of its own, which cannot be converted"
                )
            if attribute.type == onnx.AttributeProto.TENSOR:
                _convert(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    converted: bytes = proto.SerializeToString()
    onnx.checker.check_model(converted, full_check=True)
    return converted


def _convert(tensor: TensorProto) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    values = numpy_helper.to_array(tensor).clip(-LARGEST, LARGEST).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
