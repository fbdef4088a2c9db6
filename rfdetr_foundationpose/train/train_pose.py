"""Training of refiner and scorer on generated pairs. One call makes progress that the next one resumes from.

Losses: refiner, L2 of translation (mesh radii) and of the rotation vector in units of its clamp; scorer, pairwise logistic
ranking by distance to the truth (FoundationPose, sections 3.3 and 3.4).
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..accel.runner import make_runner
from ..objects import ObjectSpec
from ..pose import checkpoints
from ..pose.constants import ROT_NORMALIZER
from ..pose.mesh import ObjectModel, make_object
from ..pose.networks import RefineNet, ScoreNet
from ..synth.objects import random_object
from .pairs import PairSampler, Refine, RefinerBatch, ScorerBatch

EVALUATION_SEED = 1_000_003
QUALITY = {"refiner": "trans_mean", "scorer": "chosen_error"}
"""The evaluation with the lowest value of this metric gives the weights that are written."""
LEARNING_RATE = {"refiner": 6e-4, "scorer": 2e-4}
"""The scorer's attention has no normalization of its own: at 6e-4 it diverged within 500 steps."""


@dataclass(frozen=True)
class TrainSettings:
    """minutes: budget of the whole schedule; stop_after: minutes of this call. batch: pairs a step. learning_rate: 0 takes the role's own.

    refiner: weights by which the scorer's hypotheses are refined before they are ranked; None ranks them as drawn.
    """

    role: str
    out: Path
    minutes: float = 10.0
    stop_after: float = 10.0
    width: float = 0.5
    batch: int = 512
    hypotheses: int = 32
    objects: int = 1000
    learning_rate: float = 0.0
    device: str = "cuda"
    seed: int = 0
    compile: bool = False
    refiner: Path | None = None


def train(settings: TrainSettings, progress: Callable[[str], None] = print) -> dict[str, float]:
    """Train or resume ``out/<role>.train.pt``; writes ``out/<role>.safetensors`` and ``out/<role>.jsonl``. Returns the metrics."""
    begin = time.monotonic()
    peak_rate = settings.learning_rate or LEARNING_RATE[settings.role]
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(settings.device)
    torch.manual_seed(settings.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    network = _make(settings.role, settings.width).to(device)
    average = _make(settings.role, settings.width).to(device)
    network, average = (m.to(memory_format=torch.channels_last) for m in (network, average))
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_rate, weight_decay=0.01, fused=device.type == "cuda")
    checkpoint = out / f"{settings.role}.train.pt"
    step, spent = 0, 0.0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
        progress(f"resumed {checkpoint.name} at step {step}, {spent / 60:.1f} min")
    elif (weights := out / f"{settings.role}.safetensors").is_file():
        load = checkpoints.load_refiner if settings.role == "refiner" else checkpoints.load_scorer
        for target in (network, average):
            target.load_state_dict(load(weights)[0].state_dict())
        progress(f"started from {weights.name}")

    progress(f"generating {settings.objects} objects")
    objects = make_objects(settings.objects, settings.seed + step)
    sampler = PairSampler(objects, device, settings.seed + step)
    evaluation = PairSampler(make_objects(64, EVALUATION_SEED), device, EVALUATION_SEED)
    refine = None if settings.refiner is None else _refine(settings.refiner, device, progress)
    held_out = [_draw(evaluation, settings, refine) for _ in range(4)]
    if isinstance(average, RefineNet):
        refine = _moving_on(average, device)
    run: Callable[[Tensor, Tensor], Tensor] = network if isinstance(network, RefineNet) else network.encode
    if settings.compile:
        run = torch.compile(run)
    progress(f"ready after {time.monotonic() - begin:.0f} s")

    started = time.monotonic()
    metrics: dict[str, float] = {}
    best, best_quality = average.state_dict(), math.inf
    log = (out / f"{settings.role}.jsonl").open("a")
    running = torch.zeros((), device=device)
    skipped, reported = 0, step
    while True:
        elapsed = spent + time.monotonic() - started
        done = elapsed / (settings.minutes * 60)
        last = done >= 1.0 or time.monotonic() - begin > settings.stop_after * 60
        if step % 250 == 0 or last:
            metrics = _evaluate(average, held_out, settings.role)
            metrics |= {
                "step": step,
                "minutes": elapsed / 60,
                "loss": float(running) / max(step - reported, 1),
                "skipped": skipped,
                "pairs_per_s": step * settings.batch / max(elapsed, 1),
            }
            running.zero_()
            reported = step
            # A late divergence must not cost what was reached before it.
            if metrics[QUALITY[settings.role]] < best_quality:
                best_quality = metrics[QUALITY[settings.role]]
                best = {k: v.clone() for k, v in average.state_dict().items()}
            log.write(json.dumps(metrics) + "\n")
            log.flush()
            progress(settings.role + " " + " ".join(f"{k}={v:.4g}" for k, v in metrics.items()))
        if last:
            break
        rate = peak_rate * min(1.0, (step + 1) / 300) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        for group in optimizer.param_groups:
            group["lr"] = max(rate, 1e-6)
        network.train()
        batch = _draw(sampler, settings, refine)
        with torch.autocast(device.type, torch.bfloat16):
            loss = _loss(run, batch, network)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        step += 1
        # One non-finite gradient would poison weights and average for good.
        if not torch.isfinite(nn.utils.clip_grad_norm_(network.parameters(), 1.0)):
            skipped += 1
            if skipped > 20 + step // 20:
                raise RuntimeError(
                    f"{skipped} of {step} steps had gradients that are not finite; lower --learning-rate"
                )
            continue
        optimizer.step()
        running += loss.detach()
        _average(average, network, min(0.998, step / (step + 20)))
    torch.save(
        {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "spent": spent + time.monotonic() - started,
        },
        checkpoint,
    )
    average.load_state_dict(best)
    checkpoints.write(
        out / f"{settings.role}.safetensors",
        average,
        f"width {settings.width:g}, trained on {step * settings.batch:,} generated pairs",
    )
    return metrics


def make_objects(count: int, seed: int) -> list[ObjectModel]:
    """Random objects, generated on all cores."""
    seeds = [seed * 1_000_000 + i for i in range(count)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return list(pool.map(_make_object, seeds, chunksize=8))


def _make_object(seed: int) -> ObjectModel:
    item = random_object(np.random.default_rng(seed))
    spec = ObjectSpec(name=f"object_{seed}", mesh=Path("generated"), discrete=item.discrete, continuous=item.continuous)
    return make_object(spec, item.mesh, logging.getLogger(__name__).debug)


def _make(role: str, width: float) -> RefineNet | ScoreNet:
    return RefineNet(width) if role == "refiner" else ScoreNet(width)


def _refine(path: Path, device: torch.device, log: Callable[[str], None]) -> Refine:
    """The refiner as registration runs it."""
    network, _ = checkpoints.load_refiner(path)
    runner = make_runner(network, "auto" if device.type == "cuda" else "eager", device, log, label="refiner")

    def run(rendered: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            trans, rot = runner(rendered, observed)
        return trans.clone(), rot.clone()

    return run


def _moving_on(network: RefineNet, device: torch.device) -> Refine:
    """A refiner in training, as it is then."""

    @torch.no_grad()
    def run(rendered: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        network.eval()
        with torch.autocast(device.type, torch.bfloat16):
            return network(rendered, observed)  # type: ignore[no-any-return]

    return run


def _draw(sampler: PairSampler, settings: TrainSettings, refine: Refine | None) -> RefinerBatch | ScorerBatch:
    if settings.role == "refiner":
        return sampler.refiner_batch(settings.batch, refine)
    return sampler.scorer_batch(settings.batch // settings.hypotheses, settings.hypotheses, refine)


def _loss(
    run: Callable[[Tensor, Tensor], Tensor], batch: RefinerBatch | ScorerBatch, network: RefineNet | ScoreNet
) -> Tensor:
    if isinstance(batch, RefinerBatch):
        trans, rot = run(batch.rendered, batch.observed)
        errors = (trans.float() - batch.target_trans).square().sum(1) + (
            torch.tanh(rot.float()) - batch.target_rot
        ).square().sum(1)
        return (errors * batch.weight).sum() / batch.weight.sum().clamp(min=1)
    assert isinstance(network, ScoreNet)
    return _ranking_loss(_score(run, batch, network).float(), batch.error, batch.weight)


def _score(encode: Callable[[Tensor, Tensor], Tensor], batch: ScorerBatch, network: ScoreNet) -> Tensor:
    vectors = encode(batch.rendered, batch.observed)
    return network.rank(vectors.reshape(*batch.error.shape, -1))


def _ranking_loss(logits: Tensor, error: Tensor, weight: Tensor) -> Tensor:
    """Softplus of every wrongly ordered pair whose errors differ by more than 1 % of the diameter and a tenth."""
    better = error[:, :, None] + 0.01 + 0.1 * error[:, :, None] < error[:, None, :]
    # Telling the best from the rest matters more than the order of the hopeless.
    importance = better * torch.exp(-error / 0.1)[:, :, None] * weight[:, None, None]
    penalty = F.softplus(logits[:, None, :] - logits[:, :, None])
    return (penalty * importance).sum() / importance.sum().clamp(min=1e-6)


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    floats = [(a, b) for a, b in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
    for a, b in pairs:
        if not a.is_floating_point():
            a.copy_(b)


@torch.no_grad()
def _evaluate(network: RefineNet | ScoreNet, held_out: list[RefinerBatch | ScorerBatch], role: str) -> dict[str, float]:
    """refiner: median errors that are left after one update of held-out objects. scorer: error of the chosen over the best."""
    network.eval()
    device = next(network.parameters()).device
    rows = []
    for batch in held_out:
        with torch.autocast(device.type, torch.bfloat16):
            if isinstance(batch, RefinerBatch):
                trans, rot = network(batch.rendered, batch.observed)
                keep = batch.weight > 0
                left = (trans.float() - batch.target_trans).norm(dim=1)[keep] / 2
                turn = (torch.tanh(rot.float()) - batch.target_rot).norm(dim=1)[keep] * math.degrees(ROT_NORMALIZER)
                rows.append((float(left.median()), float(turn.median()), float(left.mean()), float(turn.mean())))
            else:
                assert isinstance(network, ScoreNet)
                logits = _score(network.encode, batch, network).float()
                keep = batch.weight > 0
                chosen = batch.error.gather(1, logits.argmax(1, keepdim=True))[:, 0][keep]
                best = batch.error.amin(1)[keep]
                rows.append(
                    (float(chosen.mean()), float(best.mean()), float((chosen < best + 0.05).float().mean()), 0.0)
                )
    names = (
        ("trans_p50_diameters", "rot_p50_deg", "trans_mean", "rot_mean_deg")
        if role == "refiner"
        else ("chosen_error", "best_error", "right", "_")
    )
    return {name: float(np.mean([row[i] for row in rows])) for i, name in enumerate(names) if name != "_"}
