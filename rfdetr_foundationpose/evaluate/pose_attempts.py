"""The attempts of ``evaluate synth``, ``evaluate bop`` and ``evaluate ycbv``, one by one as they are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import Config
from ..device import resolve_device
from ..errors import InputError
from ..objects import ObjectSpec
from ..pose.build import build_estimator
from ..pose.estimator import TrackRequest
from ..pose.mesh import ObjectModel
from ..process import prepare_process
from ..replay.bop import BopDataset
from ..replay.metrics import ObjectGeometry
from ..synth.video import SceneVideo, VideoSettings
from .attempts import Attempt, Evaluator, detector_like_mask
from .bop_scores import BopScores
from .ycbv import MASK_MARGIN, Instance, RealFrame

if TYPE_CHECKING:
    from ..pose.observation import Observation


@dataclass(frozen=True)
class Tools:
    """What judges attempts, and what it is made of: device, weights, backend."""

    evaluator: Evaluator
    models: Sequence[ObjectModel]
    device: torch.device
    about: dict[str, Any]


def make_tools(config: Config, specs: Sequence[ObjectSpec]) -> Tools:
    """The estimator of the settings for these objects. Raises CheckpointError, ConfigError and MeshError."""
    device = prepare_process(resolve_device(config.device))
    estimator = build_estimator(config, specs)
    geometries = {s.name: ObjectGeometry.from_spec(s) for s in specs}
    about = {"device": str(device), "weights": estimator.weights, "pose_backend": estimator.backend}
    return Tools(Evaluator(estimator, geometries, device), estimator.objects, device, about)


def synth_attempts(tools: Tools, scenes: int, track: int, seed: int) -> Iterator[list[Attempt]]:
    """Of each generated scene: one object registered from a faulty mask, then tracked over ``track`` frames."""
    for i in range(scenes):
        model = tools.models[i % len(tools.models)]
        video = SceneVideo(
            [model], VideoSettings(frames=1 + track, seed=seed + i, targets=(model.name,)), str(tools.device)
        )
        rng = np.random.default_rng(seed + i)
        frame, truth = video.frame(0)
        mask = detector_like_mask(frame.masks[model.name], rng)
        scene = str(seed + i)
        true = truth.instances[0].T_cam_obj
        attempts = [
            tools.evaluator.register(
                tools.evaluator.prepare(frame), mask, true, object=model.name, scene=scene, index=0
            )
        ]
        for index in range(1, 1 + track):
            last = attempts[-1]
            if last.T_cam_obj is None:
                break
            request = TrackRequest(model.name, last.T_cam_obj, last.confidence or 0.0)
            frame, truth = video.frame(index)
            truths = {model.name: truth.instances[0].T_cam_obj}
            prepared = tools.evaluator.prepare(frame)
            attempts += tools.evaluator.track(prepared, [request], truths, scene=scene, index=index)
        yield attempts


def bop_attempts(
    tools: Tools,
    dataset: BopDataset,
    seed: int,
    *,
    faulty_masks: bool = True,
    min_visibility: float = 0.1,
    scores: BopScores | None = None,
) -> Iterator[list[Attempt]]:
    """Of each image: every instance that is visible by at least ``min_visibility``, registered, and added to ``scores``.

    An image that cannot be worked with is left out, and counted in ``dataset.left_out``.
    """
    rng = np.random.default_rng(seed)
    for scene, image, frame, instances in dataset:
        targets = [i for i in instances if i.visibility is None or i.visibility >= min_visibility]
        try:
            prepared = tools.evaluator.prepare(frame)
        except InputError as error:
            dataset.left_out.add(f"image of {error.kind}", f"scene {scene}, image {image}: {error}")
            continue
        attempts = []
        for instance in targets:
            mask = detector_like_mask(instance.mask, rng) if faulty_masks else instance.mask
            attempts.append(
                tools.evaluator.register(
                    prepared, mask, instance.T_cam_obj, object=instance.object, scene=scene, index=image
                )
            )
        if scores is not None:
            scores.add(frame, targets, attempts)
        yield attempts


def ycbv_attempts(
    tools: Tools, frames: Sequence[RealFrame], instances: Sequence[Instance], seed: int
) -> Iterator[tuple[Attempt, NDArray[np.bool_]]]:
    """Every instance registered from the visible part of its silhouette, made faulty; with the mask (H, W)."""
    prepared: Observation | None = None
    name = ""
    by_name = {f.name: (i, f) for i, f in enumerate(frames)}
    for number, instance in enumerate(instances):
        index, real = by_name[instance.scene]
        if prepared is None or real.name != name:
            prepared, name = tools.evaluator.prepare(real.frame), real.name
        rng = np.random.default_rng([seed, number])
        mask = detector_like_mask(instance.visible, rng, dilate=MASK_MARGIN)
        yield (
            tools.evaluator.register(
                prepared, mask, instance.T_cam_obj, object=instance.object, scene=real.name, index=index
            ),
            mask,
        )
