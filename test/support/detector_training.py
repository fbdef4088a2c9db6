"""Tiny trainings of the detector."""

from __future__ import annotations

import io

import torch
from rich.console import Console

from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.synth.scene import SceneContent, SceneSampler
from rfdetr_foundationpose.train.detector_data import DetectorBatch, ScenePool
from rfdetr_foundationpose.train.detector_trainer import Trainer, TrainSettings

TINY = {
    "resolution": 96,
    "positional_encoding_size": 6,
    "num_windows": 1,
    "out_feature_indexes": [1, 2],
    "dec_layers": 1,
    "num_queries": 8,
    "num_select": 8,
    "hidden_dim": 64,
}


def pool(count: int, seed: int = 0, device: str = "cpu") -> ScenePool:
    sampler = SceneSampler(
        demo_objects(), device, (96, 128), seed, SceneContent(4, 4, max_targets=3, max_distractors=2)
    )
    made = ScenePool(sampler, count, seed=seed)
    made.fill(count)
    return made


def settings(out, **more) -> TrainSettings:
    return TrainSettings(
        **{
            "out": out,
            "minutes": 0.02,
            "start": "random",
            "least_steps": 1,
            "config": TINY,
            "groups": 2,
            "batch": 2,
            "device": "cpu",
            "pool": 4,
            "scene_size": (48, 64),
            "evaluation_scenes": 2,
            "distractors": 4,
            "surfaces": 4,
            **more,
        }
    )


def quiet() -> Console:
    """What a training says goes into its file."""
    return Console(file=io.StringIO(), width=200)


def trained_on(trainer: Trainer, batch: DetectorBatch, steps: int = 120) -> tuple[dict[str, float], dict[str, float]]:
    """Losses of the first and the last of some steps on one batch, after which the loss must be less than half."""
    first = {k: float(v) for k, v in trainer.train_step(batch, 1e-4).items()}
    for _ in range(steps):
        last = trainer.train_step(batch, 1e-3)
    found = {k: float(v) for k, v in last.items()}
    assert found["l1"] + found["giou"] < 0.5 * (first["l1"] + first["giou"])
    assert found["tokens"] < 0.5 * first["tokens"]
    return first, found


def read_backs(run) -> set[str]:
    """The operators of a run, its backward pass included, that would wait for a CUDA device."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    names = {event.key for event in profile.key_averages()}
    assert len(names) > 10
    return names & {f"aten::{n}" for n in ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal")}
