"""``bench scaling``: how the cost of tracking and registration grows with what there is to do."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..config import Config
from ..errors import UserError, one_line
from ..pose.estimator import RegistrationError
from ..pose.example_scene import ExampleFrame, ExampleScene
from ..pose.mesh import ObjectModel
from .bench_rows import EstimatorRow
from .bench_scene import before
from .bench_timing import Stats, interleave, memory_in_use, timed
from .growth import Limit, growth
from .networks import LoadedNetworks

logger = logging.getLogger(__name__)

PARTS = ("objects", "register", "faces", "images", "cameras")
SAMPLES = {"cuda": (100, 10), "cpu": (5, 1)}
"""Samples of a tracking step, and of a registration."""
WARM_UP = {"cuda": (3, 2), "cpu": (1, 0)}
"""Calls that are not counted, of either; on a CPU a registration takes as long the first time."""
FRAMES = 6

Begin = Callable[[str, int], Callable[[], None]]
"""Told the name of a part and how many samples it will take; what it returns is called after each."""
Work = Callable[[int], Mapping[str, float]]
"""One round of a stage: its number -> milliseconds by series."""


@dataclass(frozen=True)
class ScalingSettings:
    """What is measured. counts: objects that are tracked together. waiting: objects that wait for their registration. faces: of
    meshes. sizes: (height, width) of images. cameras: in one process. Each ascending. size: (height, width) of the images of all
    other parts. tracks, registers: samples."""

    parts: Sequence[str]
    counts: Sequence[int]
    waiting: Sequence[int]
    faces: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    cameras: Sequence[int]
    size: tuple[int, int]
    tracks: int
    registers: int
    seed: int = 0


@dataclass
class Points:
    """A part, ready to be sampled. axis: what grows. x: how much of it, in ``unit``; labels: the same for people. work: by stage, one
    call for each x. limits: what is known to change on the way. facts: of each x, for people."""

    axis: str
    x: Sequence[float]
    labels: Sequence[str]
    work: Mapping[str, Sequence[Work]]
    limits: Sequence[Limit] = ()
    facts: Sequence[dict[str, Any]] = ()
    notes: list[str] = field(default_factory=list)
    unit: str = ""


class Ground:
    """What the parts have in common: one estimator over the smallest objects, and its runners for others.

    models: up to four; the first of them is the one that is registered. Raises BackendUnavailable.
    """

    def __init__(
        self,
        backend: str,
        models: Sequence[ObjectModel],
        networks: LoadedNetworks,
        config: Config,
        device: torch.device,
        settings: ScalingSettings,
    ) -> None:
        self.backend, self.models, self.networks = backend, list(models), networks
        self.config, self.device, self.settings = config, device, settings
        self.row = EstimatorRow(backend, models, networks, config, device)
        self.row.warm_up(self.scene(self.models, settings.size).camera)

    def scene(self, models: Sequence[ObjectModel], size: tuple[int, int]) -> ExampleScene:
        return ExampleScene(models, size, self.device, self.settings.seed)

    def frames(self, models: Sequence[ObjectModel], size: tuple[int, int], count: int = FRAMES) -> list[ExampleFrame]:
        scene = self.scene(models, size)
        return [scene.frame(i) for i in range(count)]

    def another(self, models: Sequence[ObjectModel], networks: LoadedNetworks | None = None) -> EstimatorRow:
        """A row over the first one's runners, or over ``networks``, for which new ones are made."""
        runners = self.row.runners if networks is None else None
        return EstimatorRow(self.backend, models, networks or self.networks, self.config, self.device, runners=runners)

    def step(self, work: Callable[[], Any]) -> float:
        """Milliseconds from an idle device to an idle device."""
        return timed(work, self.device)[0]

    def warm_up(self, stage: str, work: Work) -> None:
        for i in range(WARM_UP[self.device.type][stage == "register"]):
            work(i)

    def track(self, row: EstimatorRow, frames: Sequence[ExampleFrame]) -> Work:
        """Upload, filter and one tracking step of all objects."""

        def work(i: int) -> Mapping[str, float]:
            shown = frames[i % len(frames)]
            return {"track": self.step(lambda: row.track(shown.frame, before(frames, i)))}

        return work

    def register(self, row: EstimatorRow, frames: Sequence[ExampleFrame], name: str) -> Work:
        """Upload, filter and the registration of one object."""

        def work(i: int) -> Mapping[str, float]:
            shown = frames[i % len(frames)]
            return {"register": self.step(lambda: row.register(shown.frame, name))}

        return work

    def memory_mb(self) -> float | None:
        """See ``memory_in_use``."""
        return memory_in_use(self.device)


Part = Callable[[Ground, ExitStack], Points]
"""Builds and warms up what a part measures; on the stack goes what has to be closed afterwards."""


def measure_scaling(
    ground: Ground,
    parts: Mapping[str, Part],
    begin: Begin = lambda part, samples: lambda: None,
    save: Callable[[dict[str, Any]], None] = lambda tree: None,
) -> dict[str, Any]:
    """Each part's points, sampled in turn, and how they grow: part -> axis, labels, series, facts, notes.

    save: gets what there is after each stage of a part, and when the user interrupts one. Raises UserError where the objects of
    the scene cannot be registered.
    """
    found: dict[str, Any] = {}
    for name in ground.settings.parts:
        with ExitStack() as stack:
            try:
                points = parts[name](ground, stack)
                for tree in _sampled(ground, points, begin, name):
                    found[name] = tree
                    save(found)
            except RegistrationError as error:
                raise UserError(f"{name}: {error}; take larger images, or objects that are larger in them") from error
        gc.collect()
    return found


def _sampled(ground: Ground, points: Points, begin: Begin, name: str) -> Iterator[dict[str, Any]]:
    """The part's tree after each stage, and once more when one is interrupted."""
    settings = ground.settings
    samples: dict[str, list[list[float]]] = {}

    def called(work: Work, at: int, i: int) -> float:
        measured = work(i)
        for series, ms in measured.items():
            samples.setdefault(series, [[] for _ in points.x])[at].append(ms)
        return sum(measured.values())

    counts = {stage: settings.registers if stage == "register" else settings.tracks for stage in points.work}
    done = begin(name, sum(len(points.work[stage]) * count for stage, count in counts.items()))
    for stage, work in points.work.items():
        calls = {str(at): partial(called, one, at) for at, one in enumerate(work)}
        try:
            interleave(calls, counts[stage], done)
        except KeyboardInterrupt:
            yield part_tree(points, samples)
            raise
        yield part_tree(points, samples)


def part_tree(points: Points, samples: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """For JSON. samples: series -> milliseconds of each x; those without any are left out of the series."""
    series = {}
    for name, values in samples.items():
        at = [i for i, v in enumerate(values) if v]
        stats = [Stats.of(list(values[i])) for i in at]
        x = [points.x[i] for i in at]
        series[name] = {
            "x": x,
            "labels": [points.labels[i] for i in at],
            "ms": [s.as_dict() for s in stats],
            **growth(x, [s.p50 for s in stats], points.limits).as_dict(),
        }
    limits = [limit.what for limit in points.limits if points.x and points.x[0] <= limit.above < points.x[-1]]
    return {
        "axis": points.axis,
        "unit": points.unit or points.axis,
        "x": list(points.x),
        "labels": list(points.labels),
        "series": series,
        "facts": list(points.facts),
        "limits": limits,
        "notes": list(points.notes),
    }


@contextmanager
def skipping(points: str, notes: list[str]) -> Iterator[None]:
    """What does not fit or run here leaves a note, and the others their place. points: what is tried."""
    try:
        yield
    except RegistrationError:
        raise
    except RuntimeError as error:  # CUDA's out of memory is one
        notes.append(f"{points} not measured: {one_line(error)}")
        logger.warning("%s", notes[-1])
