"""The pose estimator from settings: meshes, weights, renderer and runners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..accel.base import Runner
from ..accel.graph import GraphPool
from ..accel.runner import make_runner, runner_from_onnx
from ..config import Config, ConfigError
from ..device import resolve_device
from ..objects import ObjectSpec
from ..resources import models_dir
from .checkpoints import Weights, find, load_refiner, load_scorer
from .confidence import load_calibration
from .estimator import Networks, PoseEstimator, track_batches
from .mesh import ObjectModel, load_object
from .renderer import Renderer, WarpRenderer


def weights_directory(config: Config) -> Path:
    """Where refiner and scorer are read from."""
    return models_dir() / "pose" if config.pose.weights == "default" else Path(config.pose.weights).expanduser()


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
    """A network and how runners are made of it. network: a torch module, or the path of an ONNX file."""

    network: nn.Module | Path
    description: str

    def runner(
        self,
        label: str,
        backend: str,
        device: torch.device,
        log: Callable[[str], None],
        batches: Sequence[int],
        outputs: Sequence[str],
        pool: GraphPool | None = None,
    ) -> Runner:
        if isinstance(self.network, Path):
            usable = backend in ("tensorrt", "onnxruntime", "auto")
            runner = runner_from_onnx(
                self.network, backend if usable else "auto", device, log, label=label, batches=batches
            )
            if not usable:
                runner.degraded = (
                    f"{label}: {self.network.name} is an ONNX file, which {backend} cannot run; {runner.name} does"
                )
                log(runner.degraded)
            return runner
        return make_runner(self.network, backend, device, log, label=label, batches=batches, outputs=outputs, pool=pool)


def _source(path: Path, load: Callable[[Path], tuple[nn.Module, Weights]]) -> _Source:
    if path.suffix == ".onnx":
        return _Source(path, f"{path.name} (ONNX)")
    network, weights = load(path)
    return _Source(network, weights.description)


def build_estimator(config: Config, specs: Sequence[ObjectSpec], log: Callable[[str], None] = print) -> PoseEstimator:
    """Loads meshes and weights. Raises MeshError, CheckpointError, ConfigError; ``log`` hears what is chosen."""
    device = resolve_device(config.device)
    objects = [load_object(spec, log) for spec in specs]
    for item in objects:
        size = " x ".join(f"{100 * v:.1f}" for v in item.extents)
        log(f"object {item.name}: {size} cm, {len(item.arrays.faces)} faces, colour from {item.color_source}")
    directory = weights_directory(config)
    refiner, scorer = (find(directory, role) for role in ("refiner", "scorer"))
    refining, scoring = _source(refiner, load_refiner), _source(scorer, load_scorer)
    weights = f"{refining.description}; {scoring.description}"
    log(f"pose weights: {weights}")
    instances = sum(s.max_instances for s in specs)
    backend = config.pose.backend
    register = GraphPool("register", device)
    networks = Networks(
        refining.runner("refiner", backend, device, log, track_batches(instances), ("trans", "rot")),
        refining.runner("register refiner", backend, device, log, (), ("trans", "rot"), register),
        scoring.runner("scorer", backend, device, log, (), ("scores",), register),
    )
    renderer = make_renderer(config.pose.renderer, objects, device)
    calibration = load_calibration(directory)
    return PoseEstimator(objects, renderer, networks, config.pose, device, weights, instances, calibration, log)
