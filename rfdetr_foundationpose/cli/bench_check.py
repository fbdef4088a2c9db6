"""``bench --check``: one run, to be pasted, that says whether backends work on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .bench_common import official_crops
from .console import open_console, progress_bar, sayer

if TYPE_CHECKING:
    import torch

    from ..config import Config
    from ..evaluate.bench_check import CheckSettings
    from ..evaluate.networks import LoadedNetworks

DEFAULT_FRAMES = {"cuda": 60, "cpu": 4}


def check(
    backends: Sequence[str],
    networks: LoadedNetworks,
    config: Config,
    device: torch.device,
    settings: CheckSettings,
    objects: int,
    objects_file: Path | None,
) -> None:
    """Print machine, table and verdict. Exits 1 where a backend differs. Raises BackendUnavailable where this machine is none
    that one of them could run on."""
    from ..evaluate.bench_check import BackendCheck, check_table, machine_lines, refuse
    from ..evaluate.bench_scene import smallest_objects

    refuse(backends, device, config)
    console = open_console()
    say = sayer(console)
    for line in machine_lines(device):
        say(line)
    say(f"networks: {networks.description}{official_crops(networks, config)}")
    held = BackendCheck(smallest_objects(objects, objects_file)[1], networks, config, device, settings)
    checked = []
    with progress_bar(console, transient=True) as progress:
        for name in backends:
            task = progress.add_task(name, total=settings.frames)
            checked.append(held(name, partial(progress.update, task, advance=1)))
    height, width = settings.size
    title = f"against FP32 eager, {width}x{height}, {settings.frames} frames, {settings.scenes} x 252 hypotheses"
    console.print(check_table(checked, title))
    for c in checked:
        if c.library:
            say(f"{c.backend} runs on {c.library}")
        if c.result is not None and c.result["score_order"]["compared"]:
            order = c.result["score_order"]
            say(f"{c.backend}: another winner in {order['winner_changed']} of {order['compared']} registrations")
        for reason in c.reasons:
            say(f"{c.backend}: {reason}")
    failed = [c.backend for c in checked if c.reasons]
    if failed:
        say(f"FAILED: {', '.join(failed)}")
        raise typer.Exit(1)
    say(f"PASSED: {', '.join(backends)}: poses and scores are those of FP32 eager")
