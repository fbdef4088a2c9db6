"""What the commands of ``bench`` share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..backends import POSE
from .options import parse_names

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Backends = Annotated[
    str, typer.Option(help="Ways to run the networks, separated by commas; default: all that take seconds to prepare.")
]
Schedule = Annotated[str, typer.Option(help="Value of pose.register_schedule: auto, full, or counts.")]


def chosen_backends(text: str, default: str) -> list[str]:
    """The backends of a comma-separated list, or of ``default`` for an empty one. Raises typer.BadParameter."""
    wanted = list(dict.fromkeys(parse_names(text or default)))
    if unknown := [b for b in wanted if b not in POSE.names]:
        raise typer.BadParameter(f"--backends: {', '.join(unknown)} is none of {', '.join(POSE.names)}")
    return wanted


@contextmanager
def keeping(path: Path) -> Iterator[None]:
    """On Ctrl-C, say where what was measured is, and end with 130."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        logger.info(
            f"interrupted: what was measured is kept in {path}" if path.is_file() else "interrupted before a figure"
        )
        raise typer.Exit(130) from interrupt


def prepare(device: str, seed: int) -> torch.device:
    """The device, with FP32 in the row that says so: no TF32. Random weights and scenes follow the seed."""
    import torch

    from ..device import resolve_device
    from ..process import prepare_process

    torch.manual_seed(seed)
    return prepare_process(resolve_device(device), tf32=False)
