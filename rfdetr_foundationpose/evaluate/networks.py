"""The networks that commands export, time and compare."""

from __future__ import annotations

import torch
from torch import nn

from ..config import from_flat
from ..pose import checkpoints
from ..pose.build import weights_directory
from ..pose.networks import RefineNet, ScoreNet


def load_networks(weights: str, official_size: bool) -> tuple[dict[str, nn.Module], str]:
    """ "refiner" and "scorer" on the CPU in eval mode, and what they are.

    weights: as pose.weights. official_size: networks of the official size with random weights instead: they are as
    fast as trained ones. Raises CheckpointError.
    """
    if official_size:
        torch.manual_seed(0)
        return {"refiner": RefineNet(1.0).eval(), "scorer": ScoreNet(1.0).eval()}, "official size, random weights"
    directory = weights_directory(from_flat({"pose.weights": weights}))
    refiner, about = checkpoints.load_refiner(checkpoints.find(directory, "refiner"))
    scorer, _ = checkpoints.load_scorer(checkpoints.find(directory, "scorer"))
    return {"refiner": refiner, "scorer": scorer}, about.description
