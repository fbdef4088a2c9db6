"""``train detector``: RF-DETR for the objects of an objects.yaml, on rendered scenes, or for a COCO data set.

Starts from the shipped weights unless told otherwise. The budget counts training alone; the state is saved every minute
and on Ctrl-C, and the same command goes on from it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ..config import ConfigError, DetectorConfig
from ..detect.checkpoint import load_file
from ..detect.rfdetr_detector import RfDetrDetector
from ..interrupts import Interruptible
from ..objects import ObjectSpec
from ..pose.mesh import ObjectModel
from ..process import prepare_process
from ..replay.result import write_json
from ..synth.objects import SynthObject
from ..synth.scene import SceneContent, SceneSampler
from .coco_files import CocoSplit, read_dataset
from .coco_source import CocoSource
from .detector_data import ScenePool, Source
from .detector_eval import Evaluation, evaluate, scenes
from .detector_report import plot_training, read_log, samples_picture
from .detector_trainer import Trainer, TrainSettings
from .progress import Every, TooFewSteps, TrainingProgress, check_budget

logger = logging.getLogger(__name__)

# Seeds from this one on are for measuring, never for training.
EVALUATION_SEED = 1_000_003
INTERIM_SCENES, INTERIM_POINTS = 32, 8
"""A measurement during training has so many held-out scenes, and there are so many of them."""
LOG_SECONDS = 5.0
ENOUGH_OUTLINES = 0.5
"""Masks are learned unasked where this share of the instances have an outline."""
WEIGHTS, STATE, LOG, METRICS = "detector.safetensors", "detector.train.pt", "detector.jsonl", "metrics.json"
INTERIM, CURVES, SAMPLES = "detector.interim.safetensors", "results.png", "samples.png"
OUTPUT_FILES = (WEIGHTS, STATE, LOG, METRICS, INTERIM, CURVES, SAMPLES)


def train(
    settings: TrainSettings,
    objects: Sequence[SynthObject | ObjectModel],
    console: Console | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """Train, or go on from ``out/detector.train.pt``.

    Writes detector.safetensors, metrics.json, results.png, samples.png and detector.jsonl into ``out``. labels: class
    name of each object, by default its name. Returns the metrics on scenes of a seed that training never saw; None when
    the training was interrupted before there was anything to measure. Raises TooFewSteps, DetectorError, DatasetError,
    and ConfigError for a state that is of another training.
    """
    run = _Run(settings, objects, console or Console(), labels)
    return run.finished() or run.run()


class _Run:
    """One call of ``train``."""

    def __init__(
        self,
        settings: TrainSettings,
        objects: Sequence[SynthObject | ObjectModel],
        console: Console,
        labels: Sequence[str] | None,
    ) -> None:
        self.begin = time.monotonic()
        self.objects, self.console = objects, console
        self.out = settings.out
        self.device = torch.device(settings.device)
        self.seed = settings.seed
        self.coco, self.held_out_images, split = None, None, None
        if settings.dataset is not None:
            split, self.held_out_images = read_dataset(settings.dataset)
            self.coco = CocoSource(split, self.device, settings.scene_size, settings.seed)
            labels = self.coco.names
        self.labels = [o.name for o in objects] if labels is None else list(labels)
        if shared := sorted({x for x in self.labels if self.labels.count(x) > 1}):
            raise ConfigError(
                f"label {', '.join(shared)} is used by several objects; a detector needs one label an object"
            )
        self.out.mkdir(parents=True, exist_ok=True)
        prepare_process(self.device, tf32=True)
        settings = replace(settings, masks=_masks(settings, split, self.held_out_images))
        self.trainer = Trainer(settings, self.labels)
        self.settings = self.trainer.settings
        self.budget = settings.minutes * 60
        self.state = self.out / STATE
        if self.state.is_file():
            self.trainer.load_state(self.state)
            logger.info(
                f"going on at step {self.trainer.step}, {self.trainer.spent / 60:.1f} of {settings.minutes:g} min"
            )
        else:
            logger.info(f"starting from {self.trainer.origin}")

    def finished(self) -> dict[str, Any] | None:
        """The metrics of a training that has spent its budget already, else None."""
        if self.trainer.spent < self.budget * 0.999 or not (self.out / METRICS).is_file():
            return None
        if not (self.out / WEIGHTS).is_file():
            self.trainer.export(self.out / WEIGHTS)
        logger.info(
            f"nothing left to do: {self.out / WEIGHTS} has had its {self.settings.minutes:g} min ({self.trainer.step} "
            "steps); raise --minutes to train on, or choose another --out to start anew"
        )
        content: dict[str, Any] = json.loads((self.out / METRICS).read_text())
        return content

    def run(self) -> dict[str, Any] | None:
        """The phases of the training, under one bar."""
        settings, left = self.settings, max(self.budget - self.trainer.spent, 0.0)
        cuda = self.device.type == "cuda"
        first = min(settings.pool, max(settings.batch * 4, 64))
        expected = {
            "prepare": 20.0,
            "render": first / (400.0 if cuda else 8.0),
            "train": min(left * (1 + settings.render_share), settings.stop_after * 60),
            "evaluate": settings.evaluation_scenes * 1.5 / (20.0 if cuda else 3.0),
        }
        with TrainingProgress(expected, self.console) as bar, Interruptible() as stop:
            self.bar, self.stop = bar, stop
            pool, held_out = self._prepare(first)
            if not stop.requested:
                self._train(pool, held_out)
            return self._conclude()

    def _prepare(self, first: int) -> tuple[ScenePool, list[Any]]:
        # A later call sees new scenes.
        source: Source = self.coco or self._sampler(
            self.settings.scene_size, self.seed * 1000 + self.trainer.step, self.settings.crossed
        )
        pool = ScenePool(source, self.settings.pool, seed=self.seed + self.trainer.step)
        pool.fill(1)  # the first one compiles kernels
        self.bar.begin("render")
        started = time.monotonic()
        while pool.rendered < first and not self.stop.requested:
            pool.fill(min(64 if self.device.type == "cuda" else 8, first - pool.rendered))
            _wait(self.device)
            rate = pool.rendered / max(time.monotonic() - started, 1e-9)
            self.bar.update(pool.rendered / first, f"{rate:.0f} scenes/s")
        if self.settings.compile and not self.stop.requested:
            self.trainer.compile(self.trainer.draw(pool))
        held_out = (
            []
            if self.stop.requested
            else list(self._held_out(0.0, min(INTERIM_SCENES, self.settings.evaluation_scenes)))
        )
        return pool, held_out

    def _train(self, pool: ScenePool, held_out: list[Any]) -> None:
        trainer, settings, budget = self.trainer, self.settings, self.budget
        self.bar.begin("train")
        save, speak = Every(), Every(LOG_SECONDS)
        running = _Running(settings.batch)
        rendering = training = 0.0
        entered, done_before = trainer.step, trainer.spent
        points = [budget * (i + 1) / INTERIM_POINTS for i in range(INTERIM_POINTS - 1)]
        points = [p for p in points if p > trainer.spent]
        with (self.out / LOG).open("a") as log:
            while trainer.spent < budget and not self.stop.requested:
                if time.monotonic() - self.begin > settings.stop_after * 60:
                    break
                if trainer.step % 8 == 0 and rendering < settings.render_share * training:
                    rendering += _fill(pool, 64 if self.device.type == "cuda" else 8, self.device)
                started = time.monotonic()
                running.add(trainer.train_step(trainer.draw(pool), trainer.rate(trainer.spent / budget)))
                if trainer.step % 8 == 0 or trainer.step - entered < 4:
                    _wait(self.device)
                took = time.monotonic() - started
                # The first step compiles kernels and chooses convolutions: it is no measure, and no training time.
                if trainer.step - entered > 1:
                    training += took
                trainer.spent = done_before + training
                if trainer.step - entered == 3:
                    self._check(training / 2)
                share = (trainer.spent - done_before) / max(budget - done_before, 1e-9)
                if speak.due():
                    self._log(log, running, pool)
                self.bar.update(share, f"step {trainer.step}" + running.text)
                if save.due():
                    self.trainer.save_state(self.state)
                if points and trainer.spent >= points[0]:
                    points.pop(0)
                    self._interim(log, held_out)
            self._log(log, running, pool)

    def _check(self, step_seconds: float) -> None:
        settings = self.settings
        left = min(self.budget - self.trainer.spent, settings.stop_after * 60 - (time.monotonic() - self.begin))
        advice = f"raise --minutes (now {settings.minutes:g})"
        if settings.batch > 8:
            advice += f", or lower --batch (now {settings.batch})"
        if settings.stop_after * 60 < self.budget:
            advice += f", or raise --stop-after (now {settings.stop_after:g})"
        if not self.stop.requested:
            check_budget(self.trainer.step, left, step_seconds, settings.least_steps, advice)

    def _log(self, log: Any, running: _Running, pool: ScenePool) -> None:
        if not running.count:
            return
        line = running.means() | {
            "step": self.trainer.step,
            "minutes": self.trainer.spent / 60,
            "rate": self.trainer.rate(self.trainer.spent / self.budget),
            "scenes": pool.rendered,
        }
        log.write(json.dumps(line) + "\n")
        log.flush()

    def _interim(self, log: Any, held_out: list[Any]) -> None:
        """A measurement on the way, for the curves; its time is not the training's."""
        part = self.out / INTERIM
        self.trainer.export(part)
        try:
            found = evaluate(self._detector(part), held_out).metrics
        finally:
            part.unlink()
        log.write(json.dumps({"interim": found, "step": self.trainer.step, "minutes": self.trainer.spent / 60}) + "\n")
        log.flush()
        logger.info(
            f"{self.trainer.spent / 60:.1f} min, step {self.trainer.step}: recall {found['recall']:.2f}, precision "
            f"{found['precision']:.2f}, mAP50 {found.get('map_50', 0.0):.2f}"
            + (f", mask IoU {found['mask_iou_p50']:.2f}" if "mask_iou_p50" in found else "")
        )
        plot_training(self.out / CURVES, read_log(self.out / LOG))

    def _conclude(self) -> dict[str, Any] | None:
        trainer, out = self.trainer, self.out
        if trainer.step:
            trainer.save_state(self.state)
        if trainer.step < self.settings.least_steps:
            if self.stop.requested:
                logger.info(f"interrupted at step {trainer.step}: no weights yet; the same command goes on from there")
                return None
            raise TooFewSteps(
                f"only {trainer.step} training steps were done, at least {self.settings.least_steps} are needed for weights "
                "worth having; the same command goes on from there"
            )
        trainer.export(out / WEIGHTS)
        if self.stop.requested:
            logger.info(
                f"interrupted after {trainer.spent / 60:.1f} of {self.settings.minutes:g} min: {out / WEIGHTS} is as good "
                "as it got, not measured; the same command goes on"
            )
            plot_training(out / CURVES, read_log(out / LOG))
            return None
        self.bar.begin("evaluate")
        metrics = self._measure(out / WEIGHTS)
        with (out / LOG).open("a") as log:
            line = {"evaluation": metrics, "step": trainer.step, "minutes": trainer.spent / 60}
            log.write(json.dumps(line) + "\n")
        write_json(out / METRICS, metrics)
        plot_training(out / CURVES, read_log(out / LOG))
        return metrics

    def _measure(self, path: Path) -> dict[str, Any]:
        """Metrics on held-out images of VGA size, through the detector as it is used.

        They are scenes of a seed that training never saw, with the same of half as many scenes that all have a bar
        across an object as "crossed_...", or the valid split of the data set.
        """
        count, detector = self.settings.evaluation_scenes, self._detector(path)
        total = count if self.coco is not None else count + max(count // 2, 1)
        plain = evaluate(
            detector,
            self._held_out(0.0, count),
            pictures=9,
            advance=lambda done: self.bar.update(done / total, "held-out scenes"),
        )
        samples_picture(self.out / SAMPLES, plain.pictures)
        metrics = _named(plain, self.labels)
        if self.coco is None:
            cut = evaluate(
                detector,
                self._held_out(1.0, total - count),
                advance=lambda done: self.bar.update((count + done) / total, "with a bar across an object"),
            )
            metrics |= {f"crossed_{key}": value for key, value in cut.metrics.items()}
        return {
            **metrics,
            "weights": WEIGHTS,
            "classes": self.labels,
            "steps": self.trainer.step,
            "batch": self.settings.batch,
            "minutes": self.trainer.spent / 60,
            "device": str(self.device),
            "start": self.settings.start,
            "masks": self.settings.masks,
        }

    def _detector(self, path: Path) -> RfDetrDetector:
        names = [f"class_{i}" for i in range(len(self.labels))]  # labels may be no object names
        specs = [ObjectSpec(name, Path(name), label=label) for name, label in zip(names, self.labels, strict=True)]
        config = DetectorConfig(backend="half" if self.device.type == "cuda" else "eager")
        return RfDetrDetector(load_file(path, self.settings.variant, self.device), specs, config, self.device)

    def _held_out(self, crossed: float, count: int) -> Any:
        names = [f"class_{i}" for i in range(len(self.labels))]
        if self.held_out_images is None:
            return scenes(self._sampler((480, 640), EVALUATION_SEED, crossed), count, names)
        held_out = CocoSource(self.held_out_images, self.device, (480, 640), EVALUATION_SEED)
        return scenes(held_out, min(count, len(held_out)), names)

    def _sampler(self, size: tuple[int, int], seed: int, crossed: float) -> SceneSampler:
        content = SceneContent(self.settings.distractors, self.settings.surfaces, crossed=crossed)
        return SceneSampler(self.objects, self.device, size, seed, content)


def _masks(settings: TrainSettings, learned: CocoSplit | None, held_out: CocoSplit | None) -> str:
    """Which of "yes", "no" and "only" a training is. learned, held_out: of a data set. Says what becomes of instances without an
    outline. Raises ConfigError where there are no others."""
    asked, data = settings.masks, settings.dataset
    if learned is None or held_out is None:
        return "yes" if asked == "auto" else asked
    outlined, count = learned.outlines
    share = outlined / max(count, 1)
    chosen = ("yes" if share >= ENOUGH_OUTLINES else "no") if asked == "auto" else asked
    if chosen != "no" and not outlined:
        raise ConfigError(
            f"--masks {chosen}: {data} has boxes, no outlines; annotate polygons or masks, or use --masks no"
        )
    if asked == "auto" or (chosen != "no" and outlined < count):
        what = {
            "yes": "masks are learned beside boxes",
            "no": "boxes are learned, no masks",
            "only": "their masks are learned",
        }
        rest = {"yes": " teach their boxes alone", "only": " teach nothing"}.get(chosen, "") if outlined < count else ""
        others = f"; the {count - outlined} others{rest}" if rest else ""
        logger.info(f"{data}: {share:.0%} of the instances have an outline: {what[chosen]} (--masks){others}")
    if chosen != "no" and not held_out.outlines[0]:
        logger.warning(
            f"{held_out.file}: none of its instances has an outline: the masks that are learned are not measured"
        )
    return chosen


def _named(found: Evaluation, labels: Sequence[str]) -> dict[str, Any]:
    """by_class under the users' labels."""
    return {**found.metrics, "by_class": dict(zip(labels, found.by_class.values(), strict=True))}


class _Running:
    """Means of device scalars, read back only when asked for. text: the last ones, for the bar."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._sums: dict[str, Tensor] = {}
        self.count, self._since = 0, time.monotonic()
        self.text = ""

    def add(self, values: dict[str, Tensor]) -> None:
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, torch.zeros_like(value)) + value
        self.count += 1

    def means(self) -> dict[str, float]:
        """Means since the last call, with images per second."""
        line = {k: float(v) / self.count for k, v in self._sums.items()}
        line["images_per_s"] = self._batch * self.count / max(time.monotonic() - self._since, 1e-9)
        self._sums, self.count, self._since = {}, 0, time.monotonic()
        masks = f" masks {line['mask_ce'] + line['mask_dice']:.2f}" if "mask_ce" in line else ""
        box = line["l1"] + line["giou"]
        self.text = f", class {line['class']:.2f} box {box:.2f}{masks}, {line['images_per_s']:.0f} images/s"
        return line


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fill(pool: ScenePool, count: int, device: torch.device) -> float:
    """Put new scenes into the pool; returns the seconds it took."""
    _wait(device)
    begin = time.monotonic()
    pool.fill(count)
    _wait(device)
    return time.monotonic() - begin
