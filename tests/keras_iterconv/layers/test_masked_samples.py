"""A sample whose loss is masked out has no part in the gradients, whatever its state is."""

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import GRADIENTS

BAD = {1: np.nan, 3: np.inf}
# Far from the bound, so that the series of `implicit` is short.
CONTRACTING = {
    "dense": {"shift": 0.3, "step_size": 0.7},
    "conv": {"margin": 0.3, "center_margin": 0.4, "step_size": 0.7},
}
# `implicit` needs tied weights and tanh.
MODES = [("implicit", True, "tanh")] + [
    (gradient, tied, activation)
    for gradient in GRADIENTS
    if gradient != "implicit"
    for tied in (True, False)
    for activation in ("relu", "tanh")
]


def masked_gradients(layer, u, upstream, training, graph):
    """Return the gradients of the inputs and the weights; no loss where upstream is zero."""
    upstream = tf.constant(upstream, tf.float32)

    def differentiate(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            state = layer(inputs, training=training)
            loss = tf.reduce_sum(tf.where(upstream == 0, 0.0, upstream * state))
        return tape.gradient(loss, [inputs, *layer.trainable_variables])

    call = tf.function(differentiate) if graph else differentiate
    return [gradient.numpy() for gradient in call(tf.constant(u))]


def check(layer, u, training=True, graph=False):
    upstream = np.random.default_rng(7).normal(size=(*u.shape[:-1], layer.state_channels))
    upstream[list(BAD)] = 0
    others = [n for n in range(len(u)) if n not in BAD]
    expected = masked_gradients(layer, u[others], upstream[others], training, graph)
    with_bad = u.copy()
    for n, value in BAD.items():
        with_bad[n, ..., 1] = value
    of_inputs, *got = masked_gradients(layer, with_bad, upstream, training, graph)
    assert not of_inputs[list(BAD)].any()
    # The sums over the batch are made in another order.
    for a, b in zip([of_inputs[others], *got], expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())


@pytest.mark.parametrize("initial_state", ["input", "zeros"])
@pytest.mark.parametrize("threshold", [None, 0.05])
@pytest.mark.parametrize(("gradient", "tied", "activation"), MODES)
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_masked_sample_does_not_contribute_to_the_gradients(
    kind, gradient, tied, activation, threshold, initial_state, make_block, make_inputs
):
    settings = {"tied": tied, "activation": activation, "initial_state": initial_state}
    u = make_inputs(kind, samples=5)
    layer = make_block(
        kind,
        max_unroll=4,
        threshold=threshold,
        gradient=gradient,
        **settings,
        **CONTRACTING[kind],
    )
    layer.build(u.shape)
    check(layer, u)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("threshold", [None, 0.05])
def test_a_masked_sample_does_not_contribute_in_a_graph(
    threshold, gradient, make_block, make_inputs
):
    u = make_inputs("conv", samples=5)
    settings = {"max_unroll": 4, "threshold": threshold, "gradient": gradient, "activation": "tanh"}
    layer = make_block("conv", **settings, **CONTRACTING["conv"])
    layer.build(u.shape)
    check(layer, u, graph=True)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_masked_sample_does_not_contribute_to_gradients_through_anderson(
    kind, make_block, make_inputs
):
    u = make_inputs(kind, samples=5)
    settings = {"max_unroll": 20, "threshold": 0.05, "activation": "tanh", "solver": "anderson"}
    layer = make_block(kind, **settings, **CONTRACTING[kind])
    layer.build(u.shape)
    # Its states are looked for outside of training only.
    check(layer, u, training=False)
