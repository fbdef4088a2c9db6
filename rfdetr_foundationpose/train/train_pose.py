"""Training of refiner and scorer on generated pairs, on one device or, under torchrun, on as many as the machine has.

A training resumes from the weights it writes: the optimizer's moments are rebuilt while the rate warms up.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..accel.base import RunnerContext
from ..accel.runner import make_runner
from ..interrupts import Interruptible
from ..pose import checkpoints
from ..pose.networks import RefineNet, ScoreNet
from ..process import prepare_process
from .clocks import StepWatch, at_most
from .object_stream import ObjectStream
from .pair_scenes import TIDY, SceneEffects
from .pair_sensors import STEADY, SensorEffects
from .pairs import ALL_STARTS, FIRST_STARTS, PairSampler, Refine, RefinerBatch, ScorerBatch, Starts
from .parallel import FlatGradients, Ranks
from .pose_losses import evaluate, pair_loss
from .widen import widened

logger = logging.getLogger(__name__)

EVALUATION_SEED = 1_000_003
LEARNING_RATE = {"refiner": 6e-4, "first_pass": 6e-4, "scorer": 2e-4}
"""The scorer's attention has no normalization of its own: at 6e-4 it diverged within 500 steps."""
WARM_UP = 300
AVERAGE_DECAY = 0.998
EVALUATE_EVERY, AGREE_EVERY, SAVE_SECONDS = 250, 5, 60.0
OBJECTS_A_RANK = 20_000
BANKS = 8
"""Batches are drawn from so many chunks of objects; a new one replaces the oldest."""


@dataclass(frozen=True)
class TrainSettings:
    """role: "refiner", "scorer" or "first_pass", a refiner of small crops that moves all hypotheses of a registration once.
    minutes: budget of the whole schedule; stop_after: minutes of this call, from its start. batch: pairs a step of each device.
    learning_rate: 0 takes the role's own. compile: seconds that compiling may take, 0 for none.

    start: weights to begin from where ``out`` has none; of half the width they are widened. refiner: weights by which the
    scorer's hypotheses are refined before they are ranked; None ranks them as drawn. objects: random objects that are held at
    a time, on each device; new ones replace them every ``refresh`` seconds.
    """

    role: str
    out: Path
    minutes: float = 10.0
    stop_after: float = 10.0
    width: float = 0.5
    batch: int = 512
    hypotheses: int = 32
    objects: int = 2048
    refresh: float = 20.0
    workers: int = 4
    learning_rate: float = 0.0
    device: str = "cuda"
    seed: int = 0
    compile: float = 0.0
    start: Path | None = None
    refiner: Path | None = None
    scene: SceneEffects = field(default_factory=SceneEffects)
    sensor: SensorEffects = field(default_factory=SensorEffects)

    @property
    def starts(self) -> Starts:
        """What a refiner of this role is shown; a scorer has its crops' size."""
        return FIRST_STARTS if self.role == "first_pass" else ALL_STARTS

    def network(self) -> RefineNet | ScoreNet:
        """A network of the role, width and crop size, with random weights."""
        kind = ScoreNet if self.role == "scorer" else RefineNet
        return kind(self.width, self.starts.crop_size)


def train(settings: TrainSettings, stop: Interruptible | None = None) -> dict[str, float]:
    """Train or resume ``out/<role>.safetensors`` (an average of the weights, written every minute) and ``out/<role>.jsonl``.

    stop: open during the steps; on Ctrl-C the weights so far are measured and saved.

    Returns the last metrics, in the first process, which alone logs how it gets on. Raises ValueError for weights of another width, RuntimeError where the
    training diverges.
    """
    ranks = Ranks(settings.device)
    try:
        return _Training(settings, ranks, stop or Interruptible()).run()
    finally:
        ranks.close()


class _Training:
    def __init__(self, settings: TrainSettings, ranks: Ranks, stop: Interruptible) -> None:
        self.begin = time.monotonic()
        self.settings, self.ranks, self.stop = settings, ranks, stop
        self.device = device = ranks.device
        settings.out.mkdir(parents=True, exist_ok=True)
        self.weights = settings.out / f"{settings.role}.safetensors"
        torch.manual_seed(settings.seed + 1000 * ranks.rank)
        prepare_process(device, tf32=True)
        network, self.pairs, self.spent = self._start()
        # Another seed for every piece of a training: the same pairs again would teach less.
        self.seed = settings.seed + self.pairs // 100_000 * 17
        first = self.seed * 1_000_000 + ranks.rank * OBJECTS_A_RANK
        self.stream = ObjectStream(first, max(settings.objects // BANKS, 1), settings.workers)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        ranks.same_start(self.network)
        self.average = settings.network().to(device).to(memory_format=torch.channels_last)
        self.average.load_state_dict(self.network.state_dict())
        self.average.eval()
        floating = [
            (a, b)
            for a, b in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
            if a.is_floating_point()
        ]
        self.averaged, self.averaged_from = [a for a, _ in floating], [b for _, b in floating]
        self.gradients = FlatGradients(self.network.parameters())
        self.peak_rate = settings.learning_rate or LEARNING_RATE[settings.role]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.peak_rate, weight_decay=0.01, fused=device.type == "cuda"
        )
        self.banks: deque[PairSampler] = deque(maxlen=BANKS)
        self.next_bank = self.turn = 0
        self.laps: dict[str, float] = {}
        self.refine: Refine | None = None

    def run(self) -> dict[str, float]:
        # An encoder layer's fast path of inference knows no autocast.
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return self._run()
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            self.stream.close()

    def _run(self) -> dict[str, float]:
        s, device = self.settings, self.device
        self._fill()
        self._tell(f"first objects after {time.monotonic() - self.begin:.0f} s")
        if s.role == "scorer" and s.refiner is not None:
            self.refine = _refine(s.refiner, device)
        held_out = self._held_out() if self.ranks.first else {}
        encode: Callable[..., Tensor] = self.network if isinstance(self.network, RefineNet) else self.network.encode
        moving: Callable[..., tuple[Tensor, Tensor]] | None = None
        if isinstance(self.average, RefineNet):
            moving = self.average
            self.refine = self._moving_on(moving)
        if s.compile > 0:
            encode, moving = self._compiled(encode, moving)
            if moving is not None:
                self.refine = self._moving_on(moving)
        self.gradients.zero()
        self.average.load_state_dict(self.network.state_dict())
        metrics = self._measure(held_out, 0, 0.0, 0.0)
        self._tell(f"ready after {time.monotonic() - self.begin:.0f} s")

        started = saved = refreshed = time.monotonic()
        running = torch.zeros((), device=device)
        step = reported = 0
        done = self.spent / (s.minutes * 60)
        with self.stop:
            while True:
                now = time.monotonic()
                if step % AGREE_EVERY == 0:
                    over = self.stop.requested or now - self.begin > s.stop_after * 60
                    done = self.ranks.agree(1.0 if over else (self.spent + now - started) / (s.minutes * 60))
                if done >= 1.0:
                    break
                if self.ranks.first and step and step % EVALUATE_EVERY == 0:
                    metrics = self._measure(held_out, step, now - started, float(running) / (step - reported))
                    running.zero_()
                    reported = step
                    if not math.isfinite(metrics["loss"]) or metrics["skipped"] > 20 + step // 20:
                        raise RuntimeError(f"the training diverged at step {step}: {metrics}; lower --learning-rate")
                if self.ranks.first and now - saved > SAVE_SECONDS:
                    self._save(step, now - started)
                    saved = now
                pause = s.refresh if len(self.banks) == BANKS else s.refresh / 8
                if now - refreshed > pause and self.stream.ready():
                    self._fill()
                    refreshed = now
                rate = self.peak_rate * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))
                for group in self.optimizer.param_groups:
                    group["lr"] = max(rate, 1e-6)
                running += self._step(encode, step)
                step += 1
        if self.ranks.first and (step or not self.stop.requested):
            elapsed = time.monotonic() - started
            metrics = self._measure(held_out, step, elapsed, float(running) / max(step - reported, 1))
            self._save(step, elapsed)
        return metrics

    def _tell(self, sentence: str) -> None:
        if self.ranks.first:
            logger.info(sentence)

    def _step(self, encode: Callable[..., Tensor], step: int) -> Tensor:
        """The loss of one step. The step before an evaluation is timed, by waiting for the device in between."""
        watch = StepWatch(self.device, (step + 1) % EVALUATE_EVERY == 0)
        batch = self._draw(self._next_sampler())
        watch.lap("draw_ms")
        self.network.train()
        self.gradients.zero()
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = pair_loss(encode, batch, self.network)
        loss.backward()
        watch.lap("network_ms")
        self.ranks.mean(self.gradients.flat)
        watch.lap("reduce_ms")
        self.gradients.clip(1.0)
        self.optimizer.step()
        decay = min(AVERAGE_DECAY, step / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged, self.averaged_from, 1 - decay)
        watch.lap("update_ms")
        self.laps = watch.laps or self.laps
        return loss.detach()

    def _start(self) -> tuple[RefineNet | ScoreNet, int, float]:
        """Network, pairs trained on before, and seconds of the schedule that are spent."""
        s = self.settings
        load = checkpoints.load_scorer if s.role == "scorer" else checkpoints.load_refiner
        path = self.weights if self.weights.is_file() else s.start
        if path is None:
            return s.network(), 0, 0.0
        loaded, weights = load(path)
        network: RefineNet | ScoreNet = loaded
        resumed = path == self.weights
        pairs = int(weights.metadata.get("pairs", "0")) if resumed else 0
        spent = float(weights.metadata.get("seconds", "0")) if resumed else 0.0
        if network.width * 2 == s.width and not resumed:
            network = widened(network)
        if network.width != s.width:
            raise ValueError(
                f"{path} has width {network.width:g}, the training {s.width:g}: only a doubling is possible"
            )
        if network.crop_size != s.starts.crop_size:
            network = _resized(network, s.network())
        word = f"resumed {path.name} after {pairs:,} pairs" if resumed else f"started from {path.name}"
        self._tell(f"{word}, {spent / 60:.1f} of {s.minutes:g} min")
        return network, pairs, spent

    def _fill(self) -> None:
        objects = self.stream.take()
        if len(self.banks) == BANKS and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the oldest bank's meshes are freed: nothing may read them any more
        s, seed = self.settings, self.seed + 7919 * (self.ranks.rank + 64 * self.next_bank)
        self.banks.append(PairSampler(objects, self.device, seed, s.scene, s.sensor, s.starts))
        self.next_bank += 1

    def _next_sampler(self) -> PairSampler:
        self.turn = (self.turn + 1) % len(self.banks)
        return self.banks[self.turn]

    def _held_out(self) -> dict[str, list[RefinerBatch | ScorerBatch]]:
        """Batches of objects that no training uses, in scenes with little around them and in crowds."""
        objects = ObjectStream(EVALUATION_SEED * 1_000_000, min(64, self.settings.objects), 0).take()
        kinds = {"tidy": (TIDY, STEADY), "crowd": (SceneEffects(crowd=1.0), SensorEffects())}
        drawn = {}
        for name, (scene, sensor) in kinds.items():
            sampler = PairSampler(objects, self.device, EVALUATION_SEED, scene, sensor, self.settings.starts)
            drawn[name] = [self._draw(sampler, moving=False) for _ in range(3)]
        return drawn

    def _draw(self, sampler: PairSampler, moving: bool = True) -> RefinerBatch | ScorerBatch:
        s = self.settings
        if s.role == "scorer":
            return sampler.scorer_batch(s.batch // s.hypotheses, s.hypotheses, self.refine)
        return sampler.refiner_batch(s.batch, self.refine if moving else None)

    def _measure(
        self, held_out: dict[str, list[RefinerBatch | ScorerBatch]], step: int, seconds: float, loss: float
    ) -> dict[str, float]:
        pairs = step * self.settings.batch * self.ranks.world
        metrics = {
            f"{kind}_{name}": value
            for kind, batches in held_out.items()
            for name, value in evaluate(self.average, batches, self.settings.role).items()
        }
        metrics |= {
            "step": step,
            "minutes": (self.spent + seconds) / 60,
            "pairs": self.pairs + pairs,
            "loss": loss,
            "skipped": float(self.gradients.skipped),
            "pairs_per_s": pairs / max(seconds, 1),
            "objects": self.next_bank * max(self.settings.objects // BANKS, 1) * self.ranks.world,
            **self.laps,
        }
        if self.ranks.first:
            with (self.settings.out / f"{self.settings.role}.jsonl").open("a") as log:
                log.write(json.dumps(metrics) + "\n")
            self._tell(self.settings.role + " " + " ".join(f"{k}={v:.4g}" for k, v in metrics.items()))
        return metrics

    def _save(self, step: int, seconds: float) -> None:
        pairs = self.pairs + step * self.settings.batch * self.ranks.world
        unfinished = self.weights.with_suffix(".part")
        checkpoints.write(
            unfinished,
            self.average,
            f"width {self.settings.width:g}, trained on {pairs:,} generated pairs",
            pairs=str(pairs),
            seconds=f"{self.spent + seconds:.1f}",
        )
        unfinished.replace(self.weights)

    def _moving_on(self, network: Callable[..., tuple[Tensor, Tensor]]) -> Refine:
        """The refiner in training, as it is then."""

        @torch.no_grad()
        def run(rendered: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
            with torch.autocast(self.device.type, torch.bfloat16):
                return network(rendered, observed)

        return run

    def _compiled(
        self, encode: Callable[..., Tensor], moving: Callable[..., tuple[Tensor, Tensor]] | None
    ) -> tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]] | None]:
        """Both after one run of each; as they were where compiling fails or takes too long in any of the processes."""
        quick = torch.compile(encode, dynamic=False)
        quick_moving = None if moving is None else torch.compile(moving, dynamic=False)
        ours = 1.0
        try:
            with at_most(self.settings.compile):
                if quick_moving is not None:
                    self.refine = self._moving_on(quick_moving)
                self.network.train()
                batch = self._draw(self.banks[0])
                with torch.autocast(self.device.type, torch.bfloat16):
                    pair_loss(quick, batch, self.network).backward()
        except Exception as error:
            ours = 0.0
            self._tell(f"goes on without compiling: {type(error).__name__}: {str(error)[:300]}")
        flag = torch.tensor([ours], device=self.device)
        self.ranks.mean(flag)
        # Slow together or quick together: the slowest sets the pace.
        if float(flag) < 1.0:
            return encode, moving
        return quick, quick_moving


def _resized(network: RefineNet | ScoreNet, empty: RefineNet | ScoreNet) -> RefineNet | ScoreNet:
    """``empty``, which is of another crop size, with the weights of ``network``: positions alone depend on the size."""
    positions = empty.pos_embed.pe
    empty.load_state_dict(network.state_dict() | {"pos_embed.pe": positions})
    return empty


def _refine(path: Path, device: torch.device) -> Refine:
    """The refiner as registration runs it."""
    network, _ = checkpoints.load_refiner(path)
    runner = make_runner(network, "auto" if device.type == "cuda" else "eager", RunnerContext(device, label="refiner"))

    def run(rendered: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            trans, rot = runner(rendered, observed)
        return trans.clone(), rot.clone()

    return run
