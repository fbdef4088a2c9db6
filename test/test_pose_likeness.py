"""Likeness in colour: blind to light, alive to print, and what decides between poses that fit equally well."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pose_scenes import object_of, prepared, random_pose, scene_of, textured_box

from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose.estimator import Networks, PoseEstimator
from rfdetr_foundationpose.pose.likeness import likeness
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.symmetry import rotation_angle


def picture(seed: int, contrast: float = 1.0) -> torch.Tensor:
    blocks = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(blocks, (32, 32), mode="bilinear").permute(0, 2, 3, 1)
    return 0.5 + contrast * (image - 0.5)


def test_blind_to_light_alive_to_print():
    mask = torch.ones(1, 32, 32, dtype=torch.bool)
    one, other = picture(0), picture(1)
    itself = likeness(one, one, mask)
    assert 0.8 < itself < 1.0
    assert likeness(one, 0.5 * one, mask) > 0.9 * itself, "half the light"
    assert likeness(one, one * torch.tensor([1.2, 1.0, 0.8]), mask) > 0.9 * itself, "a warmer lamp"
    assert likeness(one, other, mask) < 0.4
    plain = [0.5 + 0.01 * torch.randn(1, 32, 32, 3, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert likeness(*plain, mask).abs() < 0.05, "noise is no print"
    none = torch.zeros_like(mask)
    assert likeness(one, other, none).item() == 0.0


class Knows:
    """A refiner that knows where the object is, but leaves the rotation; and a scorer without an opinion."""

    name, degraded, capturable, dtype = "eager", "", False, torch.float32

    def __init__(self, moves=None) -> None:
        self._moves = moves

    def prepare(self, batch: int, observed: int | None = None) -> None:
        pass

    def __call__(self, rendered, observed):
        n = len(rendered)
        return (torch.zeros(n),) if self._moves is None else (self._moves(n), torch.zeros(n, 3))


def registered_angle(item, T, candidates, weight: float) -> float:
    """Degrees between the truth and what is chosen of the candidate rotations."""
    frame, mask = scene_of(item, T)

    def moves(n: int) -> torch.Tensor:
        (program,) = estimator._registers.values()
        return (torch.tensor(T[:3, 3]) - program.views.poses[:n, :3, 3]).float() / (item.diameter / 2)

    config = PoseConfig(register_schedule="full", register_iterations=1, register_likeness=weight)
    networks = Networks(Knows(moves), Knows(moves), Knows())
    estimator = PoseEstimator([item], WarpRenderer([item], "cpu"), networks, config, "cpu")
    estimator.rotations[0] = torch.tensor(candidates, dtype=torch.float32)
    estimate = estimator.register(prepared(estimator, frame), "thing", mask)
    R = item.to_centered(estimate.T_cam_obj)[:3, :3]
    return float(np.degrees(rotation_angle(R.T @ T[:3, :3])))


def printed_box():
    """A box whose every face has a print of its own."""
    mesh = textured_box()
    rng = np.random.default_rng(0)
    colors = rng.integers(30, 255, (len(mesh.faces), 3))
    mesh.visual.face_colors = np.c_[colors, np.full(len(colors), 255)].astype(np.uint8)
    return mesh


@pytest.mark.parametrize("seed", range(1, 7))
def test_the_likeness_tells_the_sides_of_a_box_apart(seed):
    item = object_of(printed_box())
    T = random_pose(seed)
    candidates = np.stack([T[:3, :3] @ np.diag([-1.0, -1.0, 1.0]), T[:3, :3]])
    assert registered_angle(item, T, candidates, 1.0) < 1.0
    assert registered_angle(item, T, candidates, 0.0) > 170.0, "without it the first of equals is taken"
