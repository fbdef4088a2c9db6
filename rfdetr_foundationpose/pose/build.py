"""The pose estimator from settings: meshes, weights, renderer and runners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..accel.runner import make_runner
from ..config import Config, ConfigError
from ..device import resolve_device
from ..objects import ObjectSpec
from ..resources import models_dir
from .checkpoints import find, load_refiner, load_scorer
from .confidence import load_calibration
from .estimator import TRACK_BATCHES, Networks, PoseEstimator
from .mesh import ObjectModel, load_object
from .renderer import Renderer, WarpRenderer


def weights_directory(config: Config) -> Path:
    """Where refiner and scorer are read from."""
    return models_dir() / "pose" if config.pose.weights == "default" else Path(config.pose.weights)


def make_renderer(name: str, objects: Sequence[ObjectModel], device: torch.device) -> Renderer:
    """ "warp" or "nvdiffrast". Raises ConfigError where it cannot run."""
    if name == "warp":
        return WarpRenderer(objects, device)
    if name == "nvdiffrast":
        if device.type != "cuda":
            raise ConfigError(f"pose.renderer=nvdiffrast needs a CUDA device, this is {device}; use warp")
        try:
            from .nvdiffrast_renderer import NvdiffrastRenderer

            return NvdiffrastRenderer(objects, device)
        except ImportError as error:
            raise ConfigError("pose.renderer=nvdiffrast: nvdiffrast is not installed; build it, or use warp") from error
    raise ConfigError(f"pose.renderer={name!r} must be warp or nvdiffrast")


def build_estimator(config: Config, specs: Sequence[ObjectSpec], log: Callable[[str], None] = print) -> PoseEstimator:
    """Loads meshes and weights. Raises MeshError, CheckpointError, ConfigError; ``log`` hears what is chosen."""
    device = resolve_device(config.device)
    objects = [load_object(spec, log) for spec in specs]
    for item in objects:
        size = " x ".join(f"{100 * v:.1f}" for v in item.extents)
        log(f"object {item.name}: {size} cm, {len(item.arrays.faces)} faces, colour from {item.color_source}")
    directory = weights_directory(config)
    refiner, refiner_weights = load_refiner(find(directory, "refiner"))
    scorer, scorer_weights = load_scorer(find(directory, "scorer"))
    weights = f"{refiner_weights.description}; {scorer_weights.description}"
    log(f"pose weights: {weights}")
    batches = [b for b in TRACK_BATCHES if b == 1 or b <= sum(s.max_instances for s in specs)]
    rung = config.pose.rung
    networks = Networks(
        make_runner(refiner, rung, device, log, label="refiner", batches=batches, outputs=("trans", "rot")),
        make_runner(refiner, rung, device, log, label="register refiner", outputs=("trans", "rot")),
        make_runner(scorer, rung, device, log, label="scorer", outputs=("scores",)),
    )
    renderer = make_renderer(config.pose.renderer, objects, device)
    return PoseEstimator(objects, renderer, networks, config.pose, device, weights, load_calibration(directory))
