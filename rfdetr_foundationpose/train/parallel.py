"""Data-parallel training: one process a device, as torchrun starts them; alone, everything here does nothing.

Gradients live in one flat buffer that a single collective averages, which a compiled backward need not know about.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Ranks:
    """This process among those of the training. Raises ValueError where a machine has too few devices."""

    def __init__(self, device: str) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        kind = torch.device(device).type
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if self.world > 1 and kind == "cuda":
            if local >= torch.cuda.device_count():
                raise ValueError(
                    f"torchrun started process {local} of this machine, which has {torch.cuda.device_count()} GPUs: start one a GPU"
                )
            self.device = torch.device("cuda", local)
        else:
            # "cuda" is the first GPU: CUDA's device is set by number.
            self.device = torch.device(device if kind != "cuda" or ":" in device else f"{device}:0")
        if kind == "cuda":
            torch.cuda.set_device(self.device)
        self._host: Any = None
        if self.world > 1:
            dist.init_process_group("nccl" if kind == "cuda" else "gloo")
            self._host = dist.new_group(backend="gloo")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def agree(self, value: float) -> float:
        """The first process's value, in all of them. Does not wait for the device."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, 0, group=self._host)
        return float(shared)

    def same_start(self, network: nn.Module) -> None:
        """Parameters and buffers of the first process, in all of them."""
        if self.world > 1:
            for tensor in (*network.parameters(), *network.buffers()):
                dist.broadcast(tensor.data, 0)

    def mean(self, flat: Tensor) -> None:
        if self.world > 1:
            dist.all_reduce(flat)
            flat /= self.world

    def close(self) -> None:
        if self.world > 1:
            dist.destroy_process_group()


class FlatGradients:
    """The parameters' gradients as views of one buffer. ``clip`` leaves zeros where they are not finite, and counts that."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        kept = list(parameters)
        self.flat = torch.zeros(sum(p.numel() for p in kept), device=kept[0].device)
        self.skipped = torch.zeros((), device=self.flat.device)
        at = 0
        for p in kept:
            p.grad = self.flat.as_strided(p.shape, p.stride(), at)
            at += p.numel()

    def zero(self) -> None:
        self.flat.zero_()

    def clip(self, largest: float) -> None:
        """Scale to a norm of at most ``largest``; one non-finite gradient would poison weights and average for good."""
        norm = self.flat.norm()
        finite = torch.isfinite(norm)
        scale = (largest / (norm + 1e-6)).clamp(max=1.0)
        self.flat.copy_(torch.where(finite, self.flat * scale, 0.0))
        self.skipped += (~finite).float()
