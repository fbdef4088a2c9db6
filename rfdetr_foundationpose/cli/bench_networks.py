"""``bench networks``: refiner and scorer alone, by batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .bench_common import Backends, keeping, set_up
from .console import open_console, sayer
from .options import Device, OfficialSize, Out, PoseWeights, Seed, parse_numbers
from .outputs import Overwrite, claim


def networks(
    backends: Backends = "",
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,2,4,64,252",
    device: Device = "auto",
    official_size: OfficialSize = False,
    weights: PoseWeights = "default",
    repeat: Annotated[
        int,
        typer.Option(min=0, help="Samples of batches up to 16, of larger ones a fifth; 0: the device's default."),
    ] = 0,
    seed: Seed = 0,
    out: Out = Path("out/bench"),
    overwrite: Overwrite = False,
) -> None:
    """Time refiner and scorer alone, by batch size, and compare what they say with FP32 eager."""
    from ..evaluate.bench_networks import measure_networks, network_tables
    from ..evaluate.bench_stages import REPEATS

    console = open_console()
    say = sayer(console)
    sizes = parse_numbers(batches, "--batches")
    bench = set_up(device, seed, backends, weights, official_size)
    outputs = claim("bench networks", out, ("networks.json",), overwrite=overwrite)
    path = out / "networks.json"
    about = {"environment": bench.environment, "weights": bench.networks.description}

    def save(tree: dict[str, Any]) -> None:
        outputs.write({**about, "networks": tree}, path.name)

    samples = repeat or REPEATS[bench.device.type][1] // 2
    with keeping(path):
        measured = measure_networks(bench.networks.modules, bench.backends, sizes, bench.device, samples, save)
    for table in network_tables(measured, sizes, official_size):
        console.print(table)
    say(f"Look at: {path}")
