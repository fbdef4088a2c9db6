"""Losses of refiner and scorer, and how well they do on held-out objects.

Refiner: L2 of translation (mesh radii) and of the rotation vector in units of its clamp; scorer: pairwise logistic ranking by
distance to the truth (FoundationPose, sections 3.3 and 3.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..pose.constants import ROT_NORMALIZER
from ..pose.networks import RefineNet, ScoreNet
from .pairs import RefinerBatch, ScorerBatch

LOGIT_SCALE, LOGIT_PENALTY = 20.0, 1e-4
"""Logits beyond the scale are pulled back: a common offset ranks nothing, and costs FP16 its resolution."""


def pair_loss(
    run: Callable[[Tensor, Tensor], Tensor], batch: RefinerBatch | ScorerBatch, network: RefineNet | ScoreNet
) -> Tensor:
    if isinstance(batch, RefinerBatch):
        trans, rot = run(batch.rendered, batch.observed)
        errors = (trans.float() - batch.target_trans).square().sum(1) + (
            torch.tanh(rot.float()) - batch.target_rot
        ).square().sum(1)
        return (errors * batch.weight).sum() / batch.weight.sum().clamp(min=1)
    assert isinstance(network, ScoreNet)
    logits = _score(run, batch, network).float()
    excess = (logits.abs() - LOGIT_SCALE).clamp(min=0)
    return ranking_loss(logits, batch.error, batch.weight) + LOGIT_PENALTY * excess.square().mean()


def _score(encode: Callable[[Tensor, Tensor], Tensor], batch: ScorerBatch, network: ScoreNet) -> Tensor:
    vectors = encode(batch.rendered, batch.observed)
    return network.rank(vectors.reshape(*batch.error.shape, -1))


def ranking_loss(logits: Tensor, error: Tensor, weight: Tensor) -> Tensor:
    """Softplus of every wrongly ordered pair whose errors differ by more than 1 % of the diameter and a tenth."""
    better = error[:, :, None] + 0.01 + 0.1 * error[:, :, None] < error[:, None, :]
    # Telling the best from the rest matters more than the order of the hopeless.
    importance = better * torch.exp(-error / 0.1)[:, :, None] * weight[:, None, None]
    penalty = F.softplus(logits[:, None, :] - logits[:, :, None])
    return (penalty * importance).sum() / importance.sum().clamp(min=1e-6)


@torch.no_grad()
def evaluate(
    network: RefineNet | ScoreNet, held_out: Sequence[RefinerBatch | ScorerBatch], role: str
) -> dict[str, float]:
    """Of refiners: errors that are left after one update of held-out objects. Of a scorer: error of the chosen over the best."""
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
        if role != "scorer"
        else ("chosen_error", "best_error", "right", "_")
    )
    return {name: float(np.mean([row[i] for row in rows])) for i, name in enumerate(names) if name != "_"}
