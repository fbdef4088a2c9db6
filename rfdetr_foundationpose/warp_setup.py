"""Warp beside torch: one device name, one stream, quiet start."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Lock
from typing import Any

import torch
import warp as wp

from .resources import cache_root

_streams: dict[tuple[str, int], wp.Stream] = {}
_streams_lock = Lock()
_loaded: set[Any] = set()
_loading = Lock()


def _find_cache() -> None:
    """Warp wants a folder for compiled kernels, and does not start where the user has no home to write to."""
    if wp.config.kernel_cache_dir is None and "WARP_CACHE_PATH" not in os.environ:
        wp.config.kernel_cache_dir = str(cache_root() / "warp")


_find_cache()


def _be_quiet() -> None:
    """Warp starts by itself when first used, and would print its banner and a line for each module that it loads."""
    wp.config.quiet = True
    if hasattr(wp, "LOG_WARNING"):  # what replaced quiet in newer Warp
        wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)


_be_quiet()


def start() -> None:
    """Start Warp now. Without it Warp starts by itself, when first used."""
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
    name = warp_device(device)
    if name == "cpu" and kernel.module not in _loaded:
        with _loading:  # two threads at once would both compile it
            kernel.module.load(name)
            _loaded.add(kernel.module)
    wp.launch(kernel, dim, list(inputs), device=name, stream=_current_stream(device))


def parts_of(count: int, device: torch.device | str, most: int | None = None) -> list[slice]:
    """Contiguous parts of ``range(count)`` for ``side_by_side``: as many as torch has threads on a CPU, where Warp runs a launch in
    one thread; one on a GPU. most: there are no more than so many."""
    parts = min(torch.get_num_threads(), count) if torch.device(device).type == "cpu" else 1
    parts = max(min(parts, parts if most is None else most), 1)
    return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def side_by_side(work: Callable[[slice, int], None], parts: Sequence[slice]) -> None:
    """``work(part, i)`` for the i-th part, each in a thread; waits for all. What it writes for one item must not depend on the
    others."""
    running = [_pool().submit(work, part, i) for i, part in enumerate(parts[1:], 1)]
    try:
        work(parts[0], 0)
    finally:
        wait(running)  # they write to memory of the caller
    for other in running:
        other.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="warp")


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
