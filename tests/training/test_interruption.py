"""A training ends by Ctrl-C, also where a library loses the exception."""

import contextlib
import signal

import keras
import numpy as np
import pytest

from training.interruption import Interruption


class Losing(keras.callbacks.Callback):
    """A callback in which Ctrl-C comes at a batch, and is lost."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_begin(self, batch, logs=None):
        self.batches.append(batch)
        if batch == 2:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def fit():
    """Return a function that trains over six batches, and returns the numbers of those begun."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    losing, interruption = Losing(), Interruption()

    def run():
        x = np.ones((6, 2), np.float32)
        with interruption.watching():
            model.fit(x, x[:, :1], batch_size=1, verbose=0, callbacks=[losing, interruption])

    return run, losing.batches


def test_an_interruption_that_is_lost_ends_the_batch(fit):
    run, batches = fit
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert batches == [0, 1, 2]


def test_a_process_that_ignores_ctrl_c_goes_on(fit):
    run, batches = fit
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert batches == list(range(6))
