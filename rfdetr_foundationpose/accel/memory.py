"""A limit on the device memory that preparing takes: the peak says how large a GPU a robot needs, and it lies before the first
frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

SPARE = (256 << 20, 1 << 30)
"""Preparing a program may take so many bytes beyond what torch holds; where that is not enough, the next number."""


def within_memory_limit(run: Callable[[], T], device: torch.device) -> T:
    """``run()`` while torch may take little memory beyond what is held; again with more, at last without a bound, if that
    is not enough.

    cuDNN's search tries every algorithm whose workspace can be had, and there are some of 2 GB that are no faster; torch
    keeps what was freed until a bound is reached. Other threads share the bound: it is for preparing.
    """
    if device.type != "cuda":
        return run()
    index = torch.cuda.current_device() if device.index is None else device.index
    for spare in SPARE:
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved(index) + spare
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / torch.cuda.mem_get_info(index)[1]), index)
        try:
            return run()
        except RuntimeError as error:  # TorchScript makes plain RuntimeErrors of all
            if "out of memory" not in str(error):
                raise
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, index)
    return run()
