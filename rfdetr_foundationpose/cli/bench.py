"""``bench``: one run, one table: every way to run the networks, every stage, on this machine."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..config import Config
    from ..evaluate.bench_rows import BuiltRow
    from ..evaluate.bench_scene import BenchFrame

app = typer.Typer()

DEFAULT_BACKENDS = {
    "cuda": "reference,eager,half,traced,compile,cuda_graph,fp8,tensorrt,onnxruntime",
    "cpu": "eager,half,traced,cuda_graph,tensorrt,onnxruntime",
}
"""On a CPU, compiling takes minutes and the reference minutes a registration: both run when they are named."""
REPEATS = {"cuda": (10, 200), "cpu": (1, 10)}
"""Samples of register and of the other stages."""
WARM_UP = {"cuda": (1, 5), "cpu": (0, 1)}
FRAMES = 30


@app.command()
def bench(
    backends: Annotated[str, typer.Option(help="Comma-separated; default: all that take seconds to prepare.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")] = "auto",
    resolution: Annotated[str, typer.Option(help="Image size, WIDTHxHEIGHT.")] = "1280x720",
    objects: Annotated[int, typer.Option(min=1, max=4, help="Objects tracked together.")] = 1,
    official_size: Annotated[
        bool, typer.Option("--official-size", help="Networks of the official size, with random weights.")
    ] = False,
    weights: Annotated[str, typer.Option(help="Value of pose.weights.")] = "default",
    schedule: Annotated[str, typer.Option(help="pose.register_schedule: auto, full, or a list.")] = "auto",
    iterations: Annotated[int, typer.Option(min=1, help="Tracking iterations.")] = 2,
    repeat_register: Annotated[int, typer.Option(min=0, help="Samples; 0 takes the device's default.")] = 0,
    repeat_track: Annotated[int, typer.Option(min=0, help="Samples; 0 takes the device's default.")] = 0,
    detector: Annotated[bool, typer.Option(help="Measure RF-DETR too.")] = True,
    networks: Annotated[bool, typer.Option("--networks", help="Only refiner and scorer, by batch size.")] = False,
    batches: Annotated[str, typer.Option(help="With --networks.")] = "1,2,4,64,252",
    overlap: Annotated[
        bool,
        typer.Option(
            "--overlap",
            help="Only the detector beside the tracker on a CUDA stream of its own; default backend cuda_graph.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of scene and random weights.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of bench.json and bench.png.")] = Path("out/bench"),
    compact: Annotated[bool, typer.Option("--compact", help="Plain lines instead of a table.")] = False,
) -> None:
    """Measure the speed of each stage and of each way to run the networks."""
    import torch

    from ..accel.runner import BACKENDS
    from ..config import from_flat
    from ..device import resolve_device
    from ..evaluate.bench_report import bar_chart, compact_lines, environment, stage_table
    from .export import load_networks

    console = Console()
    place = resolve_device(device)
    wanted = [r.strip() for r in (backends or DEFAULT_BACKENDS[place.type]).split(",") if r.strip()]
    unknown = [r for r in wanted if r not in BACKENDS]
    if unknown:
        raise typer.BadParameter(f"--backends: {', '.join(unknown)}: must be among {', '.join(BACKENDS)}")
    size = parse_resolution(resolution)
    if overlap and place.type != "cuda":
        from ..evaluate.bench_overlap import NOTHING_TO_OVERLAP

        console.print(NOTHING_TO_OVERLAP.format(device=place), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    loaded, description = load_networks(weights, official_size, console)
    torch.manual_seed(seed)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # eager is to be FP32
    out.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    if networks:
        from ..evaluate.bench_networks import measure_networks, network_tables

        sizes = [int(b) for b in batches.split(",")]
        measured = measure_networks(loaded, wanted, sizes, place, repeat_track or REPEATS[place.type][1] // 2, say)
        write(out / "networks.json", {"environment": environment(place), "weights": description, "networks": measured})
        for table in network_tables(measured, sizes, official_size):
            console.print(table)
        return

    config = from_flat({"device": device, "pose.register_schedule": schedule, "pose.track_iterations": iterations})
    if overlap:
        from ..evaluate.bench_overlap import measure_overlap, overlap_table

        samples = repeat_track or REPEATS[place.type][1]
        found = measure_overlap(
            wanted if backends else ["cuda_graph"], loaded, config, place, size, objects, samples, seed, say
        )
        facts = environment(place)
        write(out / "overlap.json", {"environment": facts, "weights": description, "overlap": found})
        console.print(overlap_table(found, f"{facts['gpu']}, {size[1]}x{size[0]}, {objects} tracked, {description}"))
        if all("reason" in row for row in found.values()):
            raise typer.Exit(1)
        return
    result = measure(
        wanted, loaded, config, place, size, objects, detector, (repeat_register, repeat_track), seed, console
    )
    result["environment"] = environment(place)
    result["weights"] = description
    if place.type == "cuda":
        free, total = torch.cuda.mem_get_info(place)
        result["device_memory_used_mb"] = (total - free) / 1e6  # of all processes, CUDA context and Warp included
    gpu = result["environment"].get("gpu", place.type)
    result["title"] = (
        f"{gpu}, {size[1]}x{size[0]}, {objects} object{'s' * (objects > 1)}, {description}, "
        f"register {schedule} x {config.pose.register_iterations}, track x {iterations}"
    )
    write(out / "bench.json", result)
    bar_chart(result, out / "bench.png")
    if compact:
        for line in compact_lines(result):
            print(line)
    else:
        console.print(stage_table(result))
    say(f"Look at: {out / 'bench.json'}, {out / 'bench.png'}")
    if all(row.get("reason") for row in result["rows"].values()):
        raise typer.Exit(1)


def measure(
    backends: Sequence[str],
    networks: dict[str, Any],
    config: Config,
    device: torch.device,
    size: tuple[int, int],
    count: int,
    with_detector: bool,
    repeats: tuple[int, int],
    seed: int,
    console: Console,
) -> dict[str, Any]:
    """Build every row, discard the first calls, then sample all rows in turn. Returns the JSON tree."""
    from ..evaluate.bench_rows import detector_call
    from ..evaluate.bench_scene import BenchScene
    from ..evaluate.bench_timing import Stats, interleave, timed
    from ..pose.mesh import load_object

    specs, models = demo_objects(count, load_object)
    scene = BenchScene(models, size, device, seed)
    frames = [scene.frame(i) for i in range(FRAMES if device.type == "cuda" else 6)]
    names = [m.name for m in models]
    registers = repeats[0] or REPEATS[device.type][0]
    tracks = repeats[1] or REPEATS[device.type][1]

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    built = [build_row(backend, models, networks, config, device, scene.camera, frames, say) for backend in backends]
    rows = {b.name: b.row for b in built if b.row is not None}
    tree: dict[str, Any] = {b.name: {"reason": b.reason, "stages": {}} for b in built}
    for b in built:
        tree[b.name] |= {
            "warm_up_s": b.warm_up_s,
            "memory_mb": b.memory_mb,
            "warm_up_memory_mb": b.warm_up_memory_mb,
        }
        if b.row is not None:
            tree[b.name] |= {"ran": b.row.ran, "degraded": b.row.degraded}

    def at(i: int) -> BenchFrame:
        return frames[i % len(frames)]

    def timer(work: Callable[[int], Any]) -> Callable[[int], float]:
        return lambda i: timed(lambda: work(i), device)[0]

    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:

        def sample(stage: str, work: dict[str, Callable[[int], Any]], samples: int) -> None:
            task = progress.add_task(stage, total=samples * len(work))
            calls = {name: timer(call) for name, call in work.items()}
            found = interleave(calls, samples, lambda: progress.update(task, advance=1))
            for name, values in found.items():
                tree[name]["stages"][stage] = Stats.of(values).as_dict()

        if with_detector:
            detectors: dict[str, Callable[[int], Any]] = {}
            for name in rows:
                call, reason = detector_call(name, config, specs, device, scene.camera, say)
                if call is None:
                    tree[name]["stages"]["detector"] = {"reason": reason}
                else:
                    call(frames[0].frame)
                    detectors[name] = partial(lambda c, i: c(at(i).frame), call)
            sample("detector", detectors, max(tracks // 4, 3))
        each = rows.items()
        sample("preprocess", {n: partial(lambda r, i: r.preprocess(at(i).frame), r) for n, r in each}, tracks)
        sample("track", {n: partial(lambda r, i: r.track(at(i).frame, before(frames, i)), r) for n, r in each}, tracks)
        sample("register", {n: partial(lambda r, i: r.register(at(i).frame, names[0]), r) for n, r in each}, registers)
    published = publish_stats(frames[0], tracks)
    for name in rows:
        tree[name]["stages"]["publish"] = published
    add_differences(tree, rows, frames, models)
    return {"rows": tree, "speedup": speedups(tree), "objects": names}


def publish_stats(shown: BenchFrame, samples: int) -> dict[str, Any]:
    """The same for every row: poses to serialized messages."""
    from ..evaluate.bench_rows import publish_call
    from ..evaluate.bench_timing import Stats

    publish, reason = publish_call()
    if publish is None:
        return {"reason": reason}
    publish(shown.frame, shown.truths)
    return Stats.of([publish(shown.frame, shown.truths) for _ in range(samples)]).as_dict()


def demo_objects(count: int, load: Any) -> tuple[list[Any], list[Any]]:
    """The smallest objects of the demo, first the mug."""
    from ..objects import load_objects
    from ..resources import default_objects_file

    specs = {s.name: s for s in load_objects(default_objects_file())}
    models = {name: load(spec) for name, spec in specs.items()}
    order = sorted(specs, key=lambda name: (name != "mug", models[name].diameter))[:count]
    return [specs[name] for name in order], [models[name] for name in order]


def build_row(
    backend: str,
    models: Sequence[Any],
    networks: dict[str, Any],
    config: Config,
    device: torch.device,
    camera: Any,
    frames: Sequence[BenchFrame],
    log: Any,
) -> BuiltRow:
    """A warmed-up row with what it cost, or the reason why there is none."""
    from ..accel.base import one_line
    from ..evaluate.bench_rows import BuiltRow, EstimatorRow, ReferenceRow, Row
    from ..evaluate.bench_timing import MemoryMeter, synchronize

    gc.collect()
    meter = MemoryMeter(device)
    meter.start()
    begin = time.perf_counter()
    registers, tracks = WARM_UP[device.type]
    try:
        row: Row
        if backend == "reference":
            row = ReferenceRow(models, networks, config, device)
        else:
            row = EstimatorRow(backend, models, networks, config, device, log)
        row.warm_up(camera)
        for _ in range(registers):
            row.register(frames[0].frame, models[0].name)
        for i in range(tracks):
            row.track(frames[i % len(frames)].frame, before(frames, i))
    except RuntimeError as error:  # unavailable, or out of memory: the other backends are still of interest
        return BuiltRow(backend, None, one_line(error))
    synchronize(device)
    took, peak = time.perf_counter() - begin, meter.peak_mb()
    if device.type == "cuda":
        meter.settle()
        row.register(frames[0].frame, models[0].name)
        row.track(frames[0].frame, before(frames, 0))
    return BuiltRow(backend, row, "", took, meter.peak_mb(), peak)


def before(frames: Sequence[BenchFrame], i: int) -> dict[str, NDArray[np.float64]]:
    """Where tracking starts in frame i: the true poses of the frame before, as after a perfect step."""
    return frames[max(i % len(frames) - 1, 0)].truths


def add_differences(
    tree: dict[str, Any], rows: dict[str, Any], frames: Sequence[BenchFrame], models: Sequence[Any]
) -> None:
    """Pose differences of each row to FP32 eager, from equal starts, for tracking and registration."""
    from ..evaluate.compare import Differences, pose_difference

    exact = rows.get("eager")
    if exact is None:
        return
    expected = [exact.track(f.frame, before(frames, i)) for i, f in enumerate(frames)]
    registered = exact.register(frames[0].frame, models[0].name)
    for name, row in rows.items():
        if row is exact:
            continue
        track = Differences()
        for i, f in enumerate(frames):
            for key, T in row.track(f.frame, before(frames, i)).items():
                track.add(*pose_difference(expected[i][key], T))
        mm, deg = pose_difference(registered, row.register(frames[0].frame, models[0].name))
        tree[name] |= {"track_difference": track.percentiles(), "register_difference": {"mm": mm, "deg": deg}}


def speedups(tree: dict[str, Any]) -> dict[str, dict[str, float]]:
    """p50 of the reference over p50 of each row, for register and track."""
    base = tree.get("reference", {}).get("stages", {})
    found: dict[str, dict[str, float]] = {}
    for stage in ("register", "track"):
        if "p50" in base.get(stage, {}):
            found[stage] = {
                name: base[stage]["p50"] / row["stages"][stage]["p50"]
                for name, row in tree.items()
                if name != "reference" and "p50" in row["stages"].get(stage, {})
            }
    return found


def parse_resolution(text: str) -> tuple[int, int]:
    """ "1280x720" -> (720, 1280). Raises typer.BadParameter."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise typer.BadParameter(f"--resolution={text} must be WIDTHxHEIGHT, e.g. 1280x720") from error
    if not (64 <= width <= 8192 and 64 <= height <= 8192):
        raise typer.BadParameter(f"--resolution={text} must be between 64x64 and 8192x8192")
    return height, width


def write(path: Path, tree: dict[str, Any]) -> None:
    """JSON, readable."""
    path.write_text(json.dumps(tree, indent=1))
