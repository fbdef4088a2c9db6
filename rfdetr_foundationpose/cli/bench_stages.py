"""``bench``, ``bench stages``: one run, one table: every way to run the networks, every stage, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .bench_check import DEFAULT_FRAMES
from .bench_check import check as run_check
from .bench_common import Backends, CropSampling, Iterations, Schedule, keeping, official_crops, set_up
from .console import open_console, progress_bar, sayer
from .options import Device, ObjectsFile, OfficialSize, Out, PoseWeights, Seed, Size, Tracked, parse_size
from .outputs import Overwrite, claim


def stages(
    backends: Backends = "",
    device: Device = "auto",
    size: Size = "1280x720",
    objects_file: ObjectsFile = None,
    tracked: Tracked = 1,
    official_size: OfficialSize = False,
    weights: PoseWeights = "default",
    schedule: Schedule = "auto",
    iterations: Iterations = 2,
    crop_sampling: CropSampling = "auto",
    repeat_register: Annotated[int, typer.Option(min=0, help="Samples of register; 0: the device's default.")] = 0,
    repeat_track: Annotated[int, typer.Option(min=0, help="Samples of the other stages; 0: the device's default.")] = 0,
    detector: Annotated[bool, typer.Option(help="Measure RF-DETR too.")] = True,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Instead: hold each backend's poses and scores to FP32 eager and print the verdict, with the machine's facts. "
            "--repeat-track is then the number of frames.",
        ),
    ] = False,
    seed: Seed = 0,
    out: Out = Path("out/bench"),
    overwrite: Overwrite = False,
) -> None:
    """Measure each stage for each way to run the networks. Exits 1 when none of them runs here; with --check when one of them
    differs from FP32, and 2 where the machine is none for it."""
    import torch

    from ..config import from_flat
    from ..evaluate.bench_check import CheckSettings
    from ..evaluate.bench_report import bar_chart, remarks, stage_tables
    from ..evaluate.bench_stages import StageSettings, measure

    console = open_console()
    say = sayer(console)
    settings = StageSettings(parse_size(size), tracked, detector, repeat_register, repeat_track, seed, objects_file)
    values = {"pose.register_schedule": schedule, "pose.track_iterations": iterations}
    config = from_flat({"device": device, **values, "pose.crop_sampling": crop_sampling})
    bench = set_up(device, seed, backends, weights, official_size)
    place = bench.device
    if check:
        frames = repeat_track or DEFAULT_FRAMES[place.type]
        checking = CheckSettings(settings.size, frames, 4 if place.type == "cuda" else 1, seed)
        run_check(bench.backends, bench.networks, config, place, checking, tracked, objects_file)
        return
    about: dict[str, Any] = {"environment": bench.environment, "weights": bench.networks.description}
    height, width = settings.size
    title = (
        f"{about['environment'].get('gpu', place.type)}, {width}x{height}, {tracked} object{'s' * (tracked > 1)}, "
        f"{bench.networks.description}{official_crops(bench.networks, config)}, register {schedule} x {config.pose.register_iterations}, track x {iterations}"
    )
    outputs = claim("bench", out, ("bench.json", "bench.png"), overwrite=overwrite)
    path = out / "bench.json"
    with keeping(path), progress_bar(console, transient=True) as progress:

        def begin(stage: str, samples: int) -> Callable[[], None]:
            task = progress.add_task(stage, total=samples)
            return lambda: progress.update(task, advance=1)

        def save(tree: dict[str, Any]) -> None:
            outputs.write({**tree, **about, "title": title}, path.name)

        result = measure(bench.backends, bench.networks, config, place, settings, begin, save)
    result |= {**about, "title": title}
    if place.type == "cuda":
        free, total = torch.cuda.mem_get_info(place)
        result["device_memory_used_mb"] = (total - free) / 1e6  # of all processes, CUDA context and Warp included
    outputs.write(result, path.name)
    bar_chart(result, out / "bench.png")
    for table in stage_tables(result):
        console.print(table)
    for line in remarks(result):
        say(line)
    say(f"Look at: {path}, {out / 'bench.png'}")
    if all(row.get("reason") for row in result["rows"].values()):
        raise typer.Exit(1)
