"""The hot path holds nothing that waits for the device: no read-backs, no printing, no cache emptying, no synchronization."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "rfdetr_foundationpose"

WAITS = {
    "item",
    "tolist",
    "cpu",
    "numpy",
    "nonzero",
    "unique",
    "masked_select",
    "synchronize",
    "wait",
    "empty_cache",
    "pin_memory",
}

# Module -> functions of the hot path, by qualified name; "*" is the whole module.
HOT_PATH = {
    "accel/base.py": ["BaseRunner.__call__"],
    "accel/network.py": ["*"],
    "accel/outputs.py": ["FloatOutputs.forward", "FloatOutputs._run", "ScoreEmbedder.forward"],
    "accel/torch_runners.py": [
        "EagerRunner._build.run",
        "HalfRunner._inference.run",
        "GraphRunner._build.run",
        "CompileRunner._build.run",
    ],
    "accel/fold.py": [
        "ConvReLU.forward",
        "StemReLU.forward",
        "KeepCrops.forward",
        "OnePassJoin.forward",
        "OnePassEmbedding.forward",
    ],
    "accel/attention.py": ["PlainAttention.forward", "PlainAttention.attend"],
    "accel/heads.py": ["*"],
    "accel/encoder_layer.py": ["PostNormLayer.forward", "PostNormLayer.mean", "PostNormLayer._before_last_norm"],
    "accel/fp8.py": [
        "Fp8Conv.forward",
        "Fp8Projection.__call__",
        "IntoFlat.forward",
        "Fp8Tokens.forward",
        "Fp8Tokens._features",
        "Fp8Refiner.forward",
        "Fp8Scorer.forward",
    ],
    "accel/fp8_runner.py": ["_Scoring.embed", "_Scoring.rank", "_Scoring.__call__"],
    "accel/fp8_kernels.py": ["*"],
    "accel/copy_kernels.py": ["*"],
    "accel/norm_kernels.py": ["*"],
    "accel/stem_kernels.py": ["*"],
    "accel/graph.py": ["GraphedProgram.__call__", "GraphedProgram.replay"],
    "engines/onnxruntime_runner.py": ["OnnxRuntimeRunner._build.run"],
    "engines/tensorrt_runner.py": ["TensorRTRunner._build.run"],
    "engines/tensorrt_program.py": ["EngineProgram.enqueue"],
    "detect/onnx_detector.py": ["tensorrt.forward"],
    "pose/depth.py": ["DepthFilter.__call__"],
    "pose/estimator.py": ["PoseEstimator.prepare"],
    "pose/networks.py": ["*"],
    "pose/render_kernels.py": ["*"],
    "pose/raster_kernels.py": ["*"],
    "pose/renderer.py": [
        "WarpRenderer.render_into",
        "WarpRenderer.render_inputs",
        "WarpRenderer._rasterize",
        "WarpRenderer._launch",
    ],
    "pose/track_program.py": ["TrackProgram.run"],
    "pose/register_program.py": [
        "RegisterProgram.run",
        "RegisterProgram._best",
        "RegisterProgram._try_turns",
        "_copies_last",
        "RegisterProgram._score",
        "RegisterProgram._compare",
        "RegisterProgram._refine",
        "RegisterProgram._rescore",
        "RegisterProgram._usable",
        "RegisterProgram._agreement",
    ],
    "pose/hypotheses.py": ["guess_translation"],
    "pose/views.py": ["*"],
    "pose/warp_kernels.py": ["*"],
    "warp_setup.py": ["launch", "_current_stream"],
}


def functions(tree: ast.AST, prefix: str = "") -> dict[str, ast.AST]:
    """Qualified name -> node of every function, nested ones included."""
    found: dict[str, ast.AST] = {}
    for node in ast.iter_child_nodes(tree):
        name = prefix
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = f"{prefix}.{node.name}" if prefix else node.name
            if isinstance(node, ast.FunctionDef):
                found[name] = node
        found |= functions(node, name)
    return found


def waits(node: ast.AST) -> list[str]:
    """Calls under ``node`` that wait for the device or write to the terminal."""
    found = []
    for call in ast.walk(node):
        if not isinstance(call, ast.Call):
            continue
        if isinstance(call.func, ast.Name) and call.func.id == "print":
            found.append(f"line {call.lineno}: print")
        if isinstance(call.func, ast.Attribute):
            if call.func.attr in WAITS:
                found.append(f"line {call.lineno}: .{call.func.attr}()")
            arguments = [*call.args, *(k.value for k in call.keywords)]
            if call.func.attr == "to" and any(isinstance(a, ast.Constant) and a.value == "cpu" for a in arguments):
                found.append(f'line {call.lineno}: .to("cpu")')
    return found


@pytest.mark.parametrize("module", HOT_PATH)
def test_hot_path_does_not_wait(module):
    tree = ast.parse((PACKAGE / module).read_text())
    known = functions(tree)
    for name in HOT_PATH[module]:
        assert name == "*" or name in known, f"{module} has no {name}: name the hot path's functions in HOT_PATH"
        node = tree if name == "*" else known[name]
        assert waits(node) == [], f"{module}: {name}"


@pytest.mark.parametrize(
    "line",
    [
        "x.sum().item()",
        "y = x.cpu()",
        "x.to('cpu')",
        "x.to(device='cpu')",
        "torch.cuda.synchronize()",
        "torch.cuda.empty_cache()",
        "print(x)",
        "x.tolist()",
        "i = mask.nonzero()",
    ],
)
def test_the_guard_sees(line):
    assert waits(ast.parse(f"def run():\n    {line}\n"))


def test_the_guard_lets_device_work_pass():
    assert waits(ast.parse("def run():\n    a.copy_(b)\n    c = x.to(torch.float16)\n    graph.replay()\n")) == []


def test_empty_cache_is_only_in_the_reference_in_preparation_and_in_clean_up():
    users = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any("empty_cache" in w for w in waits(ast.parse(path.read_text())))
    ]
    allowed = {"evaluate/reference.py", "accel/graph.py", "accel/memory.py", "evaluate/bench_timing.py", "device.py"}
    # The bench shows what it costs.
    allowed |= {"node_bench/naive_node.py", "node_bench/traced_node.py"}
    assert set(users) <= allowed
    parts = functions(ast.parse((PACKAGE / "accel/graph.py").read_text()))
    emptying = {name for name, node in parts.items() if any("empty_cache" in w for w in waits(node))}
    assert emptying == {"GraphedProgram._warm_up_and_capture"}


PUT_BACK = {"detect/predictor.py", "evaluate/reference.py", "evaluate/detector_validate.py"}
"""Modules that change a flag for a while and put it back."""


def test_what_changes_the_whole_process_is_in_one_module():
    """But for onnxruntime's telemetry, which must be off before anything of the package is imported."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            changes = [ast.unparse(target) for target in targets if isinstance(target, ast.Attribute)]
            changes += [ast.unparse(node.func)] if isinstance(node, ast.Call) else []
            if any(
                re.match(
                    r"torch\.backends\..*(allow_tf32|benchmark|deterministic)$|wp\.init|os\.environ\.setdefault$", c
                )
                for c in changes
            ):
                found.add(str(path.relative_to(PACKAGE)))
    assert found - PUT_BACK == {"__init__.py", "process.py", "warp_setup.py"}
