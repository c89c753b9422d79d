"""Stages and the fall of the learning rate."""

import itertools

import numpy as np
import pytest

from config import TrainingConfig
from errors import UserError
from schedule import Stage, learning_rate, plan_stages


def test_stages_take_one_value_or_one_each():
    staged = TrainingConfig(stages=(0.4, 1.0), epochs=(5,), learning_rate=(1e-3,))
    assert plan_stages(staged) == [Stage(0.4, 5, 1e-3), Stage(1.0, 5, pytest.approx(1e-4))]
    own = TrainingConfig(stages=(0.4, 1.0), epochs=(5, 2), learning_rate=(1e-3, 3e-4))
    assert plan_stages(own) == [Stage(0.4, 5, 1e-3), Stage(1.0, 2, 3e-4)]
    with pytest.raises(UserError, match="2 stages, 3 numbers of epochs"):
        plan_stages(TrainingConfig(stages=(0.4, 1.0), epochs=(1, 2, 3)))
    with pytest.raises(UserError, match="fractions"):
        plan_stages(TrainingConfig(stages=(0.4, 1.4)))


def test_the_sigmoid_schedule_is_the_resmax_authors():
    training, stage = TrainingConfig(schedule="sigmoid", final_learning_rate=1e-5), Stage(1.0, 70, 1e-3)
    for epoch in (0, 10, 35, 60, 69):
        published = 1 / (1 + np.exp(-13 * (35 - epoch) / 70)) * (1e-3 - 1e-5) + 1e-5
        assert learning_rate(training, stage, epoch) == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("schedule", ["sigmoid", "cosine", "constant"])
def test_schedules_fall_from_the_first_rate_to_the_last(schedule):
    training, stage = TrainingConfig(schedule=schedule, final_learning_rate=1e-5), Stage(1.0, 10, 1e-3)
    rates = [learning_rate(training, stage, epoch) for epoch in np.linspace(0, 10, 101)]
    assert rates[0] == pytest.approx(1e-3, rel=0.01)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))
    assert rates[-1] == pytest.approx(1e-3 if schedule == "constant" else 1e-5, rel=0.16)


def test_the_halving_schedule_halves_every_ten_epochs_down_to_the_last_rate():
    training, stage = TrainingConfig(schedule="halving", final_learning_rate=1e-4), Stage(1.0, 100, 3e-4)
    rates = [learning_rate(training, stage, epoch) for epoch in (0, 9, 10, 19, 20, 90)]
    assert rates == pytest.approx([3e-4, 3e-4, 1.5e-4, 1.5e-4, 1e-4, 1e-4])
