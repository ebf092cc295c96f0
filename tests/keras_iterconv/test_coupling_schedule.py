"""A strength that a schedule changes: in a loop, in compiled steps, on replicas and in files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.comparisons import assert_same_weights
from tests.support.coupled_nets import LOSS, make_data, make_model, sgd, variables_and_gradients


@keras.saving.register_keras_serializable("keras_iterconv_tests")
def rising(iteration):
    return 0.25 * keras.ops.cast(iteration, "float32")


def decay():
    return keras.optimizers.schedules.PolynomialDecay(0.9, decay_steps=4, end_learning_rate=0.1)


@pytest.mark.parametrize("kernel", ["uniform", "triangular"])
@pytest.mark.parametrize("members", [None, slice(1, None)])
@pytest.mark.parametrize("traced", [False, True])
def test_each_iteration_has_the_strength_of_the_schedule(kernel, members, traced):
    variables, gradients = variables_and_gradients(4)
    coupling = ki.GradientCoupling(decay(), kernel, members, [variables])
    call = tf.function(coupling) if traced else coupling
    for k, strength in enumerate([0.9, 0.7, 0.5, 0.3, 0.1, 0.1]):
        expected = ki.GradientCoupling(strength, kernel, members, [variables])
        np.testing.assert_allclose(
            call(gradients, variables, tf.constant(k)), expected(gradients, variables), atol=1e-6
        )
        np.testing.assert_allclose(coupling.matrix(4, k), expected.matrix(4), atol=1e-6)


def test_values_are_clipped():
    variables, gradients = variables_and_gradients(3)
    coupling = ki.GradientCoupling(rising, groups=[variables])
    for k, strength in ((0, 0.0), (2, 0.5), (4, 1.0), (9, 1.0)):
        assert float(coupling.strength_at(k)) == strength
    np.testing.assert_allclose(
        coupling(gradients, variables, 100), [np.mean(gradients, axis=0)] * 3, atol=1e-6
    )


def test_half_of_the_precision():
    variables, gradients = variables_and_gradients(3, dtype="float16")
    got = ki.GradientCoupling(decay(), groups=[variables])(gradients, variables, 0)
    assert all(gradient.dtype == "float16" for gradient in got)


def weights_by_hand(model, strengths, batch=8):
    """Train by plain SGD on gradients blended by NumPy, with one strength a step."""
    x, y = make_data(batch * len(strengths))
    stacks = {
        v.path for name in ("first", "second") for v in model.get_layer(name).trainable_variables
    }
    for k, strength in enumerate(strengths):
        part = slice(batch * k, batch * (k + 1))
        with tf.GradientTape() as tape:
            loss = LOSS(from_logits=True)(y[part], model(x[part], training=True))
        variables = model.trainable_variables
        for variable, gradient in zip(
            variables, tape.gradient(loss, [v.value for v in variables]), strict=True
        ):
            gradient = gradient.numpy()
            if variable.path in stacks:
                mean = gradient.mean(axis=0, keepdims=True)
                gradient = (1 - strength) * gradient + strength * mean
            variable.assign(variable - 0.1 * gradient)
    return model.get_weights()


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_compiled_steps_see_the_schedule(steps_per_execution):
    model, twin = make_model(), make_model()
    twin.set_weights(model.get_weights())
    x, y = make_data(32)
    model.compile(
        sgd(momentum=0.0), LOSS(from_logits=True), coupling=ki.GradientCoupling(decay()),
        steps_per_execution=steps_per_execution,
    )  # fmt: skip
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    expected = weights_by_hand(twin, [0.9, 0.7, 0.5, 0.3])
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_bare_schedule_is_a_strength():
    model = make_model()
    model.compile("sgd", LOSS(from_logits=True), coupling=decay())
    assert isinstance(model.coupling, ki.GradientCoupling)
    assert float(model.coupling.strength_at(1)) == pytest.approx(0.7)


def fit(model, epochs, initial_epoch=0):
    x, y = make_data(16)
    model.fit(
        x, y, batch_size=8, shuffle=False, verbose=0, epochs=epochs, initial_epoch=initial_epoch
    )


@pytest.mark.parametrize("schedule", [decay(), rising], ids=["keras", "function"])
def test_a_resumed_training_goes_on_in_the_schedule(schedule, tmp_path):
    whole, halves = make_model(), make_model()
    halves.set_weights(whole.get_weights())
    for model in (whole, halves):
        coupling = ki.GradientCoupling(schedule)
        model.compile(sgd(), LOSS(from_logits=True), coupling=coupling, run_eagerly=True)
    fit(whole, epochs=2)
    fit(halves, epochs=1)
    halves.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.coupling.get_config() == halves.coupling.get_config()
    loaded.run_eagerly = True
    fit(loaded, epochs=2, initial_epoch=1)
    assert_same_weights(loaded, whole, 1e-6)
    # From the begin of the schedule they would differ.
    again = keras.models.load_model(tmp_path / "model.keras")
    again.optimizer.iterations.assign(0)
    again.run_eagerly = True
    fit(again, epochs=2, initial_epoch=1)
    assert np.abs(again.get_layer("first").kernel1 - whole.get_layer("first").kernel1).max() > 1e-4


def test_two_replicas_follow_the_schedule_as_one():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    one = make_model(frozen_norm=True)
    with strategy.scope():
        many = make_model(frozen_norm=True)
        many.set_weights(one.get_weights())
        many.compile(sgd(), LOSS(from_logits=True), coupling=ki.GradientCoupling(rising))
    one.compile(
        sgd(), LOSS(from_logits=True), coupling=ki.GradientCoupling(rising), run_eagerly=True
    )
    for model in (one, many):
        fit(model, epochs=2)
    assert_same_weights(one, many, 1e-5)


def test_accumulated_parts_of_a_batch_have_one_strength():
    whole, halves = make_model(frozen_norm=True), make_model(frozen_norm=True)
    halves.set_weights(whole.get_weights())
    x, y = make_data(24)
    for model, batch, settings in ((whole, 8, {}), (halves, 4, {"gradient_accumulation_steps": 2})):
        model.compile(
            sgd(**settings), LOSS(from_logits=True), coupling=ki.GradientCoupling(rising),
            run_eagerly=True,
        )  # fmt: skip
        model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)
    assert_same_weights(whole, halves, 2e-6)


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (lambda k: 1.5, "`strength` must be a schedule of scalars in .0, 1.*gives .*1.5"),
        (lambda k: [0.5, 0.5], "`strength` must be a schedule of scalars"),
        (lambda k: float("nan"), "`strength` must be a schedule of scalars"),
    ],
)
def test_bad_schedules(strength, message):
    with pytest.raises(ValueError, match=message):
        ki.GradientCoupling(strength)


def test_what_a_compiled_step_would_not_see_is_refused():
    variables, gradients = variables_and_gradients(2)
    coupling = ki.GradientCoupling(decay(), groups=[variables])
    with pytest.raises(
        ValueError, match="`iteration` must be given for a strength with a schedule"
    ):
        coupling(gradients, variables)
    with pytest.raises(AttributeError):
        coupling.strength = 0.5
