"""Workers that would not train the same thing are refused, on a strategy that is made up."""

import contextlib

import keras
import numpy as np
import pytest

from iterconv.command_errors import UserError
from training import worker_checks
from training.epoch_state import EpochState
from training.worker_checks import check_same_run, check_same_settings


class Workers:
    """Several workers that make the same calls one after the other, as if at the same time."""

    def __init__(self, monkeypatch, count):
        monkeypatch.setattr(worker_checks, "count_workers", lambda strategy: count)
        self.values, self.total = [], None

    def reduce(self, how, value, axis):
        assert (how, axis) == ("SUM", None)
        self.values.append(int(value))
        return self.values[-1] if self.total is None else self.total

    def agree(self, *checks):
        """Run the check of each worker; return whether one of them was refused, and how."""
        self.values, self.total = [], None
        for check in checks:
            with contextlib.suppress(UserError):
                check()
        self.total = sum(self.values)
        refused = []
        for check in checks:
            try:
                check()
            except UserError as error:
                refused.append(str(error))
        return refused


@pytest.fixture
def workers(monkeypatch):
    return Workers(monkeypatch, 2)


def test_other_settings_are_refused(workers):
    same = {"settings": {"epochs": 3}, "versions": ("keras", "3.15")}
    other = {**same, "settings": {"epochs": 4}}
    one, two = (lambda described=d: check_same_settings(workers, described) for d in (same, other))
    assert workers.agree(one, one) == []
    refused = workers.agree(one, two)
    assert "the same command, the same data" in refused[0]


def net(seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_other_files_of_a_run_are_refused(workers):
    model, values = net(), [np.arange(3.0)]
    state = EpochState(5, 1.0, values)

    def check(model=model, epochs=2, state=state):
        return lambda: check_same_run(workers, model, epochs, state, "runs/two")

    # The seconds that a part of an epoch took are no part of the run.
    assert workers.agree(check(), check(model=net(), state=state._replace(seconds=9.0))) == []
    moved = net()
    moved.optimizer.iterations.assign(7)
    for other in (
        check(epochs=3),
        check(state=None),
        check(state=state._replace(steps=6)),
        check(state=state._replace(values=[np.array([0.0, 1.0, 2.5])])),
        check(model=net(seed=1)),
        check(model=moved),
    ):
        refused = workers.agree(check(), other)
        assert "different files in runs/two: copy this folder from worker 0" in refused[0]


def test_one_worker_compares_nothing(monkeypatch):
    alone = Workers(monkeypatch, 1)
    check_same_settings(alone, {"epochs": 1})
    check_same_run(alone, net(), 1, None, "runs/one")
    assert alone.values == []
