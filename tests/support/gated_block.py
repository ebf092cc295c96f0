"""A block whose update is not an Euler step, as `docs/extending.md` shows it."""

import dataclasses

import keras
import tensorflow as tf

from keras_iterconv.layers import IteratedBlock
from keras_iterconv.unrolling import Update


@dataclasses.dataclass(frozen=True)
class GatedUpdate(Update):
    """Move each unit towards a new value, as far as its gate is open."""

    def step(self, state, k, weights, drives):
        gate, value = (tf.matmul(state, tf.cast(weight, state.dtype)) for weight in weights)
        drive = tf.cast(drives[0], state.dtype)
        change = tf.sigmoid(gate + drive) * (tf.tanh(value + drive) - state)
        return state + change, change


@keras.saving.register_keras_serializable("gated_block")
class GatedBlock(IteratedBlock):
    """A block of tied weights that repeats a `GatedUpdate`."""

    def build(self, input_shape):
        self.check_inputs(input_shape)
        units, glorot = input_shape[-1], keras.initializers.GlorotUniform
        self.gate = self.add_update_weight("gate", (units, units), glorot)
        self.value = self.add_update_weight("value", (units, units), glorot)
        self.built = True

    def build_update(self, inputs):
        return GatedUpdate().bind([self.gate.value, self.value.value], (inputs,))
