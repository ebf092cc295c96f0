"""`Iterate` with batch statistics, random numbers, masks and untied updates."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.layers import Iterate
from keras_iterconv.models.deep_thinking_net import SequenceConvolution
from keras_iterconv.stop import ReadoutDivergence, StablePrediction
from keras_iterconv.unrolling import Status
from tests.support.comparisons import assert_near
from tests.support.iterated_updates import CASES, Attention, GRUUpdate, _scaled

MOMENTUM = 0.9


def normalized(dtype="float64"):
    return keras.Sequential(
        [
            keras.layers.Dense(4, activation="tanh", dtype=dtype),
            keras.layers.BatchNormalization(momentum=MOMENTUM, dtype=dtype),
            keras.layers.Rescaling(0.5, dtype=dtype),
        ]
    )


@pytest.mark.parametrize("stop", [None, 0.6])
@pytest.mark.parametrize("tied", [True, False])
def test_batch_statistics_are_those_of_a_python_loop(stop, tied):
    x = tf.constant(_scaled(6, 4), tf.float64)
    layer = Iterate(normalized(), 5, stop, tied=tied, dtype="float64")
    layer(x)
    copies = [layer.update, *layer.update_copies]
    twins = [keras.models.clone_model(copy) for copy in copies]
    for twin, copy in zip(twins, copies, strict=True):
        twin.set_weights(copy.get_weights())
    upstream = np.random.default_rng(3).normal(size=x.shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        end = layer(x, training=True, return_depth=True)
        loss = tf.reduce_sum(upstream * end.state)
    weights = [w for copy in copies for w in copy.trainable_variables]
    found = tape.gradient(loss, [x, *weights])
    if stop is not None:
        assert len(set(end.depth.numpy())) > 1

    def step(state, k):
        return twins[0 if tied else k](state, training=True)

    with tf.GradientTape() as tape:
        tape.watch(x)
        state = x
        for k in range(int(max(end.depth))):
            moved = tf.constant((end.depth.numpy() > k)[:, None])
            state = tf.where(moved, step(state, k), state)
        loss = tf.reduce_sum(upstream * state)
    twin_weights = [w for twin in twins for w in twin.trainable_variables]
    expected = tape.gradient(loss, [x, *twin_weights], unconnected_gradients="zero")
    np.testing.assert_allclose(end.state, state, rtol=1e-12)
    assert_near(found, expected, 1e-10)
    for twin, copy in zip(twins, copies, strict=True):
        for a, b in zip(copy.non_trainable_variables, twin.non_trainable_variables, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_evaluation_uses_the_moving_statistics_and_compacts():
    x = _scaled(6, 4)
    layer = Iterate(normalized("float32"), 30, 1e-3)
    whole = layer(x, return_depth=True)
    assert len(set(whole.depth.numpy())) > 1
    for n in range(6):
        assert layer(x[n : n + 1], return_depth=True).depth[0] == whole.depth[n]


def dropping(rate=0.5):
    return keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(rate, seed=5)])


@pytest.mark.parametrize("stop", [None, 0.5])
def test_dropout_differs_from_update_to_update_and_repeats_with_the_seed(stop):
    x = _scaled(6, 4)
    keras.utils.set_random_seed(2)
    layer = Iterate(dropping(), 4, stop)
    layer(x)
    generator = [v for v in layer.variables if "seed" in v.path]
    start = generator[0].numpy()
    first = layer(x, training=True)
    second = layer(x, training=True)
    assert np.abs(first - second).max() > 0
    generator[0].assign(start)
    np.testing.assert_array_equal(layer(x, training=True), first)


def test_the_masks_of_dropout_differ_between_updates():
    layer = Iterate(keras.layers.Dropout(0.5, seed=1), 2)
    x = np.ones((1, 4000), np.float32)
    kept = (layer(x, training=True).numpy() > 0).mean()
    # Equal masks would keep a half.
    assert abs(kept - 0.25) < 0.04


@pytest.mark.parametrize("gradient", ["unroll", "recompute"])
def test_the_backward_pass_draws_the_same_numbers(gradient):
    x = tf.constant(_scaled(6, 4), tf.float64)
    layer = Iterate(
        keras.layers.GaussianNoise(0.3, seed=3, dtype="float64"),
        3,
        gradient=gradient,
        dtype="float64",
    )
    squares = Iterate(SquaredNoise(dtype="float64"), 3, gradient=gradient, dtype="float64")
    for block in (layer, squares):
        block(x)
        seeds = [v for v in block.variables if "seed" in v.path]
        start = [v.numpy() for v in seeds]

        def run(x):
            for v, value in zip(seeds, start, strict=True):  # noqa: B023
                v.assign(value)
            return tf.reduce_sum(block(x, training=True) ** 2)  # noqa: B023

        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = run(x)
        found = tape.gradient(loss, x)
        direction = np.random.default_rng(1).normal(size=x.shape)
        step = 1e-6
        difference = (run(x + step * direction) - run(x - step * direction)) / (2 * step)
        np.testing.assert_allclose(tf.reduce_sum(found * direction), difference, rtol=1e-6)


@keras.saving.register_keras_serializable("test_iterate_batches")
class SquaredNoise(keras.layers.Layer):
    """The noise enters the derivative."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.noise = keras.layers.GaussianNoise(0.3, seed=3, dtype=self.dtype_policy)

    def call(self, state):
        return 0.5 * state * self.noise(state)


@pytest.mark.parametrize("stop", [None, 0.05])
def test_masked_positions_keep_their_state_and_count_in_no_norm(stop):
    keras.utils.set_random_seed(1)
    layer = Iterate(Attention(), 8, stop)
    x = _scaled(4, 7, 4)
    lengths = [7, 3, 5, 1]
    padded = x.copy()
    for n, length in enumerate(lengths):
        padded[n, length:] = 99.0
    mask = np.arange(7)[None] < np.array(lengths)[:, None]
    layer(x)
    end = layer(padded, mask=mask, return_depth=True)
    for n, length in enumerate(lengths):
        alone = layer(x[n : n + 1, :length], return_depth=True)
        assert alone.depth[0] == end.depth[n]
        np.testing.assert_allclose(end.state[n, :length], alone.state[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(end.state[n, length:], padded[n, length:])
        assert end.status[n] == alone.status[0]


@pytest.mark.parametrize("rule", [StablePrediction, ReadoutDivergence])
def test_masked_positions_count_in_no_readout(rule):
    """The readout joins neighbours, so that padding would change its outputs."""
    keras.utils.set_random_seed(4)
    readout = keras.Sequential([SequenceConvolution(3, 3, padding="same")])
    threshold = 2 if rule is StablePrediction else 1e-4
    layer = Iterate(Attention(), 12, rule(readout, threshold))
    x = 4 * _scaled(4, 7, 4)
    lengths = [7, 3, 5, 1]
    mask = np.arange(7)[None] < np.array(lengths)[:, None]
    layer(x)
    padded = np.where(mask[..., None], x, 50.0).astype(np.float32)
    end = layer(padded, mask=mask, return_depth=True)
    alone = [layer(x[n : n + 1, :length], return_depth=True) for n, length in enumerate(lengths)]
    np.testing.assert_array_equal(end.depth, [int(each.depth[0]) for each in alone])
    np.testing.assert_array_equal(end.status, [int(each.status[0]) for each in alone])


def test_a_state_without_positions_is_not_masked():
    """A vector beside a sequence of a length that is not known when the graph is made."""

    @keras.saving.register_keras_serializable("test_iterate_batches")
    class Pair(keras.layers.Layer):
        supports_masking = True

        def call(self, state):
            return {"word": 0.5 * state["word"], "whole": state["whole"] + 1}

    layer = Iterate(Pair(), 3, initial_state=Start())
    tokens = keras.Input((None, 4))
    model = keras.Model(tokens, layer(keras.layers.Masking(0.0)(tokens)))
    x = np.ones((2, 5, 4), np.float32)
    x[1, 2:] = 0
    found = model(x)
    np.testing.assert_array_equal(found["whole"], np.full((2, 3), 3))
    np.testing.assert_allclose(found["word"][0], 0.125)


@keras.saving.register_keras_serializable("test_iterate_batches")
class Start(keras.layers.Layer):
    supports_masking = True

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def call(self, inputs):
        return {"word": inputs, "whole": keras.ops.zeros_like(inputs[:, 0, :3])}


def test_masks_pass_through_a_model():
    tokens = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    state = Iterate(Attention(), 5)(embedded)
    model = keras.Model(tokens, keras.layers.GlobalAveragePooling1D()(state))
    found = model.predict(np.array([[3, 4, 5, 0, 0], [1, 2, 0, 0, 0]]), verbose=0)
    np.testing.assert_allclose(
        found[:1], model.predict(np.array([[3, 4, 5]]), verbose=0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        found[1:], model.predict(np.array([[1, 2]]), verbose=0), rtol=1e-4, atol=1e-6
    )


def test_untied_updates_have_weights_of_their_own():
    x = _scaled(5, 4)
    layer = Iterate(GRUUpdate(), 3, tied=False)
    end = layer(x)
    state = tf.constant(x)
    updates = [layer.update, *layer.update_copies]
    for update in updates:
        state = update(state, x)
    np.testing.assert_allclose(end, state, rtol=1e-5)
    first = [update.trainable_variables[0].numpy() for update in updates]
    assert np.abs(first[0] - first[1]).max() > 0
    assert layer.largest_unroll == 3
    with pytest.raises(ValueError, match="must be at most 3"):
        layer.max_unroll = 4


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_the_state_is_float32_in_mixed_precision(policy):
    x = CASES["GRU"].inputs
    full = CASES["GRU"].make()
    full(x)
    half = Iterate(GRUUpdate(dtype=policy), 14, full.stop, initial_state="zeros", dtype=policy)
    half(x)
    half.set_weights(full.get_weights())
    end = half(x, return_depth=True)
    assert end.state.dtype == half.compute_dtype
    assert half.make_initial_state(tf.constant(x)).dtype == tf.float32
    np.testing.assert_allclose(np.asarray(end.state, np.float32), full(x), atol=0.1)


def test_an_empty_batch_has_no_depth():
    layer = CASES["GRU"].make()
    layer(CASES["GRU"].inputs)
    end = layer(np.zeros((0, 4), np.float32), return_depth=True)
    assert end.state.shape == (0, 4)
    assert end.depth.shape == (0,)


def test_an_infinite_state_is_not_finite_at_a_fixed_depth():
    layer = Iterate(keras.layers.Rescaling(1e30), 4)
    end = layer(np.ones((2, 3), np.float32), return_depth=True)
    np.testing.assert_array_equal(end.status, Status.NOT_FINITE)
