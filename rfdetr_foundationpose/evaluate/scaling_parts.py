"""What ``bench scaling`` measures, part by part."""

from __future__ import annotations

import copy
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..detect.masks import mask_box
from ..latency import StageTimer
from ..meshes.decimation import MOST_FACES as MOST_LOADED
from ..objects import ObjectSpec
from ..pipeline.registration_worker import Job, RegistrationWorker
from ..pipeline.tracks import Track
from ..pose.estimator import TRACK_BATCHES, TrackRequest
from ..pose.example_scene import RATE, ExampleFrame
from ..pose.mesh import make_object
from ..pose.renderer import MOST_FACES
from ..synth.counted_mesh import counted_ring
from ..types import Detection
from .bench_rows import EstimatorRow
from .bench_scaling import Ground, Part, Points, Work, skipping
from .growth import Limit

SWITCH_INTERVAL = 0.0001
"""As the node sets it: a thread may hold the interpreter for so many seconds while another one waits."""


def objects(ground: Ground, stack: ExitStack) -> Points:
    """Objects that are tracked in one call. The scene has up to four; the others are looked for beside them."""
    frames = ground.frames(ground.models, ground.settings.size)
    row, counts = ground.row, ground.settings.counts

    def tracking(count: int) -> Work:
        def work(i: int) -> Mapping[str, float]:
            shown = frames[i % len(frames)]
            last = frames[max(i % len(frames) - 1, 0)]
            requests = instances(last, count)
            return {"track": ground.step(lambda: row.estimator.track(row.prepare(shown.frame), requests))}

        return work

    works = [tracking(count) for count in counts]
    for work in works:
        ground.warm_up("track", work)
    limits = [Limit(TRACK_BATCHES[-1], f"more than {TRACK_BATCHES[-1]} objects are tracked in several turns")]
    if ground.device.type == "cuda":
        limits += [
            Limit(few, f"{few + 1} to {many} objects cost what {many} do")
            for few, many in pairwise(TRACK_BATCHES)
            if many - few > 1
        ]
    return Points("objects", counts, [str(c) for c in counts], {"track": works}, limits)


def instances(shown: ExampleFrame, count: int) -> list[TrackRequest]:
    """So many objects: those of the frame, then others of their kinds up to 12 cm beside them, so that each has its own crop."""
    names = list(shown.truths)
    requests = []
    for i in range(count):
        T = np.array(shown.truths[names[i % len(names)]])
        turn = i // len(names)
        if turn:
            T[:2, 3] += 0.12 * np.array([np.cos(2.4 * turn), np.sin(2.4 * turn)])
        requests.append(TrackRequest(names[i % len(names)], T))
    return requests


def register(ground: Ground, stack: ExitStack) -> Points:
    """Objects that wait for their registration, all seen in the first frame: instances of one kind, which have equally many
    hypotheses."""
    model = ground.models[0]
    frames = ground.frames([model], ground.settings.size)
    worker = RegistrationWorker(ground.row.estimator, ground.device, StageTimer(ground.device))
    stack.callback(worker.close)
    counts = ground.settings.waiting

    def registering(count: int) -> Work:
        return lambda i: registered(ground, worker, frames, model.name, count)

    works = [registering(count) for count in counts]
    ground.warm_up("track", tracked_beside(ground, frames, counts))
    ground.warm_up("register", works[-1])
    limits = [
        Limit(
            1,
            f"the first is registered at once, the others in the background beside tracking; each ends with one of the "
            f"{RATE:g} frames a second",
        )
    ]
    return Points("waiting objects", counts, [str(c) for c in counts], {"register": works}, limits)


def tracked_beside(ground: Ground, frames: Sequence[ExampleFrame], counts: Sequence[int]) -> Work:
    """Every number of objects that is tracked while others wait: their programs are captured then."""

    def work(i: int) -> Mapping[str, float]:
        for count in range(1, max(counts) + 1):
            ground.row.estimator.track(ground.row.prepare(frames[0].frame), instances(frames[0], count))
        return {}

    return work


def registered(
    ground: Ground, worker: RegistrationWorker, frames: Sequence[ExampleFrame], name: str, count: int
) -> Mapping[str, float]:
    """Milliseconds until the first and until all of ``count`` objects have poses, and of a registration by itself.

    As the pipeline does it: the first at once; then, frame by frame, the registered ones are tracked while the next one is
    registered in the background.
    """
    estimator = ground.row.estimator

    def job(shown: ExampleFrame) -> Job:
        mask = shown.frame.masks[name]
        box = mask_box(mask)
        assert box is not None
        seen = Detection(name, name, 1.0, box, ground.row.on_device(mask), "bench")
        return Job(ground.row.prepare(shown.frame), seen, Track(name, 0))

    took: list[float] = []

    def finished(one: Job) -> None:
        if one.error is not None:
            raise one.error
        took.append(one.milliseconds)

    ground.step(lambda: None)
    begin = time.perf_counter()
    finished(worker.run(job(frames[0])))
    first = total = time.perf_counter() - begin
    index = 0
    while len(took) < count:
        if worker.pending is None:
            worker.submit(job(frames[index % len(frames)]))
        elapsed = time.perf_counter() - begin
        index = max(index + 1, int(elapsed * RATE))  # frames that came meanwhile are skipped: only the newest counts
        time.sleep(max(index / RATE - elapsed, 0.0))
        shown = frames[index % len(frames)]
        observation = ground.row.prepare(shown.frame)
        if (done := worker.poll()) is not None:
            finished(done)
        estimator.track(observation, instances(shown, len(took)))
        total = time.perf_counter() - begin
    return {"until the first": first * 1e3, "until all": total * 1e3, "one by itself": float(np.median(took))}


def faces(ground: Ground, stack: ExitStack) -> Points:
    """One object whose mesh has so many faces, loaded as an entry of objects.yaml is."""
    notes: list[str] = []
    labels, facts = [], []
    tracks: list[Work] = []
    registers: list[Work] = []
    seen: list[ExampleFrame] = []
    x: list[float] = []
    for count in ground.settings.faces:
        mesh = counted_ring(count)
        with skipping(f"{len(mesh.faces):,} faces", notes):
            memory = ground.memory_mb()
            begin = time.perf_counter()
            model = make_object(ObjectSpec("ring", Path("ring")), mesh)
            loading = time.perf_counter() - begin
            seen = seen or ground.frames([model], ground.settings.size)
            row = ground.another([model])
            track, registration = ground.track(row, seen), ground.register(row, seen, "ring")
            _both_warm(ground, track, registration)
            x.append(len(mesh.faces))
            labels.append(f"{len(mesh.faces):,}")
            facts.append({"faces drawn": len(model.arrays.faces), "load s": loading} | _grown(ground, memory))
            tracks.append(track)
            registers.append(registration)
    cast = MOST_FACES[ground.device.type]
    limits = [
        Limit(cast, f"above {cast:,} faces rays are cast instead of rasterizing"),
        Limit(MOST_LOADED, f"above {MOST_LOADED:,} faces a mesh is thinned out to them when it is loaded"),
    ]
    return Points("faces", x, labels, {"track": tracks, "register": registers}, limits, facts, notes)


def images(ground: Ground, stack: ExitStack) -> Points:
    """Images of several sizes of the same view; upload and depth filter by themselves too. On a CPU depth is filtered where crops
    look, so there is no such step there."""
    model = ground.models[0]
    notes: list[str] = []
    x, labels, facts = [], [], []
    stages: dict[str, list[Work]] = {"track": [], "register": [], "upload": []}
    if ground.device.type == "cuda":
        stages["depth filter"] = []
    for height, width in ground.settings.sizes:
        with skipping(f"{width}x{height}", notes):
            memory = ground.memory_mb()
            row = ground.another([model])
            frames = ground.frames([model], (height, width), 2)
            track, registration = ground.track(row, frames), ground.register(row, frames, model.name)
            _both_warm(ground, track, registration)
            works = {"track": track, "register": registration} | _transfers(ground, row, frames)
            for stage, kept in stages.items():
                kept.append(works[stage])
            x.append(width * height / 1e6)
            labels.append(f"{width}x{height}")
            facts.append(_grown(ground, memory))
    return Points("image", x, labels, stages, (), facts, notes, "megapixels")


def _transfers(ground: Ground, row: EstimatorRow, frames: Sequence[ExampleFrame]) -> dict[str, Work]:
    uploaded = row.upload(frames[0].frame)
    return {
        "upload": lambda i: {"upload": ground.step(lambda: row.upload(frames[i % len(frames)].frame))},
        "depth filter": lambda i: {"depth filter": ground.step(lambda: row.estimator.prepare(uploaded))},
    }


def cameras(ground: Ground, stack: ExitStack) -> Points:
    """Cameras in one process, each with an estimator and a thread of its own, whose frames arrive at the same moment."""
    model = ground.models[0]
    frames = ground.frames([model], ground.settings.size)
    rows: list[EstimatorRow] = []
    facts: list[dict[str, Any]] = []
    notes: list[str] = []
    for camera in range(max(ground.settings.cameras)):
        with skipping(f"{camera + 1} cameras", notes):
            memory = ground.memory_mb()
            modules = {role: copy.deepcopy(module) for role, module in ground.networks.modules.items()}
            first_pass = copy.deepcopy(ground.networks.first_pass)
            row = ground.another([model], replace(ground.networks, modules=modules, first_pass=first_pass))
            row.warm_up(frames[0].frame.camera)
            rows.append(row)
            facts.append(_grown(ground, memory))
        if notes:
            break
    threads = [stack.enter_context(ThreadPoolExecutor(1, f"camera {i}")) for i in range(len(rows))]
    interval = sys.getswitchinterval()
    stack.callback(sys.setswitchinterval, interval)
    sys.setswitchinterval(SWITCH_INTERVAL)
    counts = [c for c in ground.settings.cameras if c <= len(rows)]
    works = [_at_once(rows[:count], threads, frames) for count in counts]
    for work in works:
        ground.warm_up("track", work)
    cores = os.cpu_count() or 1
    limits = [] if ground.device.type == "cuda" else [Limit(cores, f"more than {cores} share {cores} cores")]
    if ground.device.type == "cuda":
        notes.append("the cameras' steps take turns on one CUDA stream, as those of a node's threads do")
    memory_of = [{key: sum(fact[key] for fact in facts[:c]) for key in facts[0]} for c in counts]
    return Points("cameras", counts, [str(c) for c in counts], {"track": works}, limits, memory_of, notes)


def _at_once(
    rows: Sequence[EstimatorRow], threads: Sequence[ThreadPoolExecutor], frames: Sequence[ExampleFrame]
) -> Work:
    """From the moment at which all cameras have a frame until the first and until the last of them has its poses."""
    together = threading.Barrier(len(rows))

    def one(row: EstimatorRow, i: int) -> tuple[float, float]:
        shown, last = frames[i % len(frames)], frames[max(i % len(frames) - 1, 0)]
        together.wait()
        begin = time.perf_counter()
        row.track(shown.frame, last.truths)
        return begin, time.perf_counter()

    def work(i: int) -> Mapping[str, float]:
        under_way = [thread.submit(one, row, i) for row, thread in zip(rows, threads, strict=False)]
        times = [task.result() for task in under_way]
        begin = min(t[0] for t in times)
        ends = [t[1] - begin for t in times]
        return {"track, first camera": min(ends) * 1e3, "track, last camera": max(ends) * 1e3}

    return work


def _both_warm(ground: Ground, track: Work, registration: Work) -> None:
    ground.warm_up("track", track)
    ground.warm_up("register", registration)


def _grown(ground: Ground, before: float | None) -> dict[str, Any]:
    """What the device has in use more than before."""
    now = ground.memory_mb()
    return {} if now is None or before is None else {"memory MB": now - before}


ALL: dict[str, Part] = {
    "objects": objects,
    "register": register,
    "faces": faces,
    "images": images,
    "cameras": cameras,
}
