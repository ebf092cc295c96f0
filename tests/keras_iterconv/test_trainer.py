"""The model class: Keras's own training plus a coupling, on one replica and two, and in files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.comparisons import assert_same_weights

pytestmark = pytest.mark.graph_optimizer
LOSS = keras.losses.SparseCategoricalCrossentropy


def make_data(samples=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(samples, 6, 6, 2)).astype(np.float32), rng.integers(0, 3, samples)


def make_model(model_class=ki.IterativeModel, batch_norm=False):
    """Return a net with a block of each kind, and a loop of each kind."""
    inputs = keras.Input((6, 6, 2))
    state = keras.layers.Conv2D(4, 3, strides=2, name="transition")(inputs)
    if batch_norm:
        state = keras.layers.BatchNormalization()(state)
    state = ki.NAISConv2D(4, max_unroll=3)(state)
    state = ki.NAISDense(5, max_unroll=3, threshold=0.1)(keras.layers.Flatten()(state))
    return model_class(inputs, keras.layers.Dense(3)(state))


@keras.saving.register_keras_serializable("keras_iterconv_tests")
def halve_gradients(gradients, variables):
    return [0.5 * gradient for gradient in gradients]


def train(model, steps=5, sample_weight=None, **kwargs):
    x, y = make_data(8 * steps)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        LOSS(from_logits=True),
        metrics=["accuracy"],
        **kwargs,
    )
    history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0, sample_weight=sample_weight)
    return {key: values[0] for key, values in history.history.items()}


@pytest.mark.parametrize("weighted", [False, True])
def test_trains_like_a_plain_keras_model(weighted):
    ours, plain = make_model(batch_norm=True), make_model(keras.Model, batch_norm=True)
    plain.set_weights(ours.get_weights())
    before = ours.get_weights()
    weights = np.linspace(0, 2, 40) if weighted else None
    logs, expected = train(ours, sample_weight=weights), train(plain, sample_weight=weights)
    assert set(logs) == set(expected)
    for key in logs:
        assert logs[key] == pytest.approx(expected[key], rel=1e-5)
    assert_same_weights(ours, plain, 1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(before, ours.get_weights(), strict=True)) > 0.01


def test_reported_loss_is_the_mean_of_the_batches():
    model = make_model()
    x, y = make_data(10)
    model.compile(keras.optimizers.SGD(0.0), LOSS(from_logits=True))
    # The last batch is smaller, and counts less.
    loss = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"][0]
    logits = model(x).numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert loss == pytest.approx(-log_p[np.arange(10), y].mean(), rel=1e-5)


def test_coupling_sees_the_raw_gradients_of_the_trainable_variables():
    model = make_model()
    model.get_layer("transition").trainable = False
    seen = []

    def watch(gradients, variables):
        seen.append((gradients, variables))
        return gradients

    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1, clipnorm=1e-3),
        LOSS(from_logits=True), coupling=watch, run_eagerly=True,
    )  # fmt: skip
    x, y = make_data(8)
    with tf.GradientTape() as tape:
        loss = LOSS(from_logits=True)(y, model(x, training=True))
    expected = tape.gradient(loss, model.trainable_variables)
    model.fit(x, y, batch_size=8, verbose=0)
    ((gradients, variables),) = seen
    assert [v.path for v in variables] == [v.path for v in model.trainable_variables]
    for gradient, raw in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, raw, rtol=1e-5, atol=1e-7)


def test_coupled_gradients_are_what_the_optimizer_gets():
    ours, plain = make_model(), make_model(keras.Model)
    plain.set_weights(ours.get_weights())
    x, y = make_data(8)
    ours.compile(keras.optimizers.SGD(0.1), LOSS(from_logits=True), coupling=halve_gradients)
    plain.compile(keras.optimizers.SGD(0.05), LOSS(from_logits=True))
    for model in (ours, plain):
        model.fit(x, y, batch_size=8, verbose=0)
    assert_same_weights(ours, plain, 1e-6)


@pytest.mark.parametrize("coupling", ["uniform", 3, -0.1, True, [halve_gradients]])
def test_bad_coupling(coupling):
    with pytest.raises(ValueError, match=r"`coupling` must be None, a strength.*Received: coup"):
        make_model().compile("sgd", "mse", coupling=coupling)


def check_replicas(strategy, coupling=None):
    """Train on one replica and under `strategy` from the same weights, and compare."""
    one = make_model()
    with strategy.scope():
        many = make_model()
        many.set_weights(one.get_weights())
        many_logs = train(many, coupling=coupling)
    one_logs = train(one, coupling=coupling)
    assert many_logs == pytest.approx(one_logs, rel=1e-5)
    assert_same_weights(one, many, 1e-5)
    x, y = make_data()
    assert many.evaluate(x, y, batch_size=8, verbose=0) == pytest.approx(
        one.evaluate(x, y, batch_size=8, verbose=0), rel=1e-5
    )
    for weight in many.trainable_variables:
        copies = [np.asarray(copy) for copy in getattr(weight.value, "values", [weight.value])]
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


@pytest.mark.parametrize("coupling", [None, halve_gradients])
def test_two_replicas_train_as_one(coupling):
    # Reductions without collectives: their keys are those of the process, and a second strategy
    # with variables of other shapes, in any other test, would stop at a shape mismatch.
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    assert strategy.num_replicas_in_sync == 2
    check_replicas(strategy, coupling)


@pytest.mark.gpu
def test_gpus_train_as_one_replica_does():
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        pytest.skip("needs a GPU; TensorFlow sees none")
    # All of them, up to one for each image of a batch.
    check_replicas(tf.distribute.MirroredStrategy([gpu.name for gpu in gpus[:8]]), halve_gradients)


@pytest.mark.parametrize("coupling", [None, halve_gradients])
def test_a_compiled_model_goes_on_training_after_a_file(coupling, tmp_path):
    model = make_model()
    train(model, coupling=coupling)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is ki.IterativeModel
    assert loaded.coupling is coupling
    assert loaded.to_json() == model.to_json()
    assert_same_weights(loaded, model, 0)
    assert loaded.optimizer.iterations == 5
    x, y = make_data()
    for twin in (model, loaded):
        # Momentum came back, or the weights would differ.
        twin.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert_same_weights(loaded, model, 1e-6)


def test_a_model_that_was_not_compiled_loads_as_such(tmp_path):
    model = make_model()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    assert loaded.to_json() == model.to_json()
    assert_same_weights(loaded, model, 0)


def test_a_clone_is_of_the_same_class():
    model = make_model()
    clone = keras.models.clone_model(model)
    assert type(clone) is ki.IterativeModel
    clone.set_weights(model.get_weights())
    x, _ = make_data()
    np.testing.assert_array_equal(clone(x), model(x))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains(policy):
    keras.config.set_dtype_policy(policy)
    model = make_model()
    before = model.get_weights()
    logs = train(model, coupling=halve_gradients)
    assert np.isfinite(logs["loss"])
    # Keras wraps the optimizer for float16; its unscaled loss is what is reported.
    assert logs["loss"] < 5
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(before, model.get_weights(), strict=True))


def test_other_formats_of_keras_are_refused(tmp_path):
    message = r"^`format` must be one of [^\n]*Received: format='openvino'$"
    with pytest.raises(ValueError, match=message):
        make_model().export(tmp_path / "model", format="openvino")
    with pytest.raises(ValueError, match=r"^`input_signature` must be None"):
        make_model().export(tmp_path / "model", input_signature=[])
    assert not list(tmp_path.iterdir())


def test_a_saved_model_is_still_written(tmp_path):
    model = make_model()
    model.export(tmp_path / "model", format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    x, _ = make_data(5)
    np.testing.assert_allclose(loaded.serve(x), model(x), atol=1e-5)
