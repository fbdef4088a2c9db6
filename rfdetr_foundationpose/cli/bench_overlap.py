"""``bench overlap``: the detector on a CUDA stream of its own beside the tracker, against one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .bench_common import Iterations, Schedule, keeping, set_up
from .console import open_console, sayer
from .options import Device, ObjectsFile, OfficialSize, Out, PoseWeights, Seed, Size, Tracked, parse_size
from .outputs import Overwrite, claim


def overlap(
    backends: Annotated[str, typer.Option(help="Ways to run the networks, separated by commas.")] = "cuda_graph",
    device: Device = "auto",
    size: Size = "1280x720",
    objects_file: ObjectsFile = None,
    tracked: Tracked = 1,
    official_size: OfficialSize = False,
    weights: PoseWeights = "default",
    schedule: Schedule = "auto",
    iterations: Iterations = 2,
    repeat: Annotated[int, typer.Option(min=0, help="Samples of each way; 0: the device's default.")] = 0,
    seed: Seed = 0,
    out: Out = Path("out/bench"),
    overwrite: Overwrite = False,
) -> None:
    """Time a frame with the detector beside the tracker, and with one after the other. CUDA only."""
    from ..config import from_flat
    from ..errors import UserError
    from ..evaluate.bench_overlap import NOTHING_TO_OVERLAP, measure_overlap, overlap_table
    from ..evaluate.bench_stages import StageSettings

    console = open_console()
    say = sayer(console)
    height, width = parse_size(size)
    config = from_flat({"device": device, "pose.register_schedule": schedule, "pose.track_iterations": iterations})
    bench = set_up(device, seed, backends, weights, official_size, "cuda_graph")
    place = bench.device
    if place.type != "cuda":
        raise UserError(NOTHING_TO_OVERLAP.format(device=place))
    settings = StageSettings((height, width), tracked, tracks=repeat, seed=seed, objects_file=objects_file)
    outputs = claim("bench overlap", out, ("overlap.json",), overwrite=overwrite)
    facts = bench.environment

    def save(tree: dict[str, Any]) -> None:
        outputs.write({"environment": facts, "weights": bench.networks.description, "overlap": tree}, "overlap.json")

    with keeping(out / "overlap.json"):
        found = measure_overlap(bench.backends, bench.networks, config, place, settings, save)
    save(found)
    console.print(
        overlap_table(found, f"{facts['gpu']}, {width}x{height}, {tracked} tracked, {bench.networks.description}")
    )
    say(f"Look at: {out / 'overlap.json'}")
    if all("reason" in row for row in found.values()):
        raise typer.Exit(1)
