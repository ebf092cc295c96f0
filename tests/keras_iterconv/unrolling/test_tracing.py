"""Blocks alike share a traced graph, and compute what they would by themselves."""

import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki


def images(n=3):
    return tf.constant(np.random.default_rng(0).normal(size=(n, 5, 5, 4)).astype("float32"))


def loops(function, x):
    """Return the functions that a graph calls, one for each set of blocks alike."""
    graph = function.get_concrete_function(x).graph
    return {op.get_attr("f").name for op in graph.get_operations() if "PartitionedCall" in op.type}


def chain(blocks):
    def run(x):
        for block in blocks:
            x = block(x)
        return x

    return run


@pytest.mark.parametrize("threshold", [None, 1e-2])
def test_blocks_alike_are_traced_once(threshold):
    blocks = [ki.NAISConv2D(4, max_unroll=k, threshold=threshold) for k in (3, 5, 8)]
    x = images()
    # Eagerly, nothing is shared.
    expected = chain(blocks)(x)
    shared = tf.function(chain(blocks))
    assert len(loops(shared, x)) == 1
    np.testing.assert_allclose(shared(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "other", [{"step_size": 0.5}, {"activation": "tanh"}, {"threshold": 0.1}, {"tied": False}]
)
def test_blocks_that_differ_are_not_shared(other):
    blocks = [ki.NAISConv2D(4, max_unroll=3), ki.NAISConv2D(4, max_unroll=3, **other)]
    x = images()
    expected = chain(blocks)(x)
    shared = tf.function(chain(blocks))
    assert len(loops(shared, x)) == 2
    np.testing.assert_allclose(shared(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient", ["unroll", "recompute", "frozen"])
def test_gradients_of_blocks_that_share_a_graph_are_their_own(gradient):
    blocks = [ki.NAISConv2D(4, max_unroll=3, gradient=gradient) for _ in range(2)]
    x = images()
    chain(blocks)(x)
    weights = [weight for block in blocks for weight in block.trainable_variables]

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for block in blocks:
                y = block(y, training=True)
            loss = tf.reduce_sum(y**2)
        return tape.gradient(loss, [*weights, x])

    for a, b in zip(gradients(x), tf.function(gradients)(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        assert np.abs(a).max() > 0


@pytest.mark.parametrize(("gradient", "tied"), [("unroll", False), ("recompute", True)])
def test_second_derivatives_in_a_graph_are_those_of_a_plain_loop(gradient, tied):
    block = ki.NAISConv2D(
        4,
        max_unroll=4,
        # Not reached by any of these, and nothing to the derivatives.
        threshold=0.1,
        activation="tanh",
        gradient=gradient,
        tied=tied,
        dtype="float64",
    )
    x = tf.cast(images(), tf.float64)
    block(x)

    def plain(x):
        state, kernels = x, block.state_kernel()
        stacks = (kernels, tf.convert_to_tensor(block.D), tf.convert_to_tensor(block.E))
        for k in range(4):
            C, D, E = stacks if tied else (stack[k] for stack in stacks)
            drive = tf.nn.conv2d(x, D, 1, "SAME") + E
            state = state + tf.tanh(tf.nn.conv2d(state, C, 1, "SAME") + drive)
        return state

    def second(run):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(run(x) ** 2)
            slope = tf.reduce_sum(inner.gradient(y, x) ** 2)
        return outer.gradient(slope, [x, block.C, block.D, block.E])

    found = tf.function(lambda: second(lambda x: block(x, training=True)))()
    for a, b in zip(found, second(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
