"""SHA-256 of weights and files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn


def state_digest(module: nn.Module) -> str:
    """SHA-256 over names, shapes and values of parameters and buffers, hex: tells when an exported file is stale."""
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
