"""``bench scaling``: how the cost of tracking and registration grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .bench_common import Iterations, Schedule, keeping, set_up
from .console import open_console, progress_bar, sayer
from .options import (
    Device,
    ObjectsFile,
    OfficialSize,
    Out,
    PoseWeights,
    Seed,
    parse_choices,
    parse_names,
    parse_size,
    whole_numbers,
)
from .outputs import Overwrite, claim

Backend = Annotated[str, typer.Option("--backends", help="One way to run the networks; default: what the node takes.")]

DEFAULTS = {
    "counts": {"cuda": "1,2,4,8,16,32", "cpu": "1,2,4,8"},
    "waiting": {"cuda": "1,2,3,4,5,6,7,8", "cpu": "1,2,4"},
    "faces": {"cuda": "1000,10000,100000,1000000", "cpu": "1000,10000,100000,1000000"},
    "sizes": {"cuda": "640x480,1280x720,1920x1080,4096x3072", "cpu": "640x480,1280x720,1920x1080"},
    "cameras": {"cuda": "1,2,3,4", "cpu": "1,2"},
}
RANGES = {"counts": (1, 100), "waiting": (1, 100), "faces": (36, 5_000_000), "cameras": (1, 16)}
SMALLEST_SIDE = 96


def _grown(what: str, option: str) -> str:
    """Help of a list whose default is the device's."""
    gpu, cpu = DEFAULTS[option]["cuda"], DEFAULTS[option]["cpu"]
    return f"{what}; default: {gpu}" + (f", on a CPU {cpu}." if cpu != gpu else ".")


def scaling(
    parts: Annotated[
        str, typer.Option(help="What to measure, separated by commas: objects, register, faces, images, cameras.")
    ] = "objects,register,faces,images,cameras",
    counts: Annotated[str, typer.Option(help=_grown("Objects tracked in one call", "counts"))] = "",
    waiting: Annotated[str, typer.Option(help=_grown("Objects that wait for registration together", "waiting"))] = "",
    faces: Annotated[str, typer.Option(help=_grown("Faces of a mesh", "faces"))] = "",
    sizes: Annotated[str, typer.Option(help=_grown("Images, WIDTHxHEIGHT in pixels", "sizes"))] = "",
    cameras: Annotated[str, typer.Option(help=_grown("Cameras in one process", "cameras"))] = "",
    size: Annotated[str, typer.Option(help="Image size of all other parts, WIDTHxHEIGHT in pixels.")] = "1280x720",
    backend: Backend = "",
    device: Device = "auto",
    objects_file: ObjectsFile = None,
    official_size: OfficialSize = False,
    weights: PoseWeights = "default",
    schedule: Schedule = "auto",
    iterations: Iterations = 2,
    samples: Annotated[
        int,
        typer.Option(min=0, help="Samples of each step; a tenth as many of a registration; 0: 100, on a CPU 5."),
    ] = 0,
    seed: Seed = 0,
    out: Out = Path("out/bench"),
    overwrite: Overwrite = False,
) -> None:
    """Time tracking and registration for more and more objects, faces, pixels and cameras, and say how the time grows. Each part is
    kept when it is done, also after Ctrl-C. On a CPU it takes minutes."""
    from ..backends import POSE
    from ..config import from_flat
    from ..evaluate.bench_scaling import PARTS, SAMPLES, Ground, ScalingSettings, measure_scaling
    from ..evaluate.bench_scene import most_objects, smallest_objects
    from ..evaluate.scaling_parts import ALL
    from ..evaluate.scaling_report import remarks, scaling_picture, scaling_tables

    console = open_console()
    say = sayer(console)
    kind = _device_type(device)
    chosen = _parts(parts, PARTS)
    given = {"counts": counts, "waiting": waiting, "faces": faces, "cameras": cameras}
    numbers = {name: _numbers(text or DEFAULTS[name][kind], f"--{name}", *RANGES[name]) for name, text in given.items()}
    settings = ScalingSettings(
        chosen,
        sizes=_sizes(sizes or DEFAULTS["sizes"][kind]),
        size=_size(size, "--size"),
        tracks=samples or SAMPLES[kind][0],
        registers=max(samples // 10, 1) if samples else SAMPLES[kind][1],
        seed=seed,
        **numbers,
    )
    if "," in backend:
        raise typer.BadParameter(f"--backends={backend} must be one; the others have 'bench stages'")
    config = from_flat({"device": device, "pose.register_schedule": schedule, "pose.track_iterations": iterations})
    bench = set_up(device, seed, backend, weights, official_size, POSE.auto(kind))
    outputs = claim("bench scaling", out, ("scaling.json", "scaling.png"), overwrite=overwrite)
    path = out / "scaling.json"
    facts = bench.environment
    title = f"{facts.get('gpu', bench.device.type)}, {bench.backends[0]}, {bench.networks.description}"
    about = {"environment": facts, "weights": bench.networks.description, "title": title, "size": size}
    found: dict[str, Any] = {}

    def save(tree: dict[str, Any]) -> None:
        found.update(tree)
        outputs.write({**about, "parts": tree}, path.name)

    try:
        with keeping(path), progress_bar(console) as progress:

            def begin(part: str, samples: int) -> Callable[[], None]:
                task = progress.add_task(part, total=samples)
                return lambda: progress.update(task, advance=1)

            start = begin("warm-up", 1)
            _, models = smallest_objects(most_objects(objects_file), objects_file)
            ground = Ground(bench.backends[0], models, bench.networks, config, bench.device, settings)
            start()
            measure_scaling(ground, ALL, begin, save)
    finally:
        if found:
            scaling_picture(found, title, out / "scaling.png")
            for table in scaling_tables(found, f"{size}, {bench.backends[0]}"):
                console.print(table)
            for line in remarks(found):
                say(line)
    say(f"Look at: {path}, {out / 'scaling.png'}")


def _device_type(device: str) -> str:
    from ..device import resolve_device

    return "cuda" if resolve_device(device).type == "cuda" else "cpu"


def _parts(text: str, known: Sequence[str]) -> list[str]:
    found = parse_choices(text, known, "--parts")
    if not found:
        raise typer.BadParameter(f"--parts must name one or more of {', '.join(known)}")
    return found


def _numbers(text: str, option: str, low: int, high: int) -> list[int]:
    """As ``whole_numbers`` gives them. Raises typer.BadParameter."""
    found = whole_numbers(text, low, high)
    if not found:
        raise typer.BadParameter(f"{option}={text} must be whole numbers from {low} to {high}, separated by commas")
    return found


def _size(text: str, option: str) -> tuple[int, int]:
    """Raises typer.BadParameter for images in which the scene's objects are too small to be registered."""
    height, width = parse_size(text)
    if min(height, width) < SMALLEST_SIDE:
        raise typer.BadParameter(
            f"{option}={text}: the objects would be too small; both sides are to be {SMALLEST_SIDE} pixels or more"
        )
    return height, width


def _sizes(text: str) -> list[tuple[int, int]]:
    """By their number of pixels, of which no two have the same. Raises typer.BadParameter."""
    found: dict[int, tuple[int, int]] = {}
    for part in parse_names(text):
        height, width = _size(part, "--sizes")
        if found.setdefault(height * width, (height, width)) != (height, width):
            raise typer.BadParameter(f"--sizes={text}: two of them have equally many pixels")
    if not found:
        raise typer.BadParameter("--sizes must name one or more, e.g. 640x480,1280x720")
    return [found[pixels] for pixels in sorted(found)]
