"""Warp beside torch: one device name, one stream, quiet start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import warp as wp

wp.config.quiet = True
if hasattr(wp, "LOG_WARNING"):  # what replaced quiet in newer Warp
    wp.config.log_level = wp.LOG_WARNING
wp.init()


def warp_device(device: torch.device | str) -> str:
    """Warp's name of a torch device."""
    device = torch.device(device)
    return "cpu" if device.type == "cpu" else f"cuda:{device.index or 0}"


@contextmanager
def on_torch_stream(device: torch.device | str) -> Iterator[None]:
    """Warp launches in the body go to torch's current stream, so CUDA graph capture sees them."""
    if torch.device(device).type == "cpu":
        yield
        return
    with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device)), sync_enter=False, sync_exit=False):
        yield
