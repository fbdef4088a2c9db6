"""Refiner and scorer weights: our safetensors, or the official release's directories. Nothing unpickles code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UserError
from ..stand_ins import HEAD, stand_in
from .networks import CROP_SIZE, FIRST_PASS_CROP, RefineNet, ScoreNet, channels_at

Network = TypeVar("Network", RefineNet, ScoreNet)

OFFICIAL = {"refiner": "2023-10-28-18-33-37", "scorer": "2024-01-11-20-02-45"}
FIRST_CONVOLUTION = {"refiner": "encodeA.0.net.0.weight", "scorer": "encoderA.0.net.0.weight"}


NGC = {
    "refiner": ("refiner_net.onnx", "refine_model.onnx"),
    "scorer": ("score_net.onnx", "score_model.onnx"),
}
"""NVIDIA's ONNX files are called so: deployable_v1.0, then Isaac ROS's older ones."""


class CheckpointError(UserError, ValueError):
    """Weights that are missing, broken or of another architecture; the message says what to put where."""


@dataclass(frozen=True)
class Weights:
    """description: what `doctor`, diagnostics and results show. official: not written by ``write``, so that they are the
    official release's, or made of them."""

    state: dict[str, Tensor]
    description: str
    metadata: dict[str, str]
    official: bool = False


def find(directory: str | Path, role: str) -> Path:
    """The file of ``role`` ("refiner" or "scorer") in a weights directory. Raises CheckpointError."""
    directory = Path(directory)
    candidates = [
        directory / f"{role}.safetensors",
        directory / OFFICIAL[role] / "model_best.pth",
        *(directory / name for name in NGC[role]),
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise CheckpointError(
        f"no {role} weights in {directory}: expected {candidates[0].name} (ours), {OFFICIAL[role]}/model_best.pth "
        f"(the official FoundationPose release, to be downloaded from its project page) or {' or '.join(NGC[role])} (NVIDIA NGC); "
        "set pose.weights to their directory"
    )


def read(path: str | Path) -> Weights:
    """Read weights from .safetensors or an official model_best.pth (tensors only). Raises CheckpointError."""
    path = Path(path)
    try:
        with path.open("rb") as file:  # safetensors says of a file that it may not open that there is none
            head = file.read(HEAD)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if reason := stand_in(head):
        raise CheckpointError(f"{path} cannot be read: {reason}")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as f:
                state = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
                metadata = f.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
        description = f"{path.name} ({metadata.get('description', 'no description')})"
        return Weights(state, description, metadata, official="width" not in metadata)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint of plain tensors: {error}") from error
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else {}
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds no tensors under 'model' nor at its top level")
    return Weights(state, f"official {path.parent.name}", {}, official=True)


def write(path: str | Path, network: RefineNet | ScoreNet, description: str, **metadata: str) -> None:
    """FP16 safetensors with width, crop size and ``metadata``; the position buffer is derived and left out."""
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous().cpu()
        for k, v in network.state_dict().items()
        if k != "pos_embed.pe"
    }
    shape = {"width": repr(network.width), "crop_size": str(network.crop_size)}
    save_file(state, str(path), metadata=metadata | {"description": description} | shape)


def _load(weights: Weights, role: str, kind: type[Network]) -> Network:
    first = weights.state.get(FIRST_CONVOLUTION[role])
    if first is None:
        raise CheckpointError(f"{weights.description} is no {role}: it has no {FIRST_CONVOLUTION[role]}")
    width = first.shape[0] / channels_at(1.0)[0]
    network = kind(width, int(weights.metadata.get("crop_size", CROP_SIZE)))
    state = {k: v.float() if v.is_floating_point() else v for k, v in weights.state.items()}
    state.setdefault("pos_embed.pe", network.pos_embed.pe)
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{weights.description}: {name} holds numbers that are not finite, as a training that diverged leaves them; "
                f"take other {role} weights"
            )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{weights.description} does not fit a {role} of width {width}: {error}") from error
    return network.eval()


def load_refiner(path: str | Path) -> tuple[RefineNet, Weights]:
    """Network in eval mode, FP32, with what was read. Raises CheckpointError."""
    weights = read(path)
    return _load(weights, "refiner", RefineNet), weights


def load_first_pass(path: str | Path) -> tuple[RefineNet, Weights]:
    """Network in eval mode, FP32, with what was read. Raises CheckpointError, also for a refiner of other crops."""
    network, weights = load_refiner(path)
    if network.crop_size != FIRST_PASS_CROP:
        raise CheckpointError(
            f"{path} is a refiner of crops of {network.crop_size} pixels, a first pass has {FIRST_PASS_CROP}: it is what "
            "`train first-pass` writes"
        )
    return network, weights


def load_scorer(path: str | Path) -> tuple[ScoreNet, Weights]:
    """Network in eval mode, FP32, with what was read. Raises CheckpointError."""
    weights = read(path)
    return _load(weights, "scorer", ScoreNet), weights
