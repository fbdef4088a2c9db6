"""ONNX files of the pose networks, told apart by names and shapes: ours, and NVIDIA's of two generations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import Tensor

from ..accel.base import Outputs
from ..errors import UserError

logger = logging.getLogger(__name__)

CHANNELS = 6
CROP_SIZE = 160
"""Files whose crop size is dynamic are run at the official one, which their position embedding has anyway."""
INPUTS = ("rendered", "observed")
OUTPUTS = {"refiner": ("trans", "rot"), "scorer": ("scores",)}
KNOWN_INPUTS = (INPUTS, ("inputA", "inputB"), ("input1", "input2"))
"""Rendered and observed crops are called so in our files, in NVIDIA's deployable_v1.0, and in Isaac ROS's older ones."""
KNOWN_OUTPUTS = (OUTPUTS["refiner"], ("output1", "output2"))
"""Translation and rotation are called so: in our files and deployable_v1.0, and in Isaac ROS's older ones."""

Value = tuple[str, tuple[int | None, ...]]


class OnnxFormatError(UserError, ValueError):
    """An ONNX file that is not a refiner or scorer as we know them; the message names what was found and expected."""


@dataclass(frozen=True)
class OnnxSpec:
    """What an ONNX network of crop pairs takes and gives.

    path: of the file, for people. inputs: rendered, observed. layout: "nchw", or "nhwc" (Isaac ROS's older files).
    batch: fixed batch size, or None when it is dynamic. size: rows and columns of a crop. shapes: of the outputs as
    declared, None where a size depends on the batch. combined: a refiner's translation and rotation are one output (N, 6).
    """

    path: Path
    inputs: tuple[str, str]
    outputs: tuple[str, ...]
    layout: str
    batch: int | None
    size: int
    shapes: tuple[tuple[int | None, ...], ...]
    combined: bool = False

    @property
    def role(self) -> str:
        """ "refiner" or "scorer"."""
        return "refiner" if self.combined or len(self.outputs) == 2 else "scorer"

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        """Shape of an input for a batch."""
        return (
            (batch, CHANNELS, self.size, self.size)
            if self.layout == "nchw"
            else (batch, self.size, self.size, CHANNELS)
        )

    def as_crops(self, buffer: Tensor) -> Tensor:
        """A buffer of ``input_shape`` as crops (N, 6, R, R), the same memory."""
        return buffer if self.layout == "nchw" else buffer.permute(0, 3, 1, 2)

    def unpack(self, outputs: Sequence[Tensor]) -> Outputs:
        """What the file gives as a runner gives it: translation (N, 3) and rotation (N, 3), or scores (N,). float32."""
        if self.combined:
            return tuple(part.float() for part in outputs[0].split(3, dim=-1))
        if self.role == "scorer":  # NVIDIA's give (1, N)
            return (outputs[0].reshape(-1).float(),)
        return tuple(o.float() for o in outputs)


@dataclass(frozen=True)
class ImageSpec:
    """What a detector's ONNX file takes and gives: one image of fixed size. outputs: boxes, logits[, masks]."""

    size: int
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ("image",)
    batch: int = 1

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(1, 3, R, R)."""
        return (batch, 3, self.size, self.size)


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
    shape = inputs[0][1]
    if len(shape) != 4 or CHANNELS not in (shape[1], shape[3]):
        raise OnnxFormatError(
            f"{path}: {seen}; expected inputs (N, {CHANNELS}, R, R) or, as Isaac ROS's, (N, R, R, {CHANNELS})"
        )
    layout = "nchw" if shape[1] == CHANNELS else "nhwc"
    rows, columns = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    if rows != columns:
        raise OnnxFormatError(f"{path}: {seen}; crops must be square")
    if len(outputs) not in (1, 2):
        raise OnnxFormatError(f"{path}: {seen}; expected two outputs (refiner) or one (scorer)")
    if len(outputs) == 2 and any(s and s[-1] not in (3, None) for _, s in outputs):
        raise OnnxFormatError(f"{path}: {seen}; a refiner has outputs (N, 3) translation and (N, 3) rotation")
    names = _ordered(path, [n for n, _ in outputs], KNOWN_OUTPUTS, "translation, rotation")
    shapes = dict(outputs)
    combined = len(outputs) == 1 and len(outputs[0][1]) == 2 and outputs[0][1] == (shape[0], 6)
    return OnnxSpec(
        path,
        _pair(_ordered(path, [n for n, _ in inputs], KNOWN_INPUTS, "rendered, observed")),
        names,
        layout,
        shape[0],
        CROP_SIZE if rows is None else rows,
        tuple(shapes[n] for n in names),
        combined,
    )


def _pair(names: tuple[str, ...]) -> tuple[str, str]:
    first, second = names
    return first, second


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


def _show(values: list[Value]) -> str:
    return ", ".join(f"{name} {tuple('N' if d is None else d for d in shape)}" for name, shape in values)


def _ordered(path: Path, names: list[str], known: Sequence[tuple[str, ...]], meaning: str) -> tuple[str, ...]:
    """In the order of a known set of names, else in file order, which is said."""
    if len(names) == 1:
        return tuple(names)
    for candidate in known:
        if set(names) == set(candidate):
            return candidate
    logger.warning("%s: %s are none of the known names; they are taken for %s, in this order", path, names, meaning)
    return tuple(names)
