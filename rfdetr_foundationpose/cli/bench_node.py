"""``bench node``: from the camera's stamp to the pose received, over DDS, and where each millisecond goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..interrupts import CutShort
from ..node_bench.variants import VARIANTS
from .console import kept, open_console, progress_bar, sayer
from .options import Device, ObjectsFile, Out, Seed, Settings, Size, parse_choices, parse_names, parse_size
from .outputs import Overwrite, claim

ORDER = ("mug", "drill", "cereal_box", "spray_bottle", "soup_can")


def node(
    rates: Annotated[str, typer.Option(help="Frames a second, separated by commas [Hz].")] = "30,60",
    counts: Annotated[str, typer.Option(help="Numbers of objects on the table, separated by commas.")] = "1",
    styles: Annotated[
        str, typer.Option(help="ours, naive (as wrappers are usually written), or both: ours,naive.")
    ] = "ours",
    without: Annotated[
        str,
        typer.Option(
            help=f"What to take away, one run each, separated by commas: {', '.join(VARIANTS)}; all: each of them."
        ),
    ] = "",
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Measured seconds of each run.")] = 20.0,
    size: Size = "1280x720",
    frames: Annotated[
        int, typer.Option(min=2, max=600, help="Frames that are generated, and played forwards and backwards.")
    ] = 60,
    slow_viewer: Annotated[
        float, typer.Option(min=0, max=10, help="Seconds that a subscriber of the debug image sleeps on each picture.")
    ] = 0.0,
    objects_file: ObjectsFile = None,
    device: Device = "auto",
    setting: Settings = None,
    seed: Seed = 5,
    out: Out = Path("out/bench-node"),
    overwrite: Overwrite = False,
) -> None:
    """A camera process, the node and listeners over DDS: ages of poses, their parts, drops and CPU time. Needs ROS."""
    from ..config import from_flat, to_flat
    from ..device import resolve_device
    from ..evaluate.bench_report import environment
    from ..node_bench.report import node_picture, node_tables
    from ..node_bench.session import NodeRun, run_node, store_frames
    from ..objects import load_objects
    from ..process import prepare_process
    from ..replay.node_process import free_domain_id
    from ..resources import default_objects_file
    from ..synth.generate import load_scene_objects
    from ..synth.video import SceneVideo, VideoSettings
    from .settings import read_settings, write_known

    console = open_console()
    say = sayer(console)
    taken = _choices(without, tuple(VARIANTS), "--without")
    wanted = _choices(styles, ("ours", "naive"), "--styles") or ["ours"]
    speeds = _numbers(rates, "--rates", 1, 240)
    numbers = [int(n) for n in _numbers(counts, "--counts", 1, 32)]
    place = prepare_process(resolve_device(device))
    file = Path(objects_file or default_objects_file())
    specs = load_objects(file)
    config = read_settings(None, setting or [], None, from_flat({"device": device, "input.reliability": "reliable"}))
    outputs = claim("bench node", out, ("bench_node.json", "bench_node.png", "runs", "frames"), overwrite=overwrite)
    rows: list[dict[str, Any]] = []
    machine = environment(place)
    about = {"environment": machine, "size": size, "seconds": seconds}
    domain = free_domain_id()
    ways = [(style, "", rate) for rate in speeds for style in wanted]
    ways += [("ours", name, rate) for rate in speeds for name in taken]
    with CutShort() as cut:
        for count in numbers:
            targets = _targets([s.name for s in specs], count)
            stored = out / "frames" / str(count)
            known = (out / "runs" / f"objects_{count}.yaml").resolve()
            listed = write_known(file, specs, targets, known, everything=False)
            with progress_bar(console) as progress:
                task = progress.add_task("generate", total=frames)
                video = SceneVideo(
                    load_scene_objects(file),
                    VideoSettings(frames=frames, size=parse_size(size), seed=seed, targets=targets),
                    place,
                )
                made = []
                for i in range(frames):
                    made.append(video.frame(i)[0])
                    progress.update(task, advance=1)
            store_frames(made, stored)
            settings = to_flat(config) | {"objects_file": str(known)}
            for style, name, rate in ways:
                run = NodeRun(style, name, rate, seconds, tuple(video.names), slow_viewer)
                rows.append(run_node(run, stored, settings, out / "runs" / f"{len(rows):02d}", domain))
                outputs.write({**about, "rows": rows}, "bench_node.json")
            say(f"{len(listed)} kinds of objects, {count} on the table")
    if rows:
        node_picture(rows, out / "bench_node.png")
        for table in node_tables(rows, f"{machine.get('gpu', place.type)}, {size}, milliseconds"):
            console.print(table)
    kept(cut, len(rows), len(ways) * len(numbers), "runs", out / "bench_node.json")
    say(f"Look at: {out / 'bench_node.json'}, {out / 'bench_node.png'}")


def _targets(names: list[str], count: int) -> tuple[str, ...]:
    """So many objects, every kind before the second of one."""
    order = [n for n in ORDER if n in names] + [n for n in names if n not in ORDER]
    return tuple(order[i % len(order)] for i in range(count))


def _choices(text: str, known: tuple[str, ...], option: str) -> list[str]:
    if text == "all":
        return list(known)
    return parse_choices(text, known, option, also=("all",))


def _numbers(text: str, option: str, low: float, high: float) -> list[float]:
    try:
        found = [float(part) for part in parse_names(text)]
    except ValueError as error:
        raise typer.BadParameter(f"{option}={text} must be numbers, comma separated") from error
    if not found or any(not low <= value <= high for value in found):
        raise typer.BadParameter(f"{option}={text} must be numbers in [{low:g}, {high:g}]")
    return found
