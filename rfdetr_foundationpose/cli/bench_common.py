"""What the commands of ``bench`` share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..backends import POSE
from ..interrupts import status_of
from .options import parse_names

if TYPE_CHECKING:
    import torch

    from ..config import Config
    from ..evaluate.networks import LoadedNetworks

logger = logging.getLogger(__name__)

Backends = Annotated[
    str, typer.Option(help="Ways to run the networks, separated by commas; default: all that take seconds to prepare.")
]
Iterations = Annotated[int, typer.Option(min=1, max=10, help="Tracking iterations.")]
Schedule = Annotated[str, typer.Option(help="Value of pose.register_schedule: auto, full, or counts.")]
CropSampling = Annotated[str, typer.Option(help="Value of pose.crop_sampling: auto, official or direct.")]


def chosen_backends(text: str, default: str) -> list[str]:
    """The backends of a comma-separated list, or of ``default`` for an empty one. Raises typer.BadParameter."""
    wanted = list(dict.fromkeys(parse_names(text or default)))
    if unknown := [b for b in wanted if b not in POSE.names]:
        raise typer.BadParameter(f"--backends: {', '.join(unknown)} is none of {', '.join(POSE.names)}")
    return wanted


@contextmanager
def keeping(path: Path) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, say where what was measured is, and end with 130 or 143. A file of an earlier run is not it."""
    earlier = _written(path)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        new = _written(path) != earlier
        logger.info(f"interrupted: what was measured is kept in {path}" if new else "interrupted before a figure")
        raise typer.Exit(status_of(interrupt)) from interrupt


def _written(path: Path) -> tuple[int, int] | None:
    """What tells a file from the one that replaces it; None where there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_mtime_ns


@dataclass(frozen=True)
class Bench:
    """What is measured, and on what. environment: facts of the machine, for the figures."""

    device: torch.device
    backends: list[str]
    networks: LoadedNetworks
    environment: dict[str, Any]


def set_up(
    device: str, seed: int, backends: str, weights: str, official_size: bool, default: str | None = None
) -> Bench:
    """Device, backends and networks of a bench, in FP32 where a row says so: no TF32. Random weights and scenes follow ``seed``.

    default: backends where none are named; None takes those of the device. Raises typer.BadParameter, CheckpointError.
    """
    import torch

    from ..device import resolve_device
    from ..evaluate.bench_report import environment
    from ..evaluate.bench_stages import DEFAULT_BACKENDS
    from ..evaluate.networks import load_networks
    from ..process import prepare_process

    torch.manual_seed(seed)
    place = prepare_process(resolve_device(device), tf32=False)
    chosen = chosen_backends(backends, default or DEFAULT_BACKENDS[place.type])
    return Bench(place, chosen, load_networks(weights, official_size), environment(place))


def official_crops(networks: LoadedNetworks, config: Config) -> str:
    """For a title: whose observed crops are sampled as in the official code, "" for nobody's."""
    roles = networks.official_crops(config.pose.crop_sampling)
    return f", official crops for {' and '.join(roles)}" if roles else ""
