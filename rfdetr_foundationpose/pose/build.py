"""The pose estimator from settings: meshes, weights, renderer and runners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..accel.base import Runner, RunnerContext, Step
from ..accel.graph import GraphPool
from ..accel.runner import make_runner
from ..config import Config, ConfigError
from ..device import resolve_device
from ..engines.onnx_file import INPUTS, inspect_onnx
from ..engines.options import engine_options
from ..engines.runners import FILE_BACKENDS, runner_from_onnx
from ..objects import ObjectSpec
from ..resources import models_dir
from .checkpoints import Weights, find, load_first_pass, load_refiner, load_scorer
from .confidence import load_calibration
from .estimator import PoseEstimator, track_batches
from .example_crops import example_pairs
from .mesh import ObjectModel, load_object
from .networks import FIRST_PASS_CROP
from .pruning import asks_for_first_pass
from .renderer import Renderer, WarpRenderer
from .runners import Networks

logger = logging.getLogger(__name__)


def weights_directory(config: Config) -> Path:
    """Where refiner and scorer are read from."""
    shipped = {"default": models_dir() / "pose", "base": models_dir() / "pose" / "base"}
    return shipped.get(config.pose.weights) or Path(config.pose.weights).expanduser()


def first_pass_file(directory: Path) -> Path | None:
    """The refiner of a registration's first pass: of the weights, else the shipped one, which serves any, official ones too."""
    candidates = (directory / "first_pass.safetensors", models_dir() / "pose" / "first_pass.safetensors")
    return next((path for path in candidates if path.is_file()), None)


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


@dataclass(frozen=True)
class _Source:
    """A network and how runners are made of it. network: a torch module, or the path of an ONNX file. official: whether it was
    trained on crops of the official code."""

    network: nn.Module | Path
    description: str
    official: bool

    def runner(self, backend: str, context: RunnerContext, batches: Sequence[int] = ()) -> Runner:
        if not isinstance(self.network, Path):
            return make_runner(self.network, backend, context, batches=batches)
        usable = backend == "auto" or backend in FILE_BACKENDS
        runner = runner_from_onnx(self.network, backend if usable else "auto", context, batches=batches)
        if not usable:
            runner.degraded = (
                f"{context.label}: {self.network.name} is an ONNX file, which {backend} cannot run; {runner.name} does"
            )
            logger.warning("%s", runner.degraded)
        return runner


def _source(path: Path, load: Callable[[Path], tuple[nn.Module, Weights]]) -> _Source:
    if path.suffix == ".onnx":
        return _Source(path, f"{path.name} (ONNX)", inspect_onnx(path).inputs != INPUTS)
    network, weights = load(path)
    return _Source(network, weights.description, weights.official)


def official_roles(crop_sampling: str, official: Mapping[str, bool]) -> list[str]:
    """The roles whose observed crops are sampled as in the official code. crop_sampling: of PoseConfig. official: whether the
    weights of each role are official ones."""
    return [
        role
        for role, theirs in official.items()
        if (theirs if crop_sampling == "auto" else crop_sampling == "official")
    ]


def runner_contexts(config: Config, device: torch.device) -> Callable[..., RunnerContext]:
    """``RunnerContext`` of a device, with the engines of the settings and crops that the device renders; label, about, pool and step
    are the caller's, by name."""
    return partial(
        RunnerContext, device, engines=engine_options(config), examples=partial(example_pairs, device=device)
    )


def first_pass_context(contexts: Callable[..., RunnerContext], about: str, pool: GraphPool) -> RunnerContext:
    """Of the runner of a registration's first pass. contexts: from ``runner_contexts``."""
    context = contexts(label="first-pass refiner", about=about, pool=pool, crop=(6, FIRST_PASS_CROP))
    return replace(context, examples=partial(example_pairs, device=context.device, size=FIRST_PASS_CROP))


def build_estimator(config: Config, specs: Sequence[ObjectSpec]) -> PoseEstimator:
    """Loads meshes and weights. Raises MeshError, CheckpointError, ConfigError."""
    device = resolve_device(config.device)
    objects = [load_object(spec) for spec in specs]
    directory = weights_directory(config)
    refiner, scorer = (find(directory, role) for role in ("refiner", "scorer"))
    refining, scoring = _source(refiner, load_refiner), _source(scorer, load_scorer)
    weights = f"{refining.description}; {scoring.description}"
    logger.info("pose weights: %s", weights)
    official = official_roles(config.pose.crop_sampling, {"refiner": refining.official, "scorer": scoring.official})
    if official:
        logger.info("observed crops of the %s are sampled as in the official code", " and the ".join(official))
    instances = sum(s.max_instances for s in specs)
    backend = config.pose.backend
    register = GraphPool("register", device)

    context = runner_contexts(config, device)
    first_pass = None
    asked = asks_for_first_pass(config.pose.register_schedule, device, refining.official)
    if asked and (path := first_pass_file(directory)) is not None:
        moving = _source(path, load_first_pass)
        weights += f"; {moving.description}"
        logger.info("first pass of registration: %s", moving.description)
        first_pass = moving.runner(backend, first_pass_context(context, moving.description, register))
    networks = Networks(
        refining.runner(
            backend, context(label="refiner", about=refining.description, step=Step.TRACKING), track_batches(instances)
        ),
        refining.runner(backend, context(label="register refiner", about=refining.description, pool=register)),
        scoring.runner(backend, context(label="scorer", about=scoring.description, pool=register)),
        weights,
        official,
        first_pass,
    )
    example_pairs.cache_clear()
    renderer = make_renderer(config.pose.renderer, objects, device)
    calibration = load_calibration(directory)
    return PoseEstimator(objects, renderer, networks, config.pose, device, instances, calibration)
