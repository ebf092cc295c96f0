"""Training in float16 with a scaled loss: coupling, caps, projections and adaptive depth."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.builders import excess
from tests.support.numpy_double import dense_conv_matrix
from tests.support.simulated_gpu import innermost, loops, lowered

IMAGE = (5, 4, 3)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SCALE = 2.0**12


def make_model(dtype="mixed_float16"):
    """Return a net with a capped stage, projected blocks, and a block of adaptive depth."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(IMAGE)
    cap = {"skip_from": "stage_input", "lipschitz_cap": 0.9}
    state = ki.ResidualStage(3, 2, **cap, dtype=dtype, name="stage")(inputs)
    state = ki.NAISConv2D(3, max_unroll=3, tied=False, dtype=dtype, name="untied")(state)
    state = keras.layers.Flatten(dtype=dtype)(state)
    depth = {"max_unroll": 6, "threshold": 0.3, "step_size": 0.5}
    state = ki.NAISDense(5, **depth, dtype=dtype, name="adaptive")(state)
    return ki.IterativeModel(inputs, keras.layers.Dense(3, dtype=dtype)(state))


def make_data(samples=8):
    rng = np.random.default_rng(1)
    sizes = np.geomspace(0.1, 2, samples).reshape(-1, 1, 1, 1)
    images = (sizes * rng.normal(size=(samples, *IMAGE))).astype(np.float32)
    return images, np.arange(samples) % 3


def fit(model, scale=None, epochs=1, coupling=0.9):
    """Train by plain gradient descent, one step an epoch; return the losses."""
    optimizer = keras.optimizers.SGD(0.05)
    if scale is not None:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
    model.compile(optimizer, LOSS, coupling=coupling)
    images, labels = make_data()
    return model.fit(images, labels, batch_size=8, epochs=epochs, verbose=0).history["loss"]


def check_guarantees(model):
    """Check projections and caps of a trained model by dense matrices."""
    stage = model.get_layer("stage")
    for block in stage.block_values():
        s1 = block.gamma1 / np.sqrt(block.variance1 + 1e-3)
        s2 = block.gamma2 / np.sqrt(block.variance2 + 1e-3)
        kernels = s2 * block.kernel1 * s1[:, np.newaxis], block.kernel2 / block.divisor
        norms = [
            np.linalg.norm(dense_conv_matrix(k, *IMAGE[:2]), 2) for k in map(np.array, kernels)
        ]
        assert np.prod(norms) <= 0.9 * (1 + 1e-5)
    assert excess(model.get_layer("untied")) < 1e-5
    assert excess(model.get_layer("adaptive")) < 1e-5


def test_a_scaled_step_is_that_of_float32():
    half, full = make_model(), make_model("float32")
    full.set_weights(half.get_weights())
    images, _ = make_data()
    depths = [ki.with_depth(model)(images)["depth"].numpy() for model in (half, full)]
    np.testing.assert_array_equal(*depths)
    assert len(np.unique(depths[0][:, -1])) > 2
    before = [weight.numpy() for weight in half.trainable_variables]
    losses = [fit(half, SCALE), fit(full)]
    np.testing.assert_allclose(*losses, rtol=2e-3)
    for ours, theirs, old in zip(
        half.trainable_variables, full.trainable_variables, before, strict=True
    ):
        step, expected = ours.numpy() - old, theirs.numpy() - old
        assert np.abs(expected).max() > 0, ours.path
        # A step is a sum of products that are each rounded to 2^-11.
        error = np.linalg.norm(step - expected) / np.linalg.norm(expected)
        assert error < 0.02, (ours.path, error)
    check_guarantees(half)


def test_a_step_whose_gradients_overflow_is_skipped():
    model = make_model()
    before = [weight.numpy() for weight in model.trainable_variables]
    (loss,) = fit(model, 2.0**40)
    assert np.isfinite(loss)
    assert model.optimizer.iterations == 0
    assert model.optimizer.dynamic_scale == 2.0**39
    for weight, old in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    # Moving statistics and singular vectors are those of the batch, which is finite.
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    check_guarantees(model)
    # The scale is halved until a step is taken.
    losses = fit(model, 2.0**20, epochs=12)
    assert 0 < model.optimizer.iterations < 12
    assert losses[-1] < losses[0]
    check_guarantees(model)


@pytest.mark.tensorflow_operators
def test_states_norms_and_stopping_are_float32():
    model = make_model()
    images, labels = make_data()

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = SCALE * LOSS(y, model(x, training=True))
        return tape.gradient(loss, model.trainable_variables)

    graph = lowered(tf.function(step, autograph=False).get_concrete_function(images, labels))
    loop_of = loops(graph)
    updates = innermost(set(loop_of.values()))
    found = {"Sqrt": set(), "GreaterEqual": set(), "MatMul": set(), "NextIteration": set()}
    for op in graph.get_operations():
        # A drive is handed on from one update to the next unchanged.
        if loop_of[op.name] in updates and op.type in found and not hands_on(op):
            found[op.type].add(op.inputs[0].dtype.name)
    assert found["MatMul"] == {"float16"}
    # Norms, what they are compared with, and all that changes from one update to the next.
    assert found["Sqrt"] == {"float32"}
    assert found["GreaterEqual"] == {"float32"}
    assert found["NextIteration"] == {"float32", "int32", "variant"}


def hands_on(op):
    """Return whether the value of a loop at its next iteration is that at this one."""
    source = op.inputs[0].op
    while source.type == "Identity":
        source = source.inputs[0].op
    return op.type == "NextIteration" and source.type == "Switch"
