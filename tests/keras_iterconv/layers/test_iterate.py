"""`Iterate` with updates of all kinds, against Python loops over the update itself."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.exporting.saved_model import write_saved_model
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.stop import Halting, ReadoutDivergence, StablePrediction, UpdateNorm
from keras_iterconv.unrolling import Status
from keras_iterconv.unrolling.adaptive import run_adaptive
from tests.support.comparisons import assert_near, assert_same_predictions
from tests.support.iterated_updates import CASES, MAX_UNROLL

every_case = pytest.mark.parametrize("name", CASES)


def ready(name, like=None, **options):
    """Return a built layer with weights of its own, none of them zero."""
    layer = CASES[name].make(**options)
    layer(CASES[name].inputs)
    if like is not None:
        layer.set_weights(like.get_weights())
        return layer
    rng = np.random.default_rng(11)
    for weight in layer.trainable_variables:
        weight.assign(weight + tf.constant(0.1 * rng.normal(size=weight.shape), weight.dtype))
    return layer


def update_once(layer, state, inputs):
    """Return the state after one update, by a call of the user's own layer."""
    update = layer.update
    if isinstance(update, keras.Model):
        return update([state, inputs])
    two = "inputs" in update.call.__code__.co_varnames[1 : update.call.__code__.co_argcount]
    takes_inputs = two and update.call.__code__.co_argcount > 2 and not hasattr(update, "units")
    return update(state, inputs) if takes_inputs else update(state)


def first_state(layer, inputs):
    if layer.initial_state == "input":
        return tf.identity(inputs)
    if layer.initial_state == "zeros":
        return tf.zeros_like(inputs)
    return layer.initial_state(inputs)


def flat(state):
    return tf.concat([tf.reshape(z, [-1]) for z in tf.nest.flatten(state)], axis=0)


def has_stopped(layer, rule, states, k):
    """Return whether a sample stops at states[k], by the words of the rule's documentation."""
    new, old = states[k], states[k - 1]
    if isinstance(rule, UpdateNorm):
        value = tf.norm(flat(new) - flat(old))
        return (value / tf.norm(flat(new)) if rule.relative else value) < rule.threshold
    if isinstance(rule, Halting):
        return tf.sigmoid(rule.readout(new))[0, 0] > rule.threshold
    if isinstance(rule, StablePrediction):
        classes = [int(np.argmax(rule.readout(z).numpy())) for z in states]
        return k >= rule.threshold and len(set(classes[k - int(rule.threshold) :])) == 1
    assert isinstance(rule, ReadoutDivergence)
    p, q = (tf.nn.softmax(rule.readout(z)).numpy().astype(float) for z in (new, old))
    return (p * np.log(p / q)).sum() < rule.threshold


def loop(layer, inputs):
    """Return the states of one sample, `[1, ...]` each, up to the last."""
    states = [first_state(layer, inputs)]
    for k in range(1, layer.max_unroll + 1):
        states.append(update_once(layer, states[-1], inputs))
        if layer.threshold is not None and has_stopped(layer, layer.stop, states, k):
            break
    return states


def samples(x):
    return [x[n : n + 1] for n in range(len(x))]


@every_case
def test_each_sample_stops_where_a_python_loop_does(name):
    layer, x = ready(name), CASES[name].inputs
    end = layer(x, return_depth=True)
    runs = [loop(layer, tf.constant(one)) for one in samples(x)]
    depths = [len(states) - 1 for states in runs]
    assert len(set(depths)) > 1, "the inputs must have several depths"
    np.testing.assert_array_equal(end.depth, depths)
    for n, states in enumerate(runs):
        found = tf.nest.map_structure(lambda z: z[n : n + 1], end.state)  # noqa: B023
        np.testing.assert_allclose(flat(found), flat(states[-1]), rtol=1e-4, atol=1e-5)
    stopped = [layer.threshold is not None and depth < MAX_UNROLL for depth in depths]
    assert all(end.status.numpy()[stopped] == Status.CONVERGED)


@every_case
def test_a_sample_alone_is_as_in_the_batch(name):
    layer, x = ready(name), CASES[name].inputs
    whole = layer(x, return_depth=True)
    for n, one in enumerate(samples(x)):
        alone = layer(one, return_depth=True)
        assert alone.depth[0] == whole.depth[n]
        assert alone.status[0] == whole.status[n]
        for a, b in zip(tf.nest.flatten(alone.state), tf.nest.flatten(whole.state), strict=True):
            np.testing.assert_allclose(a[0], b[n], rtol=1e-4, atol=1e-6)


def product(state, upstream):
    parts = zip(tf.nest.flatten(state), upstream, strict=True)
    return tf.add_n([tf.reduce_sum(z * tf.cast(g, z.dtype)) for z, g in parts])


def upstreams(layer, x):
    rng = np.random.default_rng(7)
    return [rng.normal(size=z.shape) for z in tf.nest.flatten(layer(x))]


def gradients(layer, x, run):
    """Return the gradients of `run(layer, x)` in the weights and the inputs."""
    x = tf.constant(x, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = run(layer, x)
    wanted = [*(weight.value for weight in layer.trainable_variables), x]
    return tape.gradient(loss, wanted, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def loss_of_loop(upstream, last=None):
    """Return a loss over the last states of Python loops; `last` cuts the gradient before them."""

    def run(layer, x):
        total = 0.0
        for n in range(x.shape[0]):
            one = x[n : n + 1]
            depth = len(loop(layer, one)) - 1
            state = first_state(layer, one)
            for k in range(depth):
                if last is not None and 0 < k == depth - last:
                    state = tf.nest.map_structure(tf.stop_gradient, state)
                state = update_once(layer, state, one)
            total += product(state, [g[n : n + 1] for g in upstream])
        return total

    return run


def mean_of_states(layer, x, last=None):
    """Return the mean of the states by the probability of stopping, for each sample.

    `last` cuts the gradient before the last updates.
    """
    state, left, mean, expected = first_state(layer, x), 1.0, 0.0, 0.0
    for k in range(1, layer.max_unroll + 1):
        if last is not None and k == layer.max_unroll - last + 1:
            state, left, mean, expected = map(tf.stop_gradient, (state, left, mean, expected))
        state = update_once(layer, state, x)
        p = tf.sigmoid(layer.readout(state)) if k < layer.max_unroll else 1.0
        mean, expected = mean + left * p * state, expected + left
        left *= 1 - p
    return mean, tf.reduce_mean(expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("gradient", ["unroll", "recompute"])
@every_case
def test_gradients_are_those_of_a_python_loop(name, gradient, dtype, tolerance):
    layer = ready(name, dtype=dtype, gradient=gradient)
    x = CASES[name].inputs.astype(dtype)
    upstream = upstreams(layer, x)

    def loss(layer, x):
        found = product(layer(x, training=True), upstream)
        return found + tf.add_n(layer.losses) if layer.losses else found

    def expected_loss(layer, x):
        if not isinstance(layer.stop, Halting):
            return loss_of_loop(upstream)(layer, x)
        mean, expected = mean_of_states(layer, x)
        return product(mean, upstream) + layer.stop.ponder * expected

    assert_near(gradients(layer, x, loss), gradients(layer, x, expected_loss), tolerance)


@pytest.mark.parametrize("stop", [None, "its own"])
@pytest.mark.parametrize("name", ["depthwise", "attention", "GRU", "two states"])
def test_truncated_is_the_gradient_of_the_last_updates(name, stop):
    options = {"stop": None} if stop is None else {}
    layer = ready(name, dtype="float64", gradient="truncated", truncate=3, **options)
    x = CASES[name].inputs.astype("float64")
    upstream = upstreams(layer, x)

    def loss(layer, x):
        return product(layer(x, training=True), upstream)

    found = gradients(layer, x, loss)
    assert_near(found, gradients(layer, x, loss_of_loop(upstream, last=3)), 1e-10)
    exact = gradients(layer, x, loss_of_loop(upstream))
    assert max(np.abs(a - b).max() for a, b in zip(found, exact, strict=True)) > 1e-4


def test_truncated_cuts_the_probabilities_of_a_halting_head_too():
    layer = ready("halting", dtype="float64", gradient="truncated", truncate=3)
    x = CASES["halting"].inputs.astype("float64")
    upstream = upstreams(layer, x)

    def loss(layer, x):
        return product(layer(x, training=True), upstream) + tf.add_n(layer.losses)

    def expected_loss(last):
        def run(layer, x):
            mean, expected = mean_of_states(layer, x, last)
            return product(mean, upstream) + layer.stop.ponder * expected

        return run

    found = gradients(layer, x, loss)
    assert_near(found, gradients(layer, x, expected_loss(3)), 1e-10)
    exact = gradients(layer, x, expected_loss(None))
    assert max(np.abs(a - b).max() for a, b in zip(found, exact, strict=True)) > 1e-4


@every_case
def test_compaction_changes_nothing(name):
    layer, x = ready(name), CASES[name].inputs
    state = first_state(layer, x)
    update, rule = layer.bind(state, tf.constant(x), None)
    runs = [
        # At no cost the batch is compacted whenever a sample stops, at an infinite one never.
        run_adaptive(update, state, MAX_UNROLL, layer.threshold, compaction_cost=cost, rule=rule)
        for cost in (0.0, 1e30)
    ]
    compactions = [len(run.starts) - 1 for run in runs]
    assert compactions[0] > 0 == compactions[1]
    np.testing.assert_array_equal(runs[0].depth, runs[1].depth)
    for a, b in zip(*(tf.nest.flatten(run.state) for run in runs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@every_case
def test_nan_in_one_sample_touches_no_other(name):
    layer, x = ready(name), CASES[name].inputs
    clean = layer(x, return_depth=True)
    spoilt = x.copy()
    spoilt[2].flat[1] = np.nan
    found = layer(spoilt, return_depth=True)
    assert found.status[2] == Status.NOT_FINITE
    others = [0, 1, 3, 4]
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(clean), strict=True):
        np.testing.assert_allclose(tf.gather(a, others), tf.gather(b, others), rtol=1e-5)


@every_case
def test_nan_in_one_sample_touches_no_gradient_of_a_loss_without_it(name):
    layer, x = ready(name), CASES[name].inputs
    upstream = upstreams(layer, x)
    for g in upstream:
        g[2] = 0

    def loss(layer, x):
        pairs = zip(tf.nest.flatten(layer(x, training=True)), upstream, strict=True)
        return tf.add_n([tf.reduce_sum(tf.where(g == 0, 0.0, z * g)) for z, g in pairs])

    spoilt = x.copy()
    spoilt[2].flat[1] = np.nan
    found, clean = gradients(layer, spoilt, loss), gradients(layer, x, loss)
    assert_near(found[:-1], clean[:-1], 1e-5)


def classifier(layer, x):
    image = keras.Input(x.shape[1:])
    state = layer(image)
    if isinstance(state, dict):
        state = state["answer"]
    if len(state.shape) > 2:
        state = keras.layers.Flatten()(state)
    return ki.IterativeModel(image, keras.layers.Dense(3)(state))


@every_case
def test_it_trains_in_fit(name):
    keras.utils.set_random_seed(3)
    x = CASES[name].inputs
    layer = CASES[name].make()
    model = classifier(layer, x)
    model.compile(
        keras.optimizers.Adam(0.03), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    before = [weight.numpy() for weight in layer.trainable_variables]
    labels = np.arange(len(x)) % 3
    losses = model.fit(x, labels, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    readout = () if layer.readout is None else layer.readout.trainable_variables
    trains = isinstance(layer.stop, Halting)
    for weight, old in zip(layer.trainable_variables, before, strict=True):
        # The readouts of the other rules get no gradient.
        moved = np.abs(weight.numpy() - old).max() > 0
        assert moved == (trains or not any(weight is other for other in readout)), weight.path


@every_case
def test_a_keras_file_gives_the_same_layer(name, tmp_path):
    layer, x = ready(name), CASES[name].inputs
    inputs = keras.Input(x.shape[1:])
    state, depth, status = layer(inputs, return_depth=True)
    model = keras.Model(inputs, {"state": state, "depth": depth, "status": status})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    twin = loaded.get_layer(layer.name)
    # JSON has no tuples.
    assert json.dumps(twin.get_config()) == json.dumps(layer.get_config())
    for a, b in zip(tf.nest.flatten(model(x)), tf.nest.flatten(loaded(x)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_readout_that_is_the_head_of_the_model_stays_one_layer(tmp_path):
    head = keras.layers.Dense(3, name="head")
    layer = ki.Iterate(keras.layers.Dense(4, activation="tanh"), 9, StablePrediction(head, 2))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, head(layer(inputs)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer(layer.name).readout is loaded.get_layer("head")
    x = CASES["halting"].inputs
    np.testing.assert_array_equal(model(x), loaded(x))
    assert len(loaded.trainable_variables) == len(model.trainable_variables) == 4


@every_case
def test_saved_model_and_onnx_are_as_keras(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    layer, x = ready(name), CASES[name].inputs
    model = classifier(layer, x)
    expected = {key: value.numpy() for key, value in ki.with_depth(model)(x).items()}
    channels = x.shape[-1]
    plain = Preprocessing((0.0,) * channels, (1.0,) * channels)
    write_saved_model(fold(model), tmp_path / "saved", plain)
    serve = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    assert_same_predictions(serve(image=tf.constant(x)), expected)
    converted = to_onnx(fold(model), plain, {})
    session = onnxruntime.InferenceSession(
        converted.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [*expected, "probabilities"]
    found = dict(zip(names, session.run(names, {"image": x}), strict=True))
    assert_same_predictions(found, expected)


def contraction(stddev, max_unroll=200, **options):
    initializer = keras.initializers.RandomNormal(stddev=stddev, seed=3)
    update = keras.layers.Dense(
        4, activation="tanh", kernel_initializer=initializer, dtype="float64"
    )
    return ki.Iterate(update, max_unroll, 1e-12, gradient="implicit", dtype="float64", **options)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_implicit_is_the_gradient_of_the_fixed_point(mode):
    layer = contraction(0.3)
    x = tf.constant(np.random.default_rng(2).normal(size=(5, 4)))
    layer(x)
    upstream = np.random.default_rng(7).normal(size=(5, 4))
    layer.update.bias.assign([0.3, -0.2, 0.5, 0.1])

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            end = layer(x, training=True)
            loss = tf.reduce_sum(upstream * end)
        return end, tape.gradient(loss, [x, *layer.trainable_variables])

    end, (of_x, of_kernel, of_bias) = (tf.function(run) if mode == "graph" else run)(x)
    W = layer.update.kernel.numpy()
    # With z = W' x + b and x* = tanh(z): v = (I - J')^-1 g with J' = W diag(1 - x*^2).
    kernel, bias = np.zeros((4, 4)), np.zeros(4)
    for fixed_point, g in zip(end.numpy(), upstream, strict=True):
        slope = 1 - fixed_point**2
        v = np.linalg.solve(np.eye(4) - W * slope, g)
        kernel += np.outer(fixed_point, slope * v)
        bias += slope * v
    np.testing.assert_allclose(of_kernel, kernel, rtol=1e-5)
    np.testing.assert_allclose(of_bias, bias, rtol=1e-5)
    np.testing.assert_array_equal(of_x, 0)


def test_implicit_says_so_where_the_update_does_not_contract():
    layer = ki.Iterate(
        keras.layers.Dense(4, kernel_initializer=keras.initializers.Identity(1.5)),
        3,
        gradient="implicit",
        name="grows",
    )
    x = tf.ones([2, 4])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True))
    with pytest.raises(tf.errors.InvalidArgumentError, match="grow") as error:
        tape.gradient(loss, layer.trainable_variables)
    assert "of \\'grows" in str(error.value)


def test_implicit_refuses_updates_without_a_fixed_point():
    with pytest.raises(ValueError, match="needs `tied=True`"):
        contraction(0.1, 5, tied=False)
    update = keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(0.1)])
    layer = ki.Iterate(update, 3, gradient="implicit")
    with pytest.raises(ValueError, match="without random numbers and batch statistics"):
        layer(np.ones((2, 4), np.float32), training=True)
