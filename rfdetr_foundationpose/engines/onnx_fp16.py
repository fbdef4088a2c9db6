"""An FP32 ONNX graph in FP16, for builders that take their types from the graph."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

LARGEST = float(np.finfo(np.float16).max)
RANKING = ("att_cross", "linear")
"""The parts of a scorer that compare hypotheses have these names, in the official network and in ours."""


def has_float16(model: bytes) -> bool:
    """Whether a serialized ONNX model holds FP16 weights."""
    return any(w.data_type == TensorProto.FLOAT16 for w in onnx.load_from_string(model).graph.initializer)


def ranking_nodes(model: bytes) -> set[str]:
    """Names of the nodes of a scorer that compare hypotheses: what follows one embedding each, whose attention can leave
    FP16's range. Nodes without a name get one, see ``named``.

    Found by the names of the parts (RANKING), else as what follows the last mean, over tokens. Raises ValueError where
    there is neither.
    """
    graph = named(onnx.load_from_string(model)).graph
    first = [node for node in graph.node if RANKING[0] in node.name.replace(".", "/").split("/")]
    if not first:
        means = [node for node in graph.node if node.op_type in ("ReduceMean", "GlobalAveragePool")]
        if not means:
            raise ValueError("the part of this scorer that ranks cannot be told from the rest: no att_cross, no mean")
        reached = set(means[-1].output)
        first = [node for node in graph.node if reached & set(node.input)]
    found = {node.name for node in first}
    reached = {name for node in first for name in node.output}
    for node in graph.node:  # nodes are in the order of execution
        if node.name in found or reached & set(node.input):
            found.add(node.name)
            reached |= set(node.output)
    return found


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model, with a name for every node."""
    for i, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    return proto


def to_float16(model: bytes, exact: Iterable[str] = ()) -> bytes:
    """The same graph with FP16 weights and arithmetic; inputs and outputs stay FP32, cast at the border.

    exact: names of nodes that stay FP32, see ``ranking_nodes``. Values beyond FP16's range are clipped to it (attention
    masks of -inf among them keep their meaning). Raises ValueError for graphs with control flow, whose inner graphs are
    not converted.
    """
    proto = named(onnx.load_from_string(model))
    return _Conversion(proto, set(exact)).run()


class _Conversion:
    """exact: names of the nodes that stay FP32. A value of the original graph has up to two forms afterwards: under its own
    name in the precision of what makes it, and cast to the other one where that is wanted."""

    def __init__(self, proto: onnx.ModelProto, exact: set[str]) -> None:
        self.proto = proto
        self.graph = proto.graph
        self.exact = exact
        inferred = onnx.shape_inference.infer_shapes(proto).graph
        types = {
            v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)
        }
        types |= {w.name: w.data_type for w in self.graph.initializer}
        # Of unknown type are only values of operators that the inference does not know: these are floats.
        self.floats = {name for name, kind in types.items() if kind == TensorProto.FLOAT}
        made = {name for node in self.graph.node for name in node.output}
        self.floats |= made - set(types)
        self.half: set[str] = set()  # values that are FP16 under their own name
        self.cast: dict[tuple[str, int], str] = {}
        self.nodes: list[NodeProto] = []

    def run(self) -> bytes:
        readers: dict[str, set[bool]] = {}
        for node in self.graph.node:
            for name in node.input:
                readers.setdefault(name, set()).add(node.name in self.exact)
        for weight in self.graph.initializer:
            if readers.get(weight.name) != {True} and weight.data_type == TensorProto.FLOAT:
                _convert(weight)
                self.half.add(weight.name)
        for node in list(self.graph.node):
            self._convert_node(node, readers)
        outputs = [o for o in self.graph.output if o.name in self.half]
        for output in outputs:  # under its own name it must be FP32
            self._rename(output.name, f"{output.name}_fp16")
            self.nodes.append(helper.make_node("Cast", [f"{output.name}_fp16"], [output.name], to=TensorProto.FLOAT))
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.value_info[:]
        converted: bytes = self.proto.SerializeToString()
        onnx.checker.check_model(converted, full_check=True)
        return converted

    def _convert_node(self, node: NodeProto, readers: dict[str, set[bool]]) -> None:
        constant = node.op_type == "Constant"
        exact = node.name in self.exact or (constant and all(readers.get(o) == {True} for o in node.output))
        for attribute in node.attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                raise ValueError(
                    f"node {node.name or node.op_type} holds a graph of its own, which cannot be converted"
                )
            if exact:
                continue
            if attribute.type == onnx.AttributeProto.TENSOR:
                _convert(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        wanted = TensorProto.FLOAT if exact else TensorProto.FLOAT16
        node.input[:] = [self._in(name, wanted) for name in node.input]
        self.nodes.append(node)
        if not exact:
            self.half |= self.floats & set(node.output)

    def _in(self, name: str, wanted: int) -> str:
        """The name of a value in the precision in which a node wants it; a cast is added where it is needed first."""
        if name not in self.floats or (name in self.half) == (wanted == TensorProto.FLOAT16):
            return name
        key = (name, wanted)
        if key not in self.cast:
            self.cast[key] = f"{name}_{'fp16' if wanted == TensorProto.FLOAT16 else 'fp32'}"
            self.nodes.append(helper.make_node("Cast", [name], [self.cast[key]], to=wanted))
        return self.cast[key]

    def _rename(self, old: str, new: str) -> None:
        for node in self.nodes:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]


def _convert(tensor: TensorProto) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    values = numpy_helper.to_array(tensor).clip(-LARGEST, LARGEST).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
