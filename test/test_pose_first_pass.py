"""The pruning schedule, and a registration whose first pass moves all hypotheses by small crops."""

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.config import ConfigError, PoseConfig, from_flat
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.pose import checkpoints
from rfdetr_foundationpose.pose.build import build_estimator
from rfdetr_foundationpose.pose.networks import CROP_SIZE, FIRST_PASS_CROP, RefineNet, ScoreNet
from rfdetr_foundationpose.pose.pruning import Pruning, asks_for_first_pass, pruning_schedule
from support.pose_scenes import object_of, oracle_estimator, prepared, random_pose, scene_of, textured_box

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def schedule(text, hypotheses=252, iterations=5, device=CPU, first_pass=False):
    return pruning_schedule(text, hypotheses, iterations, device, first_pass=first_pass)


def test_schedules():
    assert schedule("full") == Pruning((252,) * 5) == schedule("full", first_pass=True)
    assert schedule("64,16", iterations=4) == Pruning((64, 16, 16, 16))
    assert schedule("300,10", 45, 2) == Pruning((45, 10))
    for device in (CPU, CUDA):
        for first_pass in (False, True):
            found = schedule("auto", device=device, first_pass=first_pass)
            assert found.first_pass == first_pass
            assert len(found.kept) + found.first_pass == 5
            assert list(found.kept) == sorted(found.kept, reverse=True)
            assert found.kept[-1] >= 4
    for text in ("some", "16,64", "0", "252;64", "first", "first,", "first,16,64", "64,first,16"):
        with pytest.raises(ConfigError, match="register_schedule"):
            schedule(text, first_pass=True)


def test_its_refiner_is_made_only_where_it_is_used():
    asked = {
        text: [asks_for_first_pass(text, device) for device in (CPU, CUDA)] for text in ("auto", "full", "first,8", "8")
    }
    assert asked == {"auto": [True] * 2, "full": [False] * 2, "first,8": [True] * 2, "8": [False] * 2}
    assert [asks_for_first_pass("auto", device, official=True) for device in (CPU, CUDA)] == [True, False]
    assert asks_for_first_pass("first,8", CUDA, official=True)


def test_the_first_pass_is_one_of_the_iterations():
    assert schedule("first,63,33", first_pass=True) == Pruning((63, 33, 33, 33), first_pass=True)
    assert schedule("first,8", iterations=1, first_pass=True) == Pruning((8,), first_pass=True)
    assert schedule("auto", iterations=1, first_pass=True) == schedule("auto", iterations=1)
    assert str(schedule("first,63,33", iterations=3, first_pass=True)) == "first,63,33"
    with pytest.raises(ConfigError, match=r"first_pass\.safetensors"):
        schedule("first,63,33")


class Watched:
    """A runner, and the shapes that it was asked for."""

    def __init__(self, runner):
        self.runner, self.asked = runner, []

    def __getattr__(self, name):
        return getattr(self.runner, name)

    def __call__(self, rendered, observed):
        self.asked.append((*rendered.shape[:1], *observed.shape[:1], *rendered.shape[2:]))
        return self.runner(rendered, observed)


def test_all_hypotheses_are_moved_once_before_most_are_dropped():
    item = object_of(textured_box())
    T = random_pose(3)
    frame, mask = scene_of(item, T)
    config = PoseConfig(register_schedule="first,16,8", register_iterations=3)
    plain = oracle_estimator(item, T, PoseConfig(register_schedule="16,8", register_iterations=2))
    watched = []

    def wrap(networks):
        watched.extend([Watched(networks.first_pass), Watched(networks.register_refiner)])
        return watched

    estimator = oracle_estimator(item, T, config, wrap)
    found = estimator.register(prepared(estimator, frame), "thing", mask)
    first, refiner = watched
    total = len(estimator.rotations[0])
    assert first.asked == [(total, 1, FIRST_PASS_CROP, FIRST_PASS_CROP)]
    # After it every hypothesis has a translation, and so an observed crop, of its own.
    assert refiner.asked == [(n, n, CROP_SIZE, CROP_SIZE) for n in (16, 8)]
    np.testing.assert_allclose(found.T_cam_obj, item.from_centered(T), atol=2e-4)
    # Each of the hypotheses that are left began closer than without: the pass has turned all of them.
    without = plain.register(prepared(plain, frame), "thing", mask)

    def error(ranking):
        return (ranking.poses[:, :3, :3] - torch.tensor(T[:3, :3])).flatten(1).norm(dim=1).mean()

    assert error(found.ranking) < error(without.ranking)


def write_weights(folder, *, first_crop):
    torch.manual_seed(0)
    checkpoints.write(folder / "refiner.safetensors", RefineNet(0.125), "random")
    checkpoints.write(folder / "scorer.safetensors", ScoreNet(0.125), "random")
    checkpoints.write(folder / "first_pass.safetensors", RefineNet(0.125, first_crop), "random first pass")


def spec(tmp_path):
    path = tmp_path / "box.obj"
    textured_box().export(path)
    return ObjectSpec("box", path)


def test_weights_with_a_first_pass_of_their_own(tmp_path):
    write_weights(tmp_path, first_crop=FIRST_PASS_CROP)
    config = from_flat({"device": "cpu", "pose.weights": str(tmp_path), "pose.register_schedule": "first,8,4"})
    plain = from_flat({"device": "cpu", "pose.weights": str(tmp_path), "pose.register_schedule": "8,4"})
    estimator = build_estimator(config, [spec(tmp_path)])
    assert "random first pass" in estimator.weights
    assert "random first pass" not in build_estimator(plain, [spec(tmp_path)]).weights
    network, weights = checkpoints.load_first_pass(tmp_path / "first_pass.safetensors")
    assert network.crop_size == FIRST_PASS_CROP and weights.metadata["crop_size"] == "80"


def test_a_refiner_of_large_crops_is_no_first_pass(tmp_path):
    write_weights(tmp_path, first_crop=CROP_SIZE)
    config = from_flat({"device": "cpu", "pose.weights": str(tmp_path)})
    with pytest.raises(checkpoints.CheckpointError, match=r"crops of 160 pixels, a first pass has 80"):
        build_estimator(config, [spec(tmp_path)])
