"""Every stage of every way to run the networks, measured in turn on one scene."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..config import Config
from ..errors import one_line
from ..pose.example_scene import ExampleFrame, ExampleScene
from ..pose.mesh import ObjectModel
from ..types import CameraIntrinsics
from .bench_rows import BuiltRow, EstimatorRow, ReferenceRow, Row, detector_call, publish_call
from .bench_scene import before, smallest_objects
from .bench_timing import MemoryMeter, Stats, interleave, synchronize, timed
from .compare import Differences, pose_difference
from .networks import LoadedNetworks

DEFAULT_BACKENDS = {
    "cuda": "reference,eager,half,traced,compile,cuda_graph,fp8,tensorrt,onnxruntime",
    "cpu": "eager,half,traced,cuda_graph,tensorrt,onnxruntime,int8,bf16",
}
"""On a CPU, compiling takes minutes and the reference minutes a registration: both run when they are named."""
REPEATS = {"cuda": (10, 200), "cpu": (1, 10)}
"""So many samples are taken of register, and of the other stages."""
WARM_UP = {"cuda": (1, 5), "cpu": (0, 1)}
FRAMES = 30

Begin = Callable[[str, int], Callable[[], None]]
"""Told the name of a stage and how many samples it will take; what it returns is called after each."""


@dataclass(frozen=True)
class StageSettings:
    """size: (height, width). objects: tracked together. registers, tracks: samples of register and of the other stages;
    0 takes the device's default. objects_file: an objects.yaml; None takes the demo's objects."""

    size: tuple[int, int] = (720, 1280)
    objects: int = 1
    detector: bool = True
    registers: int = 0
    tracks: int = 0
    seed: int = 0
    objects_file: Path | None = None


def measure(
    backends: Sequence[str],
    networks: LoadedNetworks,
    config: Config,
    device: torch.device,
    settings: StageSettings,
    begin: Begin = lambda stage, samples: lambda: None,
    save: Callable[[dict[str, Any]], None] = lambda tree: None,
) -> dict[str, Any]:
    """Build every row, discard the first calls, then sample all rows in turn. Returns the JSON tree.

    save: gets the tree as far as it is after each stage, and when the user interrupts one.
    """
    specs, models = smallest_objects(settings.objects, settings.objects_file)
    scene = ExampleScene(models, settings.size, device, settings.seed)
    frames = [scene.frame(i) for i in range(FRAMES if device.type == "cuda" else 6)]
    names = [m.name for m in models]
    registers = settings.registers or REPEATS[device.type][0]
    tracks = settings.tracks or REPEATS[device.type][1]

    built: list[BuiltRow] = []
    done = begin("warm-up", len(backends))
    for backend in backends:
        built.append(build_row(backend, models, networks, config, device, scene.camera, frames))
        done()
    rows = {b.name: b.row for b in built if b.row is not None}
    tree = {b.name: b.as_dict() for b in built}

    def at(i: int) -> ExampleFrame:
        return frames[i % len(frames)]

    def timer(work: Callable[[int], Any]) -> Callable[[int], float]:
        return lambda i: timed(lambda: work(i), device)[0]

    def result() -> dict[str, Any]:
        return {"rows": tree, "speedup": speedups(tree), "objects": names}

    def sample(stage: str, work: dict[str, Callable[[int], Any]], samples: int) -> None:
        found: dict[str, list[float]] = {}
        try:
            calls = {name: timer(call) for name, call in work.items()}
            interleave(calls, samples, begin(stage, samples * len(work)), found)
        finally:
            for name, values in found.items():
                if values:
                    tree[name]["stages"][stage] = Stats.of(values).as_dict()
            save(result())

    if settings.detector:
        detectors: dict[str, Callable[[int], Any]] = {}
        for name in rows:
            call, reason = detector_call(name, config, specs, device, scene.camera)
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
    return result()


def publish_stats(shown: ExampleFrame, samples: int) -> dict[str, Any]:
    """The same for every row: poses to serialized messages."""
    publish, reason = publish_call()
    if publish is None:
        return {"reason": reason}
    publish(shown.frame, shown.truths)
    return Stats.of([publish(shown.frame, shown.truths) for _ in range(samples)]).as_dict()


def build_row(
    backend: str,
    models: Sequence[ObjectModel],
    networks: LoadedNetworks,
    config: Config,
    device: torch.device,
    camera: CameraIntrinsics,
    frames: Sequence[ExampleFrame],
) -> BuiltRow:
    """A warmed-up row with what it cost, or the reason why there is none."""
    gc.collect()
    meter = MemoryMeter(device)
    meter.start()
    begin = time.perf_counter()
    registers, tracks = WARM_UP[device.type]
    try:
        row: Row
        if backend == "reference":
            row = ReferenceRow(models, networks.modules, config, device)
        else:
            row = EstimatorRow(backend, models, networks, config, device)
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


def add_differences(
    tree: dict[str, Any], rows: Mapping[str, Row], frames: Sequence[ExampleFrame], models: Sequence[ObjectModel]
) -> None:
    """Pose differences of each row to FP32 eager, from equal starts, for tracking and registration."""
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
