"""ONNX files of blocks of one's own, whose updates have drives of several kinds."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.layers import IteratedBlock
from keras_iterconv.unrolling import Update

UNITS = 4
IMAGES = np.random.default_rng(0).normal(size=(3, 2, 2, UNITS)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Relax(Update):
    """Move the state towards tanh of the sum of all drives."""

    make_drives: Callable | None = None

    def step(self, state, k, weights, drives):
        change = 0.5 * (tf.tanh(tf.add_n([state @ weights[0], *drives])) - state)
        return state + change, change


def twice(inputs, weight):
    return (2 * inputs @ weight,)


def two(inputs, weight):
    return (inputs, inputs @ weight)


class RelaxedBlock(IteratedBlock):
    """A block whose argument `drives` says how the drives come about."""

    def __init__(self, drives, **settings):
        super().__init__(**settings)
        self.drives = drives

    def build(self, input_shape):
        self.check_inputs(input_shape)
        normal = keras.initializers.RandomNormal
        self.weight = self.add_update_weight("weight", (UNITS, UNITS), normal)
        self.built = True

    def build_update(self, inputs):
        weight = tf.convert_to_tensor(self.weight)
        return {
            "none": lambda: Relax().bind((weight,)),
            "inputs": lambda: Relax().bind((weight,), (inputs,)),
            "made": lambda: Relax(twice).bind((weight,), drive_inputs=(inputs, weight)),
            "computed": lambda: Relax().bind((weight,), (2 * inputs,)),
            "computed inputs": lambda: Relax(twice).bind(
                (weight,), drive_inputs=(2 * inputs, weight)
            ),
            "two": lambda: Relax().bind((weight,), (inputs, inputs)),
            "two made": lambda: Relax(two).bind((weight,), drive_inputs=(inputs, weight)),
        }[self.drives]()


def make_model(drives):
    image = keras.Input(IMAGES.shape[1:])
    state = keras.layers.GlobalAveragePooling2D()(image)
    state = RelaxedBlock(drives, max_unroll=4)(state)
    return ki.IterativeModel(image, keras.layers.Dense(3)(state))


def converted(model):
    return to_onnx(model, ki.Preprocessing((0.0,) * UNITS, (1.0,) * UNITS), {})


@pytest.mark.parametrize("drives", ["none", "inputs", "made"])
def test_a_file_answers_as_keras(drives):
    keras.utils.set_random_seed(0)
    model = make_model(drives)
    session = onnxruntime.InferenceSession(
        converted(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(["logits"], {"image": IMAGES})
    np.testing.assert_allclose(logits, model(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("drives", ["computed", "computed inputs", "two", "two made"])
def test_drives_that_would_become_constants_are_refused(drives):
    with pytest.raises(ValueError, match=r"must pass on its inputs unchanged.*Received: "):
        converted(make_model(drives))
