#!/usr/bin/env bash
# TensorRT for RTX calls a sound engine invalid on a machine without an NVIDIA driver, and does not say why.
#
# Version: tensorrt-rtx-cu13 1.7.1.116, Python 3.11, Linux without an NVIDIA driver.
# Behaviour: engines are built for a GPU that is not there, and for three GPUs in one file for 24 bytes more. Of a sound engine
#   Runtime.get_engine_validity then says INVALID with diagnostics 0, no flag at all, although the enum has CUDA_ERROR (64); a buffer
#   of other bytes is INVALID with MALFORMED_ENGINE (32). The cause (cudaError 35) goes to the library's log alone, so that a caller
#   must read INVALID with 0 as "no usable driver".
# Output seen: the version with its flags; INVALID and 0 of the sound engine, INVALID and 32 of other bytes; the sizes.
# Exits with 1 when that changes, with 77 where there is a driver.
set -euo pipefail
[ ! -e /proc/driver/nvidia/version ] || { echo "skipped: there is an NVIDIA driver here"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tensorrt-rtx-cu13==1.7.1.116 numpy
cat >"$work/check.py" <<'PY'
import numpy as np
import tensorrt_rtx as trt

logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
weights = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)


def build(targets):
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    x = network.add_input("x", trt.float32, (8, 512))
    w = network.add_constant((512, 512), trt.Weights(weights)).get_output(0)
    none = trt.MatrixOperation.NONE
    network.mark_output(network.add_matrix_multiply(x, none, w, none).get_output(0))
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, target), i)
    return bytes(builder.build_serialized_network(network, config))


one, three = build(["SM89"]), build(["SM86", "SM89", "SM120"])
runtime = trt.Runtime(logger)
sound, other = runtime.get_engine_validity(one), runtime.get_engine_validity(b"x" * 4096)
flags = {name: int(flag) for name, flag in trt.EngineInvalidityDiagnostics.__members__.items()}
print("version", trt.__version__, "flags", flags)
print("sound engine:", sound, "other bytes:", other)
print("bytes for one GPU", len(one), "for three", len(three))
invalid = trt.EngineValidity.INVALID
assert (sound[0], int(sound[1])) == (invalid, 0) and "CUDA_ERROR" in flags
assert (other[0], int(other[1])) == (invalid, flags["MALFORMED_ENGINE"])
assert len(three) < 1.1 * len(one)
PY
"$work/venv/bin/python" "$work/check.py"
