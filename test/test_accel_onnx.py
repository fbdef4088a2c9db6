"""ONNX out and in: checked files that agree with torch, FP16 conversion, NVIDIA's layout and names."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from rfdetr_foundationpose.accel import RunnerContext, runner_from_onnx
from rfdetr_foundationpose.accel.attention import plain_attention
from rfdetr_foundationpose.accel.base import as_tuple
from rfdetr_foundationpose.accel.onnx_export import (
    OUTPUTS,
    OnnxFormatError,
    compare_with_torch,
    export_onnx,
    inspect_onnx,
    state_digest,
)
from rfdetr_foundationpose.accel.onnx_fp16 import has_float16, to_float16
from rfdetr_foundationpose.pose.build import _Source
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet

ort = pytest.importorskip("onnxruntime")
SIZE = 64
NETWORKS = {"refiner": RefineNet, "scorer": ScoreNet}


def network(role: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[role](width=0.125, crop_size=SIZE).eval()


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
        differences = compare_with_torch(path, module, batch=n)
        assert set(differences) == set(OUTPUTS[role])
        assert all(d < tolerance for d in differences.values()), differences
    other = compare_with_torch(path, network(role, seed=1))
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
    half = tmp_path / "fp16.onnx"
    half.write_bytes(to_float16(path.read_bytes()))
    graph = onnx.load(str(half)).graph
    assert not any(w.data_type == TensorProto.FLOAT for w in graph.initializer)
    assert half.stat().st_size < 0.7 * path.stat().st_size
    assert all(v.type.tensor_type.elem_type == TensorProto.FLOAT for v in (*graph.input, *graph.output))
    assert max(compare_with_torch(half, module, batch=4).values()) < 2e-2


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


class NvidiaLayout(nn.Module):
    """A network as in NVIDIA's files: NHWC in, the scorer's output with a group dimension."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, a, b):
        outputs = self.inner(a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2))
        return outputs if isinstance(outputs, tuple) else outputs[None]


def nvidia_file(module: nn.Module, path, names=("input1", "input2"), batch_axis: bool = True):
    outputs = ["output1", "output2"][: 2 if isinstance(module, RefineNet) else 1]
    axes = {name: {0: "N"} for name in names} | {o: {(0 if len(outputs) == 2 else 1): "N"} for o in outputs}
    example = torch.zeros(2, SIZE, SIZE, 6)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            NvidiaLayout(plain_attention(module)),
            (example, example),
            str(path),
            input_names=list(names),
            output_names=outputs,
            dynamic_axes=axes if batch_axis else {},
            opset_version=17,
            dynamo=False,
        )
    return path


@pytest.mark.parametrize("role", NETWORKS)
def test_nvidias_layout_runs_as_ours(role, tmp_path, said):
    module = network(role)
    path = nvidia_file(module, tmp_path / "ngc.onnx")
    spec = inspect_onnx(path)
    assert (spec.role, spec.layout, spec.batch, spec.inputs) == (role, "nhwc", None, ("input1", "input2"))
    runner = runner_from_onnx(path, "auto", RunnerContext(label=role), batches=(2,))
    assert runner.name == "onnxruntime"
    assert any("tensorrt not available" in line for line in said)
    for n, m in ((2, 2), (5, 5), (4, 1)):
        a, b = torch.rand(n, 6, SIZE, SIZE), torch.rand(m, 6, SIZE, SIZE)
        with torch.inference_mode():
            expected = as_tuple(module(a, b))
        for e, f in zip(expected, runner(a, b), strict=True):
            torch.testing.assert_close(f, e, rtol=1e-3, atol=1e-5)


def test_onnx_weights_with_a_backend_that_cannot_run_them_say_what_runs(tmp_path, said):
    path = export_onnx(RefineNet(0.125).eval(), tmp_path / "refine_model.onnx", outputs=("trans", "rot"))
    runner = _Source(path, "ours").runner("half", RunnerContext(label="refiner"), (1,))
    assert runner.name == "onnxruntime"
    assert (
        runner.degraded
        == said[-1]
        == ("refiner: refine_model.onnx is an ONNX file, which half cannot run; onnxruntime does")
    )
    assert _Source(path, "ours").runner("auto", RunnerContext(label="refiner"), (1,)).degraded == ""


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
        ([("a", ["N", 6, "R", "R"]), ("b", ["N", 6, "R", "R"])], [("y", ["N"])], "crop size must be fixed"),
    ],
)
def test_other_networks_are_refused_by_name(inputs, outputs, message, tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(graph_of(inputs, outputs))
    with pytest.raises(OnnxFormatError, match=message) as caught:
        inspect_onnx(path)
    assert inputs[0][0] in str(caught.value) and outputs[0][0] in str(caught.value)


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
