"""Training pairs: the targets lead to the truth, the samples vary, and a training resumes."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.objects import ContinuousSymmetry
from rfdetr_foundationpose.pose import checkpoints
from rfdetr_foundationpose.pose.constants import ROT_NORMALIZER
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.synth import so3
from rfdetr_foundationpose.train import train_pose
from rfdetr_foundationpose.train.object_stream import make_all
from rfdetr_foundationpose.train.pairs import ALL_STARTS, PairSampler
from rfdetr_foundationpose.train.pose_losses import ranking_loss
from rfdetr_foundationpose.train.train_pose import TrainSettings, train
from support.clocks import StepClock
from support.pose_scenes import object_of, textured_box

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def objects():
    import trimesh

    return [
        object_of(textured_box((0.1, 0.0, 0.0))),
        object_of(trimesh.creation.cylinder(0.02, 0.1, sections=24), continuous=(ContinuousSymmetry((0, 0, 1)),)),
    ]


def test_targets_lead_to_the_truth(objects, monkeypatch):
    seen = {}
    perturb = PairSampler._perturb
    nearest = PairSampler._nearest_look
    monkeypatch.setattr(PairSampler, "_perturb", lambda s, T, d: seen.setdefault("guess", perturb(s, T, d)))
    monkeypatch.setattr(PairSampler, "_nearest_look", lambda s, T, g, i: seen.setdefault("truth", nearest(s, T, g, i)))
    sampler = PairSampler(objects, "cpu", 3)
    batch = sampler.refiner_batch(12)
    guess, truth = seen["guess"], seen["truth"]
    v = batch.target_rot * ROT_NORMALIZER
    R = so3.exp(v).mT @ guess[:, :3, :3]
    small = so3.log(guess[:, :3, :3] @ truth[:, :3, :3].mT).abs().amax(1) < 0.95 * ROT_NORMALIZER
    assert small.any()
    left = so3.log(R @ truth[:, :3, :3].mT).norm(dim=1)
    assert left[small].max() < 1e-3
    before = so3.log(guess[:, :3, :3] @ truth[:, :3, :3].mT).norm(dim=1)
    assert (left[~small] < before[~small]).all()
    assert batch.target_rot.abs().max() < 0.99
    assert batch.rendered.shape == batch.observed.shape == (12, 6, 160, 160)
    assert torch.isfinite(batch.rendered).all()
    assert torch.isfinite(batch.observed).all()


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-3, 0.5, 2.0, 3.1])
def test_rotation_of_a_vector_is_the_exponential_of_its_matrix(size):
    direction = torch.nn.functional.normalize(
        torch.randn(64, 3, generator=torch.Generator().manual_seed(4)).double(), dim=-1
    )
    v = size * direction
    torch.testing.assert_close(so3.exp(v), torch.linalg.matrix_exp(so3.hat(v)), atol=1e-12, rtol=0)
    torch.testing.assert_close(so3.exp(v.float()).double(), torch.linalg.matrix_exp(so3.hat(v)), atol=1e-6, rtol=0)


@pytest.mark.gpu
def test_drawing_does_not_wait_for_the_device(objects):
    """So that the host draws the next batch while the network still learns from this one."""
    sampler = PairSampler(objects, "cuda", 3)

    def refine(rendered, observed):
        return torch.zeros(len(rendered), 3, device="cuda"), torch.zeros(len(rendered), 3, device="cuda")

    def draw():
        return sampler.refiner_batch(32, refine), sampler.scorer_batch(2, 16, refine)

    draw()  # memory and kernels of the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        draw()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_some_starts_have_been_moved_once(objects):
    """By a refiner that always answers the same, whose errors the targets are then to undo."""
    step = torch.tensor([0.1, 0.0, 0.05])

    def still(rendered, observed):
        return step.expand(len(rendered), 3), torch.zeros(len(rendered), 3)

    plain = PairSampler(objects[:1], "cpu", 3).refiner_batch(10)
    moved = PairSampler(objects[:1], "cpu", 3).refiner_batch(10, still)
    m = round(ALL_STARTS.moved_on * 10)
    assert 0 < m < 10
    torch.testing.assert_close(moved.target_trans[:m], plain.target_trans[:m] - step, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.target_trans[m:], plain.target_trans[m:])
    torch.testing.assert_close(moved.target_rot, plain.target_rot, atol=1e-5, rtol=0)
    assert (moved.rendered[:m] - plain.rendered[:m]).abs().mean() > 1e-3
    alone = PairSampler(objects[:1], "cpu", 3).refiner_batch(1, still)  # a share of which is none
    assert len(alone.rendered) == 1


@pytest.mark.parametrize("draw", [lambda s: s.refiner_batch(24), lambda s: s.scorer_batch(2, 12)])
def test_the_rendered_side_is_what_rays_see(draw):
    """Of random objects, in the windows of rough guesses; as test_pose_raster.py holds the estimator's renderer to rays."""
    items = make_all([1, 2, 3, 4, 5, 6])
    raster, rays = (PairSampler(items, DEVICE, 8) for _ in range(2))
    caster = WarpRenderer(items, DEVICE)
    rays.renderer.render_inputs = lambda views, diameters, min_z, out, _: caster.render_inputs(
        views, diameters, min_z, out
    )
    found, expected = draw(raster), draw(rays)
    torch.testing.assert_close(found.weight, expected.weight)
    covered = (expected.rendered[:, 3:] != 0).any(1)
    assert covered.float().mean() > 0.1
    differs = (found.rendered - expected.rendered).abs().amax(1) > 1e-2
    assert differs.sum() < 1e-3 * covered.sum()


def test_pairs_are_deterministic_and_differ(objects):
    a, b = (PairSampler(objects, DEVICE, 5).refiner_batch(4) for _ in range(2))
    torch.testing.assert_close(a.observed, b.observed)
    torch.testing.assert_close(a.target_rot, b.target_rot)
    sampler = PairSampler(objects, DEVICE, 5)
    first, second = sampler.refiner_batch(4), sampler.refiner_batch(4)
    assert (first.observed - second.observed).abs().mean() > 0.01


def test_refined_hypotheses_are_nearer(objects):
    """An oracle for a refiner: hypotheses that can be mended are, those that it leaves alone stay."""
    drawn: dict[str, torch.Tensor] = {}
    for name, updates in (("as drawn", 0), ("refined", 3)):
        sampler = PairSampler(objects[:1], "cpu", 1)
        scenes: list = []
        compose, inputs = sampler.composer.draw, sampler._inputs
        sampler.composer.draw = lambda n, f=compose, s=scenes: s.append(f(n)) or s[0]
        guesses: list[torch.Tensor] = []
        sampler._inputs = lambda scene, guess, owner, role, f=inputs, g=guesses: (
            g.append(guess) or f(scene, guess, owner, role)
        )

        def oracle(rendered, observed, scenes=scenes, guesses=guesses, sampler=sampler):
            guess = guesses[-1]
            truth = scenes[0].T_cam_obj.repeat_interleave(12, 0)
            v = so3.log(guess[:, :3, :3] @ truth[:, :3, :3].mT) / ROT_NORMALIZER
            mendable = (v.abs().amax(1, keepdim=True) < 0.9).float()
            trans = (truth[:, :3, 3] - guess[:, :3, 3]) / (sampler.diameter[0] / 2)
            return trans * mendable, torch.atanh(v.clamp(-0.9, 0.9)) * mendable

        drawn[name] = sampler.scorer_batch(2, 12, oracle if updates else None).error
    before, after = drawn["as drawn"], drawn["refined"]
    mended = (after < 1e-3) & (before > 1e-3)
    assert mended.float().mean() > 0.2
    assert (after[~mended] - before[~mended]).abs().max() < 1e-4


def test_scorer_errors_are_up_to_symmetry(objects):
    batch = PairSampler(objects[1:], "cpu", 1).scorer_batch(2, 12)
    assert batch.error.shape == (2, 12)
    assert batch.error.min() < 0.05
    assert batch.error.max() > 0.1


def test_ranking_loss_prefers_the_right_order():
    error = torch.tensor([[0.0, 0.1, 0.5]])
    weight = torch.ones(1)
    good, bad = (ranking_loss(torch.tensor([s]), error, weight) for s in ([3.0, 0.0, -3.0], [-3.0, 0.0, 3.0]))
    assert good < 0.1 < bad
    ties = torch.tensor([[0.0, 0.001, 0.002]])
    assert ranking_loss(torch.tensor([[0.0, 5.0, 9.0]]), ties, weight) == 0


def test_logarithm_inverts_the_exponential():
    v = torch.randn(50, 3, dtype=torch.float64)
    v = v / v.norm(dim=1, keepdim=True) * torch.linspace(1e-6, 3.0, 50, dtype=torch.float64)[:, None]
    torch.testing.assert_close(so3.log(so3.exp(v)), v, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("role", ["refiner", "first_pass", "scorer"])
def test_training_writes_weights_and_resumes_from_them_alone(role, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "rfdetr_foundationpose")
    StepClock(monkeypatch, train_pose, train_pose._Training, "_step", 0.1)
    settings = TrainSettings(
        role, tmp_path, 0.01, 1.0, 0.125, batch=4, hypotheses=4, objects=16, workers=0, refresh=0.5, device="cpu"
    )
    metrics = train(settings)
    assert metrics["step"] == 10  # 0.6 s are looked for at every fifth step
    assert np.isfinite(metrics["loss"])
    load = checkpoints.load_scorer if role == "scorer" else checkpoints.load_refiner
    network, weights = load(tmp_path / f"{role}.safetensors")
    assert network.width == 0.125
    assert network.crop_size == (80 if role == "first_pass" else 160)
    assert "generated pairs" in weights.description
    again = train(replace(settings, minutes=0.03))
    assert again["pairs"] == metrics["pairs"] + 10 * 4
    assert again["minutes"] == pytest.approx(2 / 60)
    assert "resumed" in caplog.text
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []
    wide = train(replace(settings, out=tmp_path / "wide", width=0.25, start=tmp_path / f"{role}.safetensors"))
    assert wide["pairs"] == wide["step"] * 4
    with pytest.raises(ValueError, match=r"has width 0.125, the training 0.5"):
        train(replace(settings, width=0.5))
