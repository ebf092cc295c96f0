"""What `Iterate` and its stopping rules refuse, before anything is built or traced."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.layers import Iterate
from keras_iterconv.stop import Halting, ReadoutDivergence, StablePrediction, UpdateNorm
from tests.support.iterated_updates import Question, TwoStates

X = np.ones((2, 4), np.float32)


def dense(units=4):
    return keras.layers.Dense(units)


@keras.saving.register_keras_serializable("test_iterate_arguments")
class ReturnsPair(keras.layers.Layer):
    def call(self, state):
        return state, state


@keras.saving.register_keras_serializable("test_iterate_arguments")
class ReturnsIntegers(keras.layers.Layer):
    def call(self, state):
        return keras.ops.cast(state, "int32")


class TakesThree(keras.layers.Layer):
    def call(self, state, inputs, more):
        return state


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Iterate("dense"), "`update` must be a Keras layer"),
        (lambda: Iterate(dense(), 0), "`max_unroll` must be an integer of at least 1"),
        (lambda: Iterate(dense(), 3, min_unroll=4), "`min_unroll` must be at most `max_unroll`"),
        (lambda: Iterate(dense(), stop=-1.0), "`threshold` must lie in"),
        (lambda: Iterate(dense(), gradient="frozen"), "gradient='frozen'"),
        (lambda: Iterate(dense(), initial_state="ones"), "initial_state='ones'"),
        (
            lambda: Iterate(dense(), 5, gradient="truncated", truncate=6),
            "`truncate` must be at most `max_unroll`, 5",
        ),
        (lambda: Iterate(dense(), 5, gradient="truncated"), "`truncate` must be a number"),
        (lambda: Iterate(dense(), 5, truncate=2), "`truncate` must be a number"),
        (lambda: StablePrediction(dense(), 2.5), "`threshold` must be an integer"),
        (lambda: StablePrediction("head"), "must be a Keras layer"),
        (lambda: Halting(dense(1), ponder=-1.0), "`ponder` must lie in"),
        (lambda: UpdateNorm("small"), "`threshold` must lie in"),
    ],
)
def test_bad_arguments_are_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Iterate(dense(5)),
            r"must return the structure, shapes and dtype of its state, \(None",
        ),
        (
            lambda: Iterate(ReturnsPair()),
            "must return the structure, shapes and dtype of its state",
        ),
        (lambda: Iterate(ReturnsIntegers()), "Received: .*int32"),
        (lambda: Iterate(TakesThree()), r"takes `\(state\)` or `\(state, inputs\)`"),
        (
            lambda: Iterate(dense(), stop=Halting(dense(2))),
            r"must return one logit for each sample, a tensor of the shape \(N, 1\)",
        ),
        (
            lambda: Iterate(dense(), stop=StablePrediction(dense(1))),
            "of at least two classes",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused_when_built(make, message):
    layer = make()
    with pytest.raises(ValueError, match=message) as error:
        layer(X)
    assert "\n" not in str(error.value)


def test_a_readout_without_weights_fits():
    layer = Iterate(dense(), stop=ReadoutDivergence(keras.layers.Flatten(), 0.1))
    assert layer(X).shape == X.shape


def test_a_structure_of_inputs_needs_a_layer_for_the_state():
    layer = Iterate(TwoStates())
    with pytest.raises(ValueError, match="needs inputs of one tensor") as error:
        layer({"answer": X, "latent": X})
    assert layer.name in str(error.value)


def test_a_model_of_too_many_inputs_is_refused():
    inputs = [keras.Input((4,)) for _ in range(3)]
    update = keras.Model(inputs, keras.layers.add(inputs))
    with pytest.raises(ValueError, match=r"a state of several tensors `initial_state` must be"):
        Iterate(update)(X)


def test_an_update_that_reads_what_it_changes_in_training_is_refused():
    layer = Iterate(keras.layers.SpectralNormalization(dense()), 3)
    with pytest.raises(ValueError, match="changes variables on which its outputs depend"):
        layer(X, training=True)


def test_the_depth_of_a_model_can_be_set():
    inputs = keras.Input((4,))
    state = Iterate(TwoStates(), 4, initial_state=Question(), name="thought")(inputs)
    model = ki.IterativeModel(inputs, keras.layers.Dense(3)(state["answer"]))
    assert ki.processing_depth(model) == 4
    ki.set_depth(model, max_unroll=30, threshold=1e-3)
    depths = ki.with_depth(model).predict(np.array([X[0], 5 * X[0]]), verbose=0)["depth"]
    assert 1 < depths.min() <= depths.max() < 30
    ki.set_depth(model, threshold=None, max_unroll=2)
    np.testing.assert_array_equal(ki.with_depth(model).predict(X, verbose=0)["depth"], 2)
