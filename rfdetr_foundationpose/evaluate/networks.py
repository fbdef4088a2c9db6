"""The networks that commands export, time and compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..config import from_flat
from ..pose import checkpoints
from ..pose.build import first_pass_file, official_roles, weights_directory
from ..pose.networks import RefineNet, ScoreNet
from ..resources import models_dir


@dataclass(frozen=True)
class LoadedNetworks:
    """By role, "refiner" and "scorer". modules: on the CPU in eval mode. about: what each is, for people. official: whether its
    weights are of the official release, as ``checkpoints.Weights`` says. first_pass: the refiner of a registration's first pass,
    where there is one; about_first_pass: what it is."""

    modules: Mapping[str, nn.Module]
    about: Mapping[str, str]
    official: Mapping[str, bool]
    first_pass: nn.Module | None = None
    about_first_pass: str = ""

    @property
    def description(self) -> str:
        """Of both, each said once."""
        return "; ".join(dict.fromkeys(self.about.values()))

    def official_crops(self, crop_sampling: str) -> list[str]:
        """The roles whose observed crops are sampled as in the official code. crop_sampling: of PoseConfig."""
        return official_roles(crop_sampling, self.official)


def load_networks(weights: str, official_size: bool) -> LoadedNetworks:
    """weights: as pose.weights. official_size: networks of the official size with random weights instead: they are as fast as
    the official ones, whose crops they get. Raises CheckpointError.
    """
    if official_size:
        torch.manual_seed(0)
        modules = {"refiner": RefineNet(1.0).eval(), "scorer": ScoreNet(1.0).eval()}
        about = dict.fromkeys(modules, "official size, random weights")
        return LoadedNetworks(modules, about, dict.fromkeys(modules, True), *_first_pass(models_dir() / "pose"))
    directory = weights_directory(from_flat({"pose.weights": weights}))
    refiner, of_refiner = checkpoints.load_refiner(checkpoints.find(directory, "refiner"))
    scorer, of_scorer = checkpoints.load_scorer(checkpoints.find(directory, "scorer"))
    read = {"refiner": of_refiner, "scorer": of_scorer}
    return LoadedNetworks(
        {"refiner": refiner, "scorer": scorer},
        {role: found.description for role, found in read.items()},
        {role: found.official for role, found in read.items()},
        *_first_pass(directory),
    )


def _first_pass(directory: Path) -> tuple[nn.Module | None, str]:
    path = first_pass_file(directory)
    if path is None:
        return None, ""
    network, weights = checkpoints.load_first_pass(path)
    return network, weights.description
