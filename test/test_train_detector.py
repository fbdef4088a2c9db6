"""``train detector`` as a whole: going on, stopping, budget, results, and what it starts from."""

from __future__ import annotations

import json
import logging
import os
import signal

import pytest
import torch

from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.train import train_detector
from rfdetr_foundationpose.train.detector_data import ScenePool
from rfdetr_foundationpose.train.detector_report import read_log
from rfdetr_foundationpose.train.detector_start import load_start
from rfdetr_foundationpose.train.detector_trainer import MEAN, STD, Trainer
from rfdetr_foundationpose.train.progress import TooFewSteps
from rfdetr_foundationpose.train.train_detector import train
from support.clocks import StepClock
from support.detector_training import TINY, pool, quiet, settings


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> StepClock:
    """Steps take 0.1 s, all else none."""
    return StepClock(monkeypatch, train_detector, Trainer, "train_step", 0.1)


@pytest.fixture
def said(caplog):
    """What was logged since it was last asked for."""
    caplog.set_level(logging.INFO, "rfdetr_foundationpose")

    def since() -> str:
        text = caplog.text
        caplog.clear()
        return text

    return since


def test_train_goes_on_says_when_nothing_is_left_and_shows_what_it_did(tmp_path, said):
    objects = demo_objects()[:2]
    metrics = train(settings(tmp_path), objects, quiet())
    assert metrics["scenes"] == 2 and 0 <= metrics["recall"] <= 1 and 0 <= metrics["map_50"] <= 1
    assert set(metrics["by_class"]) == {o.name for o in objects}
    assert "starting from random weights" in said()
    for name in ("detector.safetensors", "results.png", "samples.png", "metrics.json", "detector.train.pt"):
        assert (tmp_path / name).stat().st_size > 100, name
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == metrics["steps"]

    written = (tmp_path / "detector.safetensors").read_bytes()
    assert train(settings(tmp_path), objects, quiet())["steps"] == metrics["steps"]
    text = said()
    assert "nothing left to do" in text and "raise --minutes" in text
    assert (tmp_path / "detector.safetensors").read_bytes() == written

    more = train(settings(tmp_path, minutes=metrics["minutes"] + 0.01), objects, quiet())
    assert "going on at step" in said() and more["steps"] > metrics["steps"]
    with pytest.raises(ValueError, match="another hidden_dim"):
        train(settings(tmp_path, config={**TINY, "hidden_dim": 128}), objects, quiet())
    (tmp_path / "detector.train.pt").write_bytes(b"no state")
    with pytest.raises(ValueError, match=r"is no training state .* remove"):
        train(settings(tmp_path), objects, quiet())


def test_budget_is_of_training_alone(tmp_path, monkeypatch, clock):
    """Steps of 0.1 s and fetches of scenes of 10 s."""
    fill = ScenePool.fill

    def slow_fill(self, count):
        clock.now += 10
        fill(self, count)

    monkeypatch.setattr(ScenePool, "fill", slow_fill)
    metrics = train(settings(tmp_path), demo_objects()[:2], quiet())
    # The first step, which compiles, is left out.
    assert metrics["steps"] == 13 and metrics["minutes"] == pytest.approx(0.02)
    assert clock.now > 20
    log = read_log(tmp_path / "detector.jsonl")
    assert any("interim" in line for line in log) and "evaluation" in log[-1]


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path, monkeypatch, said):
    objects = demo_objects()[:2]
    step = Trainer.train_step

    def interrupted(self, *arguments):
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    assert train(settings(tmp_path, minutes=5.0, least_steps=100), objects, quiet()) is None
    assert "interrupted at step 5: no weights yet" in said()
    assert not (tmp_path / "detector.safetensors").exists() and (tmp_path / "detector.train.pt").is_file()
    spent = torch.load(tmp_path / "detector.train.pt", weights_only=True)["spent"] / 60
    metrics = train(settings(tmp_path, minutes=spent + 0.01), objects, quiet())
    assert "going on at step 5" in said() and metrics["steps"] > 5


def test_too_few_steps_leave_no_weights(tmp_path):
    with pytest.raises(TooFewSteps, match=r"raise --minutes \(now 0\.02\)"):
        train(settings(tmp_path, least_steps=10_000), demo_objects()[:2], quiet())
    assert not (tmp_path / "detector.safetensors").exists()


def test_two_objects_of_one_label_are_refused(tmp_path):
    with pytest.raises(ValueError, match="label cup is used by several"):
        train(settings(tmp_path), demo_objects()[:2], quiet(), labels=["cup", "cup"])


def test_start_keeps_the_rows_of_known_classes_and_gives_new_ones_what_the_known_share(tmp_path):
    names = ["mug", "can", "drill"]
    before = Trainer(settings(tmp_path, seed=3), names)
    with torch.no_grad():
        before.average.class_embed.weight.copy_(torch.randn(4, 64))
    before.export(tmp_path / "own.safetensors")
    start = load_start(str(tmp_path / "own.safetensors"), "nano")
    assert start.config == {k: v for k, v in TINY.items() if k != "num_windows"} | {"num_windows": 1}
    after = Trainer(settings(tmp_path, config=None, start=str(tmp_path / "own.safetensors")), ["tea", "mug"])
    old, new = before.average.class_embed.weight, after.network.class_embed.weight
    torch.testing.assert_close(new[1], old[0], rtol=2e-3, atol=2e-3)
    assert (new[0] - old[:3].mean(0)).abs().max() < 0.6 and not torch.equal(new[0], new[1])
    torch.testing.assert_close(
        after.network.class_embed.bias[0], before.average.class_embed.bias[:3].mean(), rtol=2e-3, atol=2e-3
    )
    assert after.size == 96 and after.origin.endswith("new classes: tea")


def test_start_at_another_resolution_resamples_positions(tmp_path):
    names = [o.name for o in demo_objects()]
    before = Trainer(settings(tmp_path, seed=3), names)
    before.export(tmp_path / "own.safetensors")
    after = Trainer(settings(tmp_path, config=None, resolution=160, start=str(tmp_path / "own.safetensors")), names)
    key = "backbone.0.encoder.encoder.embeddings.position_embeddings"
    old, new = before.average.state_dict()[key], after.network.state_dict()[key]
    assert after.size == 160 and new.shape[1] == 1 + 10 * 10
    torch.testing.assert_close(new[0, 1:].mean(0), old[0, 1:].mean(0), atol=0.05, rtol=0)
    trained = after.train_step(pool(2).draw(2, 160, torch.tensor(MEAN), torch.tensor(STD)), 1e-4)
    assert torch.isfinite(trained["class"])
