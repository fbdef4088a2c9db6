"""Schedules of registration held against each other: the same masks of the same generated frames, each by every one."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from ..accel.graph import totals
from ..config import Config, ConfigError, schedule_counts
from ..device import resolve_device
from ..pose.build import build_estimator
from ..pose.hypotheses import hypothesis_rotations
from ..pose.pruning import asks_for_first_pass
from ..replay.judge import MIN_VISIBILITY
from ..replay.metrics import ADDS_THRESHOLD, ObjectGeometry, PoseError, percentiles
from ..synth.batch_frames import host_frames, instance_pixels
from ..synth.crowded import CrowdedSampler, crowded_object
from ..synth.objects import SynthObject, random_object
from ..synth.scene import SceneBatch, SceneSampler
from ..synth.specs import specs_or_random
from ..train.train_pose import EVALUATION_SEED
from ..types import Frame
from .attempts import MIN_MASK, Attempt, Evaluator, detector_like_mask

logger = logging.getLogger(__name__)

CHUNK = 8
"""This many scenes are rendered together."""
KINDS = ("table", "crowded")
DRIFT_ITERATIONS = 5
DRIFT_MM, DRIFT_DEG = 2.0, 2.0
_FRUITLESS = 50
"""After this many batches in a row without a usable instance the settings, not luck, are to blame."""


@dataclass(frozen=True)
class CompareSettings:
    """schedules: values of pose.register_schedule; the first is the one that the others are held against. objects: how
    many random ones the scenes are made of, unless ``objects_file`` names an objects.yaml. size: (height, width). kind: "table",
    things that stand about on a table, or "crowded", things that touch (``synth.crowded``)."""

    schedules: tuple[str, ...]
    scenes: int = 500
    objects: int = 48
    size: tuple[int, int] = (480, 640)
    seed: int = 0
    objects_file: Path | None = None
    kind: str = "table"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind={self.kind!r} must be {' or '.join(KINDS)}")
        if not self.schedules or len(set(self.schedules)) != len(self.schedules):
            raise ConfigError(f"schedules {' '.join(self.schedules)!r}: at least one, and none twice")
        for schedule in self.schedules:
            schedule_counts(schedule)

    @property
    def object_seeds(self) -> range:
        """Seeds that no training draws objects from, nor chooses its weights by."""
        first = EVALUATION_SEED * 1_000_000 + 1_000 * (self.seed + 1)
        return range(first, first + self.objects)

    @property
    def maker(self) -> Callable[[np.random.Generator], SynthObject]:
        """What draws an object of a seed."""
        return crowded_object if self.kind == "crowded" else random_object


@dataclass(frozen=True)
class Case:
    """One instance to register. mask: (H, W) bool, as wrong as a detector's. T_cam_obj: (4, 4) float64, the truth."""

    frame: Frame
    object: str
    mask: NDArray[np.bool_]
    T_cam_obj: NDArray[np.float64]


def cases(sampler: SceneSampler, count: int, seed: int) -> Iterator[Case]:
    """``count`` scenes with one random instance each that is visible by 0.3 or more; scenes without one are passed over.

    Raises ConfigError when scene after scene has none.
    """
    rng = np.random.default_rng(seed)
    made = fruitless = 0
    while made < count:
        batch = sampler.sample(CHUNK)
        found = False
        for case in _of_batch(batch, made, rng):
            found = True
            if made < count:
                made += 1
                yield case
        fruitless = 0 if found else fruitless + 1
        if fruitless >= _FRUITLESS:
            height, width = sampler.size
            raise ConfigError(
                f"{fruitless * CHUNK} scenes of {width}x{height} in a row show no object by {MIN_MASK} pixels or more; "
                "ask for larger images"
            )


def _of_batch(batch: SceneBatch, stamp: int, rng: np.random.Generator) -> Iterator[Case]:
    instance, label, visibility = (t.cpu().numpy() for t in (batch.instance, batch.label, batch.visibility))
    pixels = instance_pixels(batch)
    for i, frame in enumerate(host_frames(batch, stamp)):
        wanted = np.flatnonzero((label[i] >= 0) & (visibility[i] >= MIN_VISIBILITY) & (pixels[i] >= MIN_MASK))
        if not len(wanted):
            continue
        m = int(rng.choice(wanted))
        mask = detector_like_mask(instance[i] == m, rng)
        yield Case(frame, batch.names[label[i, m]], mask, batch.T_cam_obj[i, m])


def compare_schedules(
    config: Config,
    settings: CompareSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Register one instance of every scene by each schedule and report as :func:`report` does, with the attempts.

    Every frame is prepared once. ``progress`` gets scenes done and their number. stop: asked after each scene. Raises
    CheckpointError and ConfigError.
    """
    if settings.objects_file:
        logger.info("loading the objects of %s", settings.objects_file)
    else:
        logger.info("generating %d objects", settings.objects)
    with specs_or_random(settings.objects_file, settings.object_seeds, settings.maker) as specs:
        # One that needs a first pass, if any does, so that the estimator has a refiner for it.
        device = resolve_device(config.device)
        needing = [s for s in settings.schedules if asks_for_first_pass(s, device)]
        pose = dataclasses.replace(config.pose, register_schedule=[*needing, *settings.schedules][0])
        estimator = build_estimator(dataclasses.replace(config, pose=pose), specs)
    items = dict(zip((s.name for s in specs), estimator.objects, strict=True))
    geometries = {s.name: ObjectGeometry.from_model(items[s.name], s) for s in specs}
    hypotheses = {name: len(hypothesis_rotations(item.symmetries)) for name, item in items.items()}
    programs = len(settings.schedules) * len(set(hypotheses.values()))
    estimator.kept_programs = max(estimator.kept_programs, programs)  # none is captured twice, least of all when timed
    evaluator = Evaluator(estimator, geometries, estimator.device)
    make_sampler = CrowdedSampler if settings.kind == "crowded" else SceneSampler
    sampler = make_sampler(estimator.objects, estimator.device, settings.size, settings.seed)
    # Drift is measured iteration by iteration.
    estimator.apply(dataclasses.replace(estimator.config, track_iterations=1))

    def switch(schedule: str) -> None:
        estimator.apply(dataclasses.replace(estimator.config, register_schedule=schedule))

    attempts: dict[str, list[Attempt]] = {s: [] for s in settings.schedules}
    drifted: list[PoseError] = []
    captures = totals().captures
    for index, case in enumerate(cases(sampler, settings.scenes, settings.seed)):
        if index == 0:
            logger.info("warming up")
            switch(settings.schedules[0])
            evaluator.prepare(case.frame)
            for schedule in settings.schedules[1:]:
                switch(schedule)
                estimator.warm_up(case.frame.camera)
            captures = totals().captures
        frame = evaluator.prepare(case.frame)
        # Each schedule goes first as often as the others: what comes first finds the caches cold.
        shift = index % len(settings.schedules)
        for schedule in (*settings.schedules[shift:], *settings.schedules[:shift]):
            switch(schedule)
            attempts[schedule].append(
                evaluator.register(frame, case.mask, case.T_cam_obj, object=case.object, scene=str(index), index=index)
            )
        drifted.append(evaluator.drift(frame, case.object, case.T_cam_obj, DRIFT_ITERATIONS))
        progress(index + 1, settings.scenes)
        if stop():
            break
    diameters = {name: g.diameter for name, g in geometries.items()}
    timed = {name for name, count in hypotheses.items() if count == max(hypotheses.values())}
    return {
        "device": torch.cuda.get_device_name(estimator.device) if estimator.device.type == "cuda" else "cpu",
        "weights": estimator.weights,
        "pose_backend": estimator.backend,
        "degraded": estimator.degraded,
        "kind": settings.kind,
        "objects": len(specs),
        "size": list(settings.size),
        "seed": settings.seed,
        "hypotheses_timed": max(hypotheses.values()),
        "captures_while_measuring": totals().captures - captures,
        **report(attempts, diameters, timed),
        "drift": drift_figures(drifted),
        "attempts": attempts,
    }


def report(
    attempts: Mapping[str, Sequence[Attempt]], diameters: Mapping[str, float], timed: set[str]
) -> dict[str, Any]:
    """Figures of each schedule, and the differences of all to the first one.

    attempts: schedule -> one attempt a scene, the same scenes in the same order. diameters: of the objects, m. timed:
    objects whose registrations count for the milliseconds; those with symmetries have fewer hypotheses. ADD is taken up
    to the declared symmetries; a refused attempt is wrong, and is left out of the errors' means.
    Raises ValueError for attempts that are not of the same scenes.
    """
    first, *others = attempts
    scenes = [(a.scene, a.object) for a in attempts[first]]
    for name in others:
        if [(a.scene, a.object) for a in attempts[name]] != scenes:
            raise ValueError(f"schedules {first} and {name} were not run on the same scenes")
    right = {
        name: {"adds": _right(of, diameters, "adds_mm"), "add": _right(of, diameters, "add_mm")}
        for name, of in attempts.items()
    }
    return {
        "scenes": len(scenes),
        "schedules": {name: _figures(of, right[name], timed) for name, of in attempts.items()},
        "against": first,
        "differences": {
            name: {key: difference(right[first][key], right[name][key]) for key in ("adds", "add")} for name in others
        },
    }


def difference(first: NDArray[np.bool_], other: NDArray[np.bool_]) -> dict[str, float]:
    """How ``other`` (N,) does against ``first`` (N,) on the same scenes.

    points: recall of ``other`` less that of ``first``, per cent of the scenes. only_first, only_other: scenes that one
    alone got right. p: chance of so uneven a split or a worse one if both were equally good (exact McNemar test).
    """
    only_first, only_other = int((first & ~other).sum()), int((other & ~first).sum())
    disagreeing = only_first + only_other
    return {
        "points": 100.0 * (only_other - only_first) / max(len(first), 1),
        "only_first": only_first,
        "only_other": only_other,
        "p": float(binomtest(only_first, disagreeing).pvalue) if disagreeing else 1.0,
    }


def drift_figures(errors: Sequence[PoseError]) -> dict[str, Any]:
    """How far ``DRIFT_ITERATIONS`` iterations of the refiner lead away from the true pose. within: share that stays within
    ``DRIFT_MM`` and ``DRIFT_DEG``."""
    within = [e.translation_mm <= DRIFT_MM and e.rotation_deg <= DRIFT_DEG for e in errors]
    return {
        "iterations": DRIFT_ITERATIONS,
        "translation_error_mm": percentiles((e.translation_mm for e in errors), ("p50", "p90", "max")),
        "rotation_error_deg": percentiles((e.rotation_deg for e in errors), ("p50", "p90", "max")),
        "within": float(np.mean(within)) if within else None,
    }


def too_lossy(result: Mapping[str, Any], max_loss: float) -> list[str]:
    """Schedules whose ADD-S recall is more than ``max_loss`` points below that of the first."""
    return [name for name, d in result["differences"].items() if -d["adds"]["points"] > max_loss + 1e-9]


def _right(attempts: Sequence[Attempt], diameters: Mapping[str, float], error: str) -> NDArray[np.bool_]:
    return np.array(
        [
            a.error is not None and getattr(a.error, error) < ADDS_THRESHOLD * 1e3 * diameters[a.object]
            for a in attempts
        ],
        dtype=bool,
    )


def _figures(attempts: Sequence[Attempt], right: Mapping[str, NDArray[np.bool_]], timed: set[str]) -> dict[str, Any]:
    errors = [a.error for a in attempts if a.error is not None]

    def middle(values: list[float]) -> dict[str, float | None]:
        mean = float(np.mean(values)) if values else None
        return {"mean": mean, **percentiles(values)}

    return {
        "refused": len(attempts) - len(errors),
        "adds_recall_0.1d": float(right["adds"].mean()) if attempts else None,
        "add_recall_0.1d": float(right["add"].mean()) if attempts else None,
        "adds_mm": middle([e.adds_mm for e in errors]),
        "add_mm": middle([e.add_mm for e in errors]),
        "translation_error_mm": middle([e.translation_mm for e in errors]),
        "rotation_error_deg": middle([e.rotation_deg for e in errors]),
        "timed": sum(a.object in timed for a in attempts),
        "milliseconds": percentiles((a.milliseconds for a in attempts if a.object in timed), ("p50", "p95", "max")),
    }
