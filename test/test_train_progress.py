"""What all trainings share: the estimate of the time left, the schedule, saving and stopping."""

import pytest
import torch
from rich.console import Console

from rfdetr_foundationpose.train.progress import (
    Every,
    TooFewSteps,
    TrainingProgress,
    check_budget,
    clock,
    learning_rate,
    save_state,
)


class Hands:
    """A clock that tests turn."""

    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


def test_time_left_is_known_from_the_start_and_follows_what_is_measured(capsys):
    hands = Hands()
    console = Console(force_terminal=False, width=200)
    progress = TrainingProgress({"render": 20.0, "train": 60.0, "evaluate": 10.0}, console, interval=30, now=hands)
    with progress:
        assert progress.remaining == pytest.approx(90)
        hands.time += 10
        progress.update(0.25)  # 40 s in all instead of 20
        assert progress.remaining == pytest.approx(30 + 70)
        progress.begin("train")
        progress.expect("evaluate", 30.0)
        assert progress.remaining == pytest.approx(90)
        hands.time += 30
        progress.update(0.5, "loss 3.2")
        assert progress.remaining == pytest.approx(60)
    said = capsys.readouterr().out
    assert "train 40%, 1:00 left  loss 3.2" in said
    with pytest.raises(KeyError):
        progress.begin("nothing")


def test_clock_reads_as_people_do():
    assert [clock(s) for s in (0, 4.2, 65, 3723)] == ["0:00", "0:05", "1:05", "1:02:03"]


def test_warm_up_fits_a_short_budget_and_is_300_steps_of_a_long_one():
    assert learning_rate(1.0, 0, 0.0) == pytest.approx(1 / 300)
    assert learning_rate(1.0, 9, 0.1) == pytest.approx(0.5 * (1 + torch.tensor(0.1 * torch.pi).cos().item()))
    assert learning_rate(1.0, 299, 0.01) > 0.99
    assert learning_rate(1.0, 5000, 1.0) == 1e-6


def test_too_few_steps_are_said_with_what_to_change():
    check_budget(0, 100.0, 0.5, 100, "")
    check_budget(90, 10.0, 1.0, 100, "")
    with pytest.raises(TooFewSteps, match=r"about 4 training steps fit .*a step takes 2 s.*raise --minutes"):
        check_budget(0, 9.0, 2.0, 100, "raise --minutes")


def test_state_is_whole_or_the_one_before(tmp_path):
    path = tmp_path / "x.train.pt"
    save_state(path, {"step": 1})

    class Unsaveable:
        def __reduce__(self):
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        save_state(path, {"step": Unsaveable()})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_every_is_due_once_a_period():
    hands = Hands()
    every = Every(60, hands)
    assert not every.due()
    hands.time += 61
    assert every.due() and not every.due()
