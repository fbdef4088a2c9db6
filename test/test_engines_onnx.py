"""ONNX out and in: checked files that agree with torch, FP16 conversion, NVIDIA's layout and names."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from rfdetr_foundationpose.accel import RunnerContext
from rfdetr_foundationpose.accel.attention import plain_attention
from rfdetr_foundationpose.accel.base import as_tuple
from rfdetr_foundationpose.accel.digests import state_digest
from rfdetr_foundationpose.engines.onnx_export import compare_with_torch, export_onnx
from rfdetr_foundationpose.engines.onnx_file import OUTPUTS, OnnxFormatError, inspect_onnx
from rfdetr_foundationpose.engines.onnx_fp16 import has_float16, ranking_nodes, to_float16
from rfdetr_foundationpose.engines.runners import runner_from_onnx
from rfdetr_foundationpose.pose.build import _Source
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet

ort = pytest.importorskip("onnxruntime")
SIZE = 64
NETWORKS = {"refiner": RefineNet, "scorer": ScoreNet}


def network(role: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[role](width=0.125, crop_size=SIZE).eval()


def crops(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(n, 6, SIZE, SIZE, generator=generator) for _ in range(2))


@pytest.mark.parametrize("role", NETWORKS)
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("fp16", 2e-2)])
@pytest.mark.parametrize("batch", [None, 3])
def test_export_agrees_with_torch(role, precision, tolerance, batch, tmp_path):
    module = network(role)
    path = export_onnx(
        module, tmp_path / "new" / f"{role}.onnx", outputs=OUTPUTS[role], precision=precision, batch=batch, size=SIZE
    )
    spec = inspect_onnx(path)
    assert (spec.role, spec.layout, spec.batch, spec.size) == (role, "nchw", batch, SIZE)
    assert spec.inputs == ("rendered", "observed") and spec.outputs == OUTPUTS[role]
    assert has_float16(path.read_bytes()) == (precision == "fp16")
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(str(path)).graph.node)
    for n in (1, 5) if batch is None else (3,):
        differences = compare_with_torch(path, module, crops(n))
        assert set(differences) == set(OUTPUTS[role])
        assert all(d < tolerance for d in differences.values()), differences
    other = compare_with_torch(path, network(role, seed=1), crops(batch or 2))
    assert max(other.values()) > 0.1, "the comparison must see that the weights are others"
    assert list(path.parent.iterdir()) == [path], "nothing else may be left behind"


def test_nothing_appears_when_export_fails(tmp_path):
    class Fails(nn.Module):
        def forward(self, a, b):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        export_onnx(Fails().eval(), tmp_path / "x.onnx", outputs=["y"], size=SIZE)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="precision='int8'"):
        export_onnx(network("refiner"), tmp_path / "x.onnx", outputs=["y"], precision="int8")
    with pytest.raises(ValueError, match="opset=11"):
        export_onnx(network("refiner"), tmp_path / "x.onnx", outputs=["y"], opset=11)


@pytest.mark.parametrize("role", NETWORKS)
def test_fp16_conversion_of_an_fp32_file(role, tmp_path):
    module = network(role)
    path = export_onnx(module, tmp_path / "fp32.onnx", outputs=OUTPUTS[role], size=SIZE)
    model = path.read_bytes()
    exact = ranking_nodes(model) if role == "scorer" else ()
    half = tmp_path / "fp16.onnx"
    half.write_bytes(to_float16(model, exact))
    graph = onnx.load(str(half)).graph
    single = {w.name for w in graph.initializer if w.data_type == TensorProto.FLOAT}
    readers = {node.name for node in graph.node if single & set(node.input)}
    assert readers <= set(exact) and bool(single) == (role == "scorer"), "only what ranks stays FP32"
    assert half.stat().st_size < 0.7 * path.stat().st_size
    assert all(v.type.tensor_type.elem_type == TensorProto.FLOAT for v in (*graph.input, *graph.output))
    assert max(compare_with_torch(half, module, crops(4)).values()) < 2e-2


@pytest.mark.parametrize("how", ["exported", "converted", "converted without names"])
def test_a_scorer_keeps_its_ranking_in_float32(how, tmp_path):
    module = network("scorer")
    path = tmp_path / "fp16.onnx"
    if how == "exported":
        export_onnx(module, path, outputs=OUTPUTS["scorer"], precision="fp16", size=SIZE)
    else:
        exported = export_onnx(module, tmp_path / "fp32.onnx", outputs=OUTPUTS["scorer"], size=SIZE)
        proto = onnx.load(str(exported))
        if how == "converted without names":
            for node in proto.graph.node:
                node.name = ""
        model = proto.SerializeToString()
        path.write_bytes(to_float16(model, ranking_nodes(model)))
        path.with_suffix(".plain").write_bytes(to_float16(model))
        overflowing = onnx.load(str(path.with_suffix(".plain"))).graph
        assert not any(w.data_type == TensorProto.FLOAT for w in overflowing.initializer)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.value_info}
    types |= {w.name: w.data_type for w in inferred.initializer}
    products = [node for node in inferred.node if node.op_type in ("MatMul", "Gemm", "Softmax")]
    kinds = [{types.get(name) for name in node.input} for node in products]
    # Of the scorer's two attentions the one over tokens is FP16, the one over hypotheses FP32, and so is what follows.
    last = max(i for i, kind in enumerate(kinds) if TensorProto.FLOAT16 in kind)
    exact = kinds[last + 1 :]
    assert len(exact) == 6 and all(kind == {TensorProto.FLOAT} for kind in exact), (
        "projections, logits, softmax, sums, linear"
    )
    assert max(compare_with_torch(path, module, crops(12)).values()) < 2e-2


def test_a_scorer_whose_ranking_cannot_be_found_is_not_converted():
    model = graph_of([("a", ["N", 6, 160, 160]), ("b", ["N", 6, 160, 160])], [("score", [1, "N"])])
    with pytest.raises(ValueError, match="ranks cannot be told from the rest"):
        ranking_nodes(model)


def test_fp16_conversion_clips_what_does_not_fit():
    weight = onnx.numpy_helper.from_array(np.array([1e9, -1e9, 1.5], np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(to_float16(model.SerializeToString()), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(y, np.array([65504, -65504, 1.5], np.float32))


class NvidiaForm(nn.Module):
    """A network as in NVIDIA's files. nhwc: channels come last. combined: translation and rotation are one output (N, 6). The
    scorer's output has a group dimension."""

    def __init__(self, inner: nn.Module, nhwc: bool, combined: bool) -> None:
        super().__init__()
        self.inner, self.nhwc, self.combined = inner, nhwc, combined

    def forward(self, a, b):
        if self.nhwc:
            a, b = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)
        outputs = self.inner(a, b)
        if not isinstance(outputs, tuple):
            return outputs[None]
        return torch.cat(outputs, dim=1) if self.combined else outputs


FORMS = {
    "Isaac ROS": (("input1", "input2"), {"refiner": ("output1", "output2"), "scorer": ("output1",)}, True, False),
    "deployable_v1.0": (("inputA", "inputB"), {"refiner": ("trans", "rot"), "scorer": ("score",)}, False, False),
    "combined": (("inputA", "inputB"), {"refiner": ("output",), "scorer": ("score",)}, False, True),
}
"""Names of inputs and outputs, NHWC, and whether a refiner's outputs are one."""


def nvidia_file(module: nn.Module, path, form="Isaac ROS", names=None, batch_axis: bool = True):
    inputs, outputs, nhwc, combined = FORMS[form]
    names = names or inputs
    outputs = outputs["refiner" if isinstance(module, RefineNet) else "scorer"]
    batch_at = 0 if isinstance(module, RefineNet) else 1
    axes = {name: {0: "N"} for name in names} | {o: {batch_at: "N"} for o in outputs}
    example = torch.zeros(2, SIZE, SIZE, 6) if nhwc else torch.zeros(2, 6, SIZE, SIZE)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            NvidiaForm(plain_attention(module), nhwc, combined),
            (example, example),
            str(path),
            input_names=list(names),
            output_names=list(outputs),
            dynamic_axes=axes if batch_axis else {},
            opset_version=17,
            dynamo=False,
        )
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("role", NETWORKS)
def test_nvidias_files_run_as_ours(role, form, tmp_path, said):
    module = network(role)
    path = nvidia_file(module, tmp_path / "ngc.onnx", form)
    spec = inspect_onnx(path)
    inputs, _, nhwc, combined = FORMS[form]
    assert (spec.role, spec.layout, spec.batch, spec.inputs) == (role, "nhwc" if nhwc else "nchw", None, inputs)
    assert spec.combined == (combined and role == "refiner")
    runner = runner_from_onnx(path, "auto", RunnerContext(label=role), batches=(2,))
    assert runner.name == "onnxruntime"
    assert any("tensorrt not available" in line for line in said)
    for n, m in ((2, 2), (5, 5), (4, 1)):
        a, b = torch.rand(n, 6, SIZE, SIZE), torch.rand(m, 6, SIZE, SIZE)
        with torch.inference_mode():
            expected = as_tuple(module(a, b))
        for e, f in zip(expected, runner(a, b), strict=True):
            torch.testing.assert_close(f, e, rtol=1e-3, atol=1e-5)


def test_a_fixed_batch_of_six_is_told_from_a_combined_output(tmp_path):
    """(1, 6) are scores of six hypotheses, (6, 6) are six combined updates."""
    inputs = [(name, [6, 6, SIZE, SIZE]) for name in ("inputA", "inputB")]
    path = tmp_path / "six.onnx"
    for shape, role in (([1, 6], "scorer"), ([6, 6], "refiner")):
        path.write_bytes(graph_of(inputs, [("out", shape)]))
        assert inspect_onnx(path).role == role


def test_unknown_names_are_taken_in_file_order_which_is_said(tmp_path, said):
    path = nvidia_file(network("refiner"), tmp_path / "odd.onnx", "deployable_v1.0", names=("first", "second"))
    assert inspect_onnx(path).inputs == ("first", "second")
    assert any("taken for rendered, observed, in this order" in line for line in said)


def test_onnx_weights_with_a_backend_that_cannot_run_them_say_what_runs(tmp_path, said):
    path = export_onnx(RefineNet(0.125).eval(), tmp_path / "refine_model.onnx", outputs=("trans", "rot"))
    runner = _Source(path, "ours", official=False).runner("half", RunnerContext(label="refiner"), (1,))
    assert runner.name == "onnxruntime"
    assert (
        runner.degraded
        == said[-1]
        == ("refiner: refine_model.onnx is an ONNX file, which half cannot run; onnxruntime does")
    )
    assert _Source(path, "ours", official=False).runner("auto", RunnerContext(label="refiner"), (1,)).degraded == ""


def test_inputs_are_taken_by_name_not_by_order(tmp_path):
    module = network("refiner")
    path = nvidia_file(module, tmp_path / "swapped.onnx", names=("input2", "input1"))
    runner = runner_from_onnx(path, "onnxruntime")
    a, b = torch.rand(1, 6, SIZE, SIZE), torch.rand(1, 6, SIZE, SIZE)
    with torch.inference_mode():
        expected = module(b, a)  # this file calls the second crop input1
    torch.testing.assert_close(runner(a, b)[0], expected[0], rtol=1e-3, atol=1e-5)


def test_fixed_batch_refuses_another(tmp_path):
    path = nvidia_file(network("refiner"), tmp_path / "fixed.onnx", batch_axis=False)
    runner = runner_from_onnx(path, "onnxruntime")
    with pytest.raises(RuntimeError, match="fixed batch of 2, 3 was asked for"):
        runner(torch.rand(3, 6, SIZE, SIZE), torch.rand(3, 6, SIZE, SIZE))


def graph_of(inputs, outputs):
    values = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in group] for group in (inputs, outputs)]
    nodes = [helper.make_node("Identity", [inputs[0][0]], [name]) for name, _ in outputs]
    model = helper.make_model(helper.make_graph(nodes, "g", *values), opset_imports=[helper.make_opsetid("", 17)])
    return model.SerializeToString()


CROPS = ["N", 6, 160, 160]


@pytest.mark.parametrize(
    "inputs, outputs, message",
    [
        ([("x", CROPS)], [("y", ["N", 3])], "expected two inputs"),
        ([("a", CROPS), ("b", ["N", 3, 160, 160])], [("y", ["N", 3])], "expected two inputs of one shape"),
        ([("a", ["N", 3, 160, 160]), ("b", ["N", 3, 160, 160])], [("y", ["N", 3])], r"expected inputs \(N, 6, R, R\)"),
        ([("a", CROPS), ("b", CROPS)], [("t", ["N", 3]), ("r", ["N", 9])], r"outputs \(N, 3\)"),
        ([("a", CROPS), ("b", CROPS)], [("x", [1]), ("y", [1]), ("z", [1])], "expected two outputs"),
        ([("a", ["N", 6, 160, 120]), ("b", ["N", 6, 160, 120])], [("y", ["N"])], "crops must be square"),
    ],
)
def test_other_networks_are_refused_by_name(inputs, outputs, message, tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(graph_of(inputs, outputs))
    with pytest.raises(OnnxFormatError, match=message) as caught:
        inspect_onnx(path)
    assert inputs[0][0] in str(caught.value) and outputs[0][0] in str(caught.value)


def test_a_dynamic_crop_size_is_the_official_one(tmp_path):
    path = tmp_path / "dynamic.onnx"
    shape = ["N", 6, "H", "W"]
    path.write_bytes(graph_of([("inputA", shape), ("inputB", shape)], [("trans", ["N", 3]), ("rot", ["N", 3])]))
    assert inspect_onnx(path).size == 160


def test_files_that_are_no_onnx_are_refused(tmp_path):
    path = tmp_path / "x.onnx"
    with pytest.raises(OnnxFormatError, match="does not exist"):
        inspect_onnx(path)
    path.write_bytes(b"\xff\xfe not a model")
    with pytest.raises(OnnxFormatError, match="not an ONNX file"):
        runner_from_onnx(path, "onnxruntime")
    with pytest.raises(ValueError, match="backend='traced' needs a torch module"):
        runner_from_onnx(path, "traced")


def test_digest_follows_the_weights():
    first = network("refiner")
    digest = state_digest(first)
    assert digest == state_digest(network("refiner"))
    with torch.no_grad():
        next(first.parameters()).view(-1)[0] += 1e-6
    assert digest != state_digest(first)
