"""A net of stages whose gradients can be coupled, and data for it."""

import keras
import numpy as np
import tensorflow as tf

import keras_iterconv as ki

LOSS = keras.losses.SparseCategoricalCrossentropy
IMAGE = (5, 4, 2)


def make_data(samples=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, *IMAGE)).astype(np.float32), rng.integers(0, 3, samples)


class FrozenNormStage(ki.ResidualStage):
    """Normalises by its moving statistics in training too, so that samples do not mix.

    A functional model hands its own `training` down, over what a layer was called with.
    """

    def call(self, inputs, training=None, **kwargs):
        return super().call(inputs, training=False, **kwargs)


def make_model(model_class=ki.IterativeModel, shared=False, frozen_norm=False):
    """Return a net of two stages of one width, and of layers that are no stages."""
    make = FrozenNormStage if frozen_norm else ki.ResidualStage
    inputs = keras.Input(IMAGE)
    state = make(2, 3, name="first", shared_initialization=shared)(inputs)
    state = keras.layers.Conv2D(2, 2, name="transition")(state)
    state = make(2, 2, name="second", shared_initialization=shared)(state)
    state = keras.layers.GlobalAveragePooling2D()(state)
    return model_class(inputs, keras.layers.Dense(3, name="head")(state))


def sgd(**settings):
    return keras.optimizers.SGD(**{"learning_rate": 0.1, "momentum": 0.9, **settings})


def variables_and_gradients(count=5, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    variables = [tf.Variable(rng.normal(size=(3, 2)), dtype=dtype) for _ in range(count)]
    return variables, [tf.constant(rng.normal(size=(3, 2)), dtype) for _ in range(count)]
