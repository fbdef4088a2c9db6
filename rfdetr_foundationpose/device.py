"""Which device the pipeline runs on, and its memory."""

from __future__ import annotations

import gc

import torch

from .config import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device of ``Config.device``, with an index where there can be several.

    "auto" is the first CUDA device, or the CPU where there is none. Raises ConfigError that says what is there.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name!r} is not a torch device; use auto, cpu, cuda or cuda:<index>") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise ConfigError(f"device={name!r} is not supported; use auto, cpu, cuda or cuda:<index>")
    if not torch.cuda.is_available():
        built = "has no CUDA support" if torch.version.cuda is None else f"is built for CUDA {torch.version.cuda}"
        raise ConfigError(f"device={name!r} but no CUDA device is usable (this torch {built}); use device=cpu or auto")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise ConfigError(f"device={name!r} but there are {torch.cuda.device_count()} CUDA devices, numbered from 0")
    return torch.device("cuda", index)


def matmul_precision() -> str:
    """torch.get_float32_matmul_precision(). Where a process set it by torch's old and new interfaces in turn, torch refuses
    to sum it up; then its default, "highest", which setting makes true of both."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"


def release_memory() -> None:
    """Give back what nobody holds any more: programs and networks hold each other, and torch keeps freed device memory."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
