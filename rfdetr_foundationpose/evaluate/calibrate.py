"""Samples for the confidence: tracked from right, slightly wrong, flipped and hopeless starts in generated scenes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..config import Config
from ..device_frame import Uploader
from ..objects import ObjectSpec
from ..pose.build import build_estimator
from ..pose.estimator import TrackRequest
from ..pose.mesh import ObjectModel
from ..replay.metrics import ObjectGeometry, pose_error
from ..synth.sensor import ColorSensor
from ..synth.video import SceneVideo, VideoSettings

Array = NDArray[np.float64]
RIGHT = 0.1
"""A pose is right when its ADD, up to declared symmetries, is below this share of the diameter; one whose ADD-S alone is
lies where the object is, but flipped."""
STARTS = 8
"""Each object of a scene is tracked from this many starts."""


@dataclass(frozen=True)
class Samples:
    """features: (N, 11), add, adds: (N,) in diameters, confidence: (N,) of the calibration in use, scene: (N,)."""

    features: Array
    add: Array
    adds: Array
    confidence: Array
    scene: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.add < RIGHT

    @property
    def flipped(self) -> NDArray[np.bool_]:
        return (self.adds < RIGHT) & ~self.right


def starts(T: Array, item: ObjectModel, rng: np.random.Generator) -> list[Array]:
    """STARTS poses (4, 4) to track from: two near, two fair, one poor, one flipped or anyhow, one beside the object and
    one behind it.

    That is, about as many of those that will fit are flipped as a registration leaves so: the share of right ones
    among poses that nothing else tells apart is what they get for confidence.
    """
    d = item.diameter

    def moved(degrees: float, share: float) -> Array:
        start = T.copy()
        axis = rng.normal(size=3)
        turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.radians(degrees))
        start[:3, :3] = turn.as_matrix() @ T[:3, :3]
        start[:3, 3] += rng.normal(size=3) * share * d
        return start

    turned = moved(0, 0.03)
    turned[:3, :3] = Rotation.random(rng=rng).as_matrix()
    if rng.random() < 0.5:
        turned[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(np.pi * np.eye(3)[rng.integers(3)]).as_matrix()
    beside = moved(rng.uniform(0, 180), 0.05)
    direction = rng.normal(size=3)
    beside[:3, 3] += direction / np.linalg.norm(direction) * d * rng.uniform(0.4, 1.5)
    behind = moved(rng.uniform(0, 180), 0.05)
    behind[:3, 3] *= 1 + d * rng.uniform(0.7, 2.5) / T[2, 3]
    return [
        *(moved(rng.uniform(0, 6), 0.02) for _ in range(2)),
        *(moved(rng.uniform(5, 25), 0.06) for _ in range(2)),
        moved(rng.uniform(20, 60), 0.15),
        turned,
        beside,
        behind,
    ]


def collect(
    config: Config,
    specs: Sequence[ObjectSpec],
    scenes: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Samples:
    """Track three steps from every start in each scene, which shows one of the objects to a colour camera of its own.

    stop: asked after each scene; the samples of those before are returned.
    """
    rng = np.random.default_rng(seed)
    estimator = build_estimator(config, specs)
    upload = Uploader(estimator.device)
    rows: list[tuple[Array, float, float, float, int]] = []
    for i in range(scenes):
        spec, item = specs[i % len(specs)], estimator.objects[i % len(specs)]
        geometry = ObjectGeometry.from_model(item, spec)
        video = SceneVideo(
            [item],
            VideoSettings(frames=60, seed=seed + i, targets=(item.name,), min_visibility=0.05, sensor=ColorSensor()),
            str(estimator.device),
        )
        frame, truth = video.frame(int(rng.integers(60)))
        frame = dataclasses.replace(frame, depth=_with_holes(frame.depth, rng))
        pose_frame = estimator.prepare(upload(frame))
        true = truth.instances[0].T_cam_obj
        requests = [TrackRequest(item.name, item.from_centered(T)) for T in starts(item.to_centered(true), item, rng)]
        for _ in range(3):
            estimates = estimator.track(pose_frame, requests)
            requests = [TrackRequest(item.name, e.T_cam_obj) for e in estimates]
            for estimate in estimates:
                error = pose_error(estimate.T_cam_obj, true, geometry)
                add = error.add_mm / 1e3 / item.diameter
                rows.append((estimate.features, add, error.adds_ratio, estimate.confidence, i))
        progress(i + 1, scenes)
        if stop():
            break
    return Samples(*(np.array(column) for column in zip(*rows, strict=True)))


def _with_holes(depth: NDArray[np.generic], rng: np.random.Generator) -> NDArray[np.generic]:
    """In half of the scenes, a random share of the image, in blocks, has no depth."""
    if rng.random() < 0.5:
        return depth
    block = int(rng.integers(4, 40))
    coarse = rng.random((depth.shape[0] // block + 1, depth.shape[1] // block + 1)) < rng.uniform(0, 1)
    missing = np.kron(coarse, np.ones((block, block), bool))[: depth.shape[0], : depth.shape[1]]
    return np.where(missing, depth.dtype.type(0), depth)


def reliability(confidence: Array, right: NDArray[np.bool_], bins: int = 10) -> list[dict[str, float]]:
    """Per bin of confidence: how many, mean confidence, share that is right."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "count": float((index == b).sum()),
            "confidence": float(confidence[index == b].mean()),
            "right": float(right[index == b].mean()),
        }
        for b in range(bins)
        if (index == b).any()
    ]
