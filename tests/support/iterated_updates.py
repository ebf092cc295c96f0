"""Updates of all kinds for `Iterate`, as users write them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_iterconv.layers import Iterate
from keras_iterconv.stop import Halting, ReadoutDivergence, StablePrediction, UpdateNorm

MAX_UNROLL = 14


class UpdateCase(NamedTuple):
    """An update to iterate.

    Attributes:
        make: A function from a dtype and the arguments of `Iterate` to a new layer.
        inputs: The inputs, float32 `[N, ...]`, of samples that stop at different depths.
    """

    make: Callable[..., Iterate]
    inputs: np.ndarray


def _scaled(*shape: int) -> np.ndarray:
    """Return samples of very different sizes."""
    rng = np.random.default_rng(4)
    sizes = np.geomspace(0.01, 4, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (sizes * rng.normal(size=shape)).astype(np.float32)


def depthwise(dtype: str) -> keras.Model:
    """Return a functional model of state and inputs."""
    state, inputs = keras.Input((5, 4, 3), dtype=dtype), keras.Input((5, 4, 3), dtype=dtype)
    moved = keras.layers.DepthwiseConv2D(3, padding="same", dtype=dtype)(state)
    added = keras.layers.Add(dtype=dtype)([moved, inputs])
    change = keras.layers.Activation("tanh", dtype=dtype)(added)
    return keras.Model([state, inputs], 0.6 * state + 0.3 * change)


@keras.saving.register_keras_serializable("iterated_updates")
class Attention(keras.layers.Layer):
    """A pre-norm attention block that pulls the state towards zero."""

    supports_masking = True

    def build(self, shape):
        self.norm = keras.layers.LayerNormalization(dtype=self.dtype_policy)
        self.attention = keras.layers.MultiHeadAttention(2, 3, dtype=self.dtype_policy)
        self.norm.build(shape)
        self.attention.build(shape, shape)
        self.built = True

    def call(self, state):
        normal = self.norm(state)
        return 0.5 * state + 0.02 * self.attention(normal, normal)


@keras.saving.register_keras_serializable("iterated_updates")
class GRUUpdate(keras.layers.Layer):
    """One step of a recurrent cell with the same input at each update."""

    def build(self, shape):
        self.cell = keras.layers.GRUCell(shape[-1], dtype=self.dtype_policy)
        self.cell.build(shape)
        self.built = True

    def call(self, state, inputs):
        return self.cell(inputs, [state])[0]


@keras.saving.register_keras_serializable("iterated_updates")
class TwoStates(keras.layers.Layer):
    """A latent state that reads the question and an answer, as that of a tiny recursive model."""

    def build(self, shapes):
        size = shapes["answer"][-1]
        self.think = keras.layers.Dense(size, activation="tanh", dtype=self.dtype_policy)
        self.speak = keras.layers.Dense(size, use_bias=False, dtype=self.dtype_policy)
        for layer in (self.think, self.speak):
            layer.build((None, size))
        self.built = True

    def call(self, state, inputs):
        latent = self.think(0.4 * (inputs + state["answer"] + state["latent"]))
        return {"answer": 0.5 * state["answer"] + 0.2 * self.speak(latent), "latent": latent}


@keras.saving.register_keras_serializable("iterated_updates")
class Question(keras.layers.Layer):
    """The initial state of `TwoStates`."""

    def call(self, inputs):
        return {"answer": 0 * inputs, "latent": 0.1 * inputs}


def _layer(update: Callable, stop: Callable, **fixed: Any) -> Callable[..., Iterate]:
    def make(dtype: str = "float32", **options: Any) -> Iterate:
        settings = {"max_unroll": MAX_UNROLL, "stop": stop(dtype), **fixed, **options}
        if callable(start := settings.get("initial_state")):
            settings["initial_state"] = start(dtype)
        return Iterate(update(dtype), dtype=dtype, **settings)

    return make


CASES = {
    "depthwise": UpdateCase(_layer(depthwise, lambda dtype: 0.2), _scaled(5, 5, 4, 3)),
    "attention": UpdateCase(
        _layer(lambda dtype: Attention(dtype=dtype), lambda dtype: 0.1), _scaled(5, 6, 4)
    ),
    "GRU": UpdateCase(
        _layer(
            lambda dtype: GRUUpdate(dtype=dtype),
            lambda dtype: UpdateNorm(0.05, relative=True),
            initial_state="zeros",
        ),
        _scaled(5, 4),
    ),
    "two states": UpdateCase(
        _layer(
            lambda dtype: TwoStates(dtype=dtype),
            lambda dtype: 0.01,
            initial_state=lambda dtype: Question(dtype=dtype),
        ),
        _scaled(5, 4),
    ),
    "halting": UpdateCase(
        _layer(
            lambda dtype: keras.layers.Dense(4, activation="tanh", dtype=dtype),
            lambda dtype: Halting(keras.layers.Dense(1, dtype=dtype), ponder=0.01),
        ),
        _scaled(5, 4),
    ),
    "prediction": UpdateCase(
        _layer(
            lambda dtype: GRUUpdate(dtype=dtype),
            lambda dtype: StablePrediction(keras.layers.Dense(7, dtype=dtype), 3),
        ),
        _scaled(5, 4),
    ),
    "divergence": UpdateCase(
        _layer(
            lambda dtype: GRUUpdate(dtype=dtype),
            lambda dtype: ReadoutDivergence(keras.layers.Dense(7, dtype=dtype), 1e-4),
        ),
        _scaled(5, 4),
    ),
}
