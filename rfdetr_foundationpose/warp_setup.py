"""Warp beside torch: one device name, one stream, quiet start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch
import warp as wp

from .resources import cache_root

_streams: dict[tuple[str, int], wp.Stream] = {}
_streams_lock = Lock()


def _find_cache() -> None:
    """Warp wants a folder for compiled kernels, and does not start where the user has no home to write to."""
    if wp.config.kernel_cache_dir is None and "WARP_CACHE_PATH" not in os.environ:
        wp.config.kernel_cache_dir = str(cache_root() / "warp")


_find_cache()


def start() -> None:
    """Start Warp without its banner. Without it Warp starts by itself, when first used."""
    wp.config.quiet = True
    if hasattr(wp, "LOG_WARNING"):  # what replaced quiet in newer Warp
        wp.config.log_level = wp.LOG_WARNING
    wp.init()


def warp_device(device: torch.device | str) -> str:
    """Warp's name of a torch device."""
    device = torch.device(device)
    return "cpu" if device.type == "cpu" else f"cuda:{device.index or 0}"


def launch(kernel: wp.Kernel, dim: int | Sequence[int], inputs: Sequence[Any], device: torch.device | str) -> None:
    """Launch on torch's current stream of this thread, so that order with torch and graph capture hold.

    The stream is named in every launch: Warp's own current stream belongs to the device, not to the thread, and
    tracking and registration launch from two.
    """
    wp.launch(kernel, dim, list(inputs), device=warp_device(device), stream=_current_stream(device))


def _current_stream(device: torch.device | str) -> wp.Stream | None:
    device = torch.device(device)
    if device.type == "cpu":
        return None
    current = torch.cuda.current_stream(device)
    key = (warp_device(device), current.cuda_stream)
    with _streams_lock:
        if key not in _streams:
            _streams[key] = wp.stream_from_torch(current)
        return _streams[key]
