"""A small net with a depth of its own for every sample, and images for it."""

import functools

import keras
import numpy as np
import pytest

import keras_iterconv as ki

CLASSES = 4


def make(max_unroll=12, threshold=0.03, second=None, tied=True):
    keras.utils.set_random_seed(3)
    settings = {
        "max_unroll": max_unroll,
        "threshold": threshold,
        "step_size": 0.5,
        "tied": tied,
    }
    inputs = keras.Input((5,))
    state = ki.NAISDense(6, name="first", **settings)(inputs)
    settings.update(second or {})
    state = ki.NAISDense(7, activation="tanh", name="second", **settings)(state)
    return ki.IterativeModel(inputs, keras.layers.Dense(CLASSES)(state), name="net")


@functools.cache
def answers(content):
    """Return the answers of the net at its own depth to the images of this content."""
    return np.argmax(make()(np.frombuffer(content, np.float32).reshape(-1, 5)), axis=1)


@pytest.fixture
def make_net():
    """Return a function that makes a net of two blocks, of the same weights each time.

    `second` are the settings in which the second block differs from the first.
    """
    return make


@pytest.fixture
def images():
    x = np.random.default_rng(0).normal(size=(40, 5))
    return (x * np.logspace(-2, 1, 40)[:, None]).astype(np.float32)


@pytest.fixture
def labels(images):
    """The answers at the net's own depth, but for some."""
    labels = answers(images.tobytes()).copy()
    labels[::5] = (labels[::5] + 1) % CLASSES
    return labels
