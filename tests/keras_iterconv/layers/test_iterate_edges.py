"""`Iterate` where its parts meet: masks, samples that are not finite, empty batches, low limits."""

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.exporting.folding import fold
from keras_iterconv.exporting.onnx_model import to_onnx
from keras_iterconv.layers import Iterate
from keras_iterconv.models.deep_thinking_net import ProgressiveIterate, deep_thinking_net
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.stop import Halting, StablePrediction, UpdateNorm
from keras_iterconv.unrolling import Status
from tests.support.comparisons import assert_near

PADDING = 99.0
ENDS = (6, 4, 3, 1)
MASK = np.arange(6) < np.array(ENDS)[:, None]


def padded():
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    return np.where(MASK[..., None], x, PADDING).astype(np.float32)


def halving():
    return keras.layers.Rescaling(0.7, offset=0.3)


@pytest.mark.parametrize("relative", [False, True])
def test_padding_counts_in_no_norm(relative):
    layer = Iterate(halving(), 60, UpdateNorm(0.05, relative=relative))
    x = padded()
    together = layer(x, mask=tf.constant(MASK), return_depth=True)
    alone = [layer(x[n : n + 1, :end], return_depth=True) for n, end in enumerate(ENDS)]
    assert together.depth.numpy().tolist() == [int(each.depth[0]) for each in alone]
    assert len(set(together.depth.numpy())) > 1 or relative


def test_padding_counts_in_no_settling():
    x, losses = padded(), []
    for end in (6, None):
        layer = Iterate(halving(), 3, settling=1.0)
        if end is None:
            layer(x[:1, :4], training=True)
        else:
            mask = np.zeros((1, 6), bool)
            mask[:, :4] = True
            layer(np.where(mask[..., None], x[:1], PADDING), mask=tf.constant(mask), training=True)
        losses.append(float(layer.losses[0]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_returned_readout_sees_the_mask():
    readout = keras.Sequential([keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)])
    rule = StablePrediction(readout)
    layer = Iterate(halving(), 5, rule, returns=("readout",))
    x = padded()
    found = layer(x, mask=tf.constant(MASK))["readout"]
    for n, end in enumerate(ENDS):
        np.testing.assert_allclose(
            found[n], layer(x[n : n + 1, :end])["readout"][0], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("returns", [(), ("readout", "states")])
def test_layers_behind_it_see_the_mask(returns):
    rule = StablePrediction(keras.layers.Dense(2))
    inputs = keras.Input((None, 3))
    x = keras.layers.Masking(PADDING)(inputs)
    x = Iterate(halving(), 5, rule, returns=returns)(x)
    if returns:
        assert getattr(x["states"], "_keras_mask", None) is None
        x = x["state"]
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))
    batch = padded()
    found = model(batch)
    for n, end in enumerate(ENDS):
        np.testing.assert_allclose(found[n], model(batch[n : n + 1, :end])[0], rtol=1e-5)


def test_a_vector_beside_a_sequence_of_its_length_is_not_masked():
    class Pooled(keras.layers.Layer):
        def call(self, state, inputs):
            return 0.5 * state + 1.0

    start = keras.Sequential([keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(6)])
    layer = Iterate(Pooled(), 40, initial_state=start)
    np.testing.assert_allclose(layer(padded(), mask=tf.constant(MASK)), 2.0, rtol=1e-5)


def test_the_mask_is_kept_at_other_sizes_than_the_first():
    layer, pool = Iterate(halving(), 3), keras.layers.GlobalAveragePooling1D()
    x = padded()
    layer(x)
    short = layer(x[:, :5], mask=tf.constant(MASK[:, :5]))
    for n, end in enumerate(np.minimum(ENDS, 5)):
        alone = pool(layer(x[n : n + 1, :end]))
        np.testing.assert_allclose(pool(short)[n], alone[0], rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_an_update_in_mixed_precision_fits_a_layer_in_float32(policy):
    update = keras.layers.Dense(4, activation="tanh", dtype=policy)
    assert Iterate(update, 3, dtype="float32")(np.ones((2, 4), "f")).dtype == tf.float32


def test_implicit_and_a_mask_of_positions_that_the_state_lacks():
    start = keras.layers.GlobalAveragePooling1D()
    layer = Iterate(keras.layers.Rescaling(0.5, 1.0), 40, gradient="implicit", initial_state=start)
    end = layer(padded(), mask=tf.constant(MASK), training=True)
    np.testing.assert_allclose(end, 2.0, rtol=1e-5)


def test_settling_of_a_sample_that_is_not_finite_gives_the_others_gradients():
    def gradients(x):
        keras.utils.set_random_seed(0)
        layer = Iterate(keras.layers.Dense(4, activation="tanh"), 4, 0.1, settling=1.0)
        layer.build(x.shape)
        weight = len(x) / 3
        with tf.GradientTape() as tape:
            end = layer(tf.constant(x), training=True)
            loss = weight * layer.losses[0] + tf.reduce_sum(end[:3] ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    spoilt = np.concatenate([x, np.full((1, 4), np.nan, np.float32)])
    assert_near(gradients(spoilt), gradients(x), 1e-5)


@pytest.mark.parametrize("stop", [None, 0.3])
@pytest.mark.parametrize("options", [{"settling": 1.0}, {"returns": ("states",)}])
def test_an_empty_batch_trains(stop, options):
    layer = Iterate(keras.layers.Dense(4), 3, stop, **options)
    x = tf.zeros([0, 4])
    with tf.GradientTape() as tape:
        end = layer(x, training=True)
        state = end["state"] if "returns" in options else end
        loss = tf.reduce_sum(state) + sum(layer.losses)
    assert float(loss) == 0
    for g in tape.gradient(loss, layer.trainable_variables):
        np.testing.assert_array_equal(g, 0)
    if "returns" in options:
        assert end["states"].shape == (0, 3, 4)


def test_a_last_batch_of_one_trains():
    model = deep_thinking_net((6, 1, 1), 2, filters=4, training_unroll=3, max_unroll=5)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).integers(0, 2, (3, 6, 1, 1)).astype(np.float32)
    history = model.fit(x, np.zeros((3, 6)), batch_size=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def statistics():
    return keras.Sequential(
        [
            keras.layers.Dense(4, activation="tanh", dtype="float64"),
            keras.layers.BatchNormalization(dtype="float64"),
        ]
    )


def test_states_of_coupled_samples_carry_the_gradient_of_each():
    """A sample without a loss of its own acts on the statistics of the others."""
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 4)))
    layer = Iterate(statistics(), 3, returns=("states",), dtype="float64")
    layer(x)
    twin = keras.models.clone_model(layer.update)
    twin.set_weights(layer.update.get_weights())
    share = tf.constant([[1.0], [2.0], [0.0], [1.0]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(share * layer(x, training=True)["state"] ** 2)
    found = tape.gradient(loss, x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        state = x
        for _ in range(3):
            state = twin(state, training=True)
        loss = tf.reduce_sum(share * state**2)
    np.testing.assert_allclose(found, tape.gradient(loss, x), rtol=1e-10, atol=1e-12)


def test_truncated_refuses_coupled_samples_that_stop_apart():
    x = np.random.default_rng(0).normal(size=(4, 4))
    layer = Iterate(statistics(), 5, 0.1, gradient="truncated", truncate=2, dtype="float64")
    with pytest.raises(ValueError, match=r"needs `stop=None` where the update changes variables"):
        layer(x, training=True)
    # In training no sample stops by a halting head.
    halting = Halting(keras.layers.Dense(1, dtype="float64"))
    for stop in (None, halting):
        fits = Iterate(statistics(), 5, stop, gradient="truncated", truncate=2, dtype="float64")
        assert fits(x, training=True).shape == (4, 4)


def test_implicit_refuses_a_mask():
    layer = Iterate(halving(), 5, gradient="implicit")
    with pytest.raises(ValueError, match="needs inputs without a mask"):
        layer(padded(), mask=tf.constant(MASK), training=True)


def test_implicit_says_so_where_the_series_does_not_end():
    # The update turns the state: its terms keep their norm.
    turn = keras.layers.Dense(2, use_bias=False)
    layer = Iterate(turn, 3, gradient="implicit", name="turning")
    x = tf.constant([[1.0, 2.0]])
    layer(x)
    turn.set_weights([np.array([[0.0, 1.0], [-1.0, 0.0]])])

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True))
        return tape.gradient(loss, layer.trainable_variables)

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"turning.* grow or do not end"):
        gradient()


@pytest.mark.parametrize(
    "options", [{"min_unroll": 5}, {"gradient": "truncated", "truncate": 5}], ids=["min", "last"]
)
def test_a_limit_below_what_the_layer_was_made_with_survives_a_file(options, tmp_path):
    inputs = keras.Input((4,))
    layer = Iterate(keras.layers.Dense(4, activation="tanh"), 8, 1e-6, **options)
    model = keras.Model(inputs, layer(inputs))
    ki.set_depth(model, max_unroll=3)
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    x = np.ones((2, 4), np.float32)
    found, expected = ki.with_depth(loaded)(x), ki.with_depth(model)(x)
    np.testing.assert_array_equal(found["logits"], expected["logits"])
    assert found["depth"].numpy().ravel().tolist() == [3, 3]


def test_the_rule_does_not_count_below_min_unroll():
    layer = Iterate(keras.layers.Rescaling(0.5), 8, 1e3, min_unroll=5)
    end = layer.run_to(np.ones((1, 4), np.float32), 3, 1e3)
    assert (int(end.depth[0]), int(end.status[0])) == (3, Status.MAX_UNROLL)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Iterate(
                keras.layers.Dense(2), 5, Halting(keras.layers.Dense(1)), gradient="implicit"
            ),
            '`gradient="implicit"` is not for `Halting`',
        ),
        (lambda: Halting(keras.layers.Dense(1), 50), r"`threshold` must lie in \(0, 1\)"),
        (lambda: StablePrediction(keras.layers.Dense(2), float("inf")), "`threshold` must be"),
        (lambda: StablePrediction(keras.layers.Dense(2), "two"), "`threshold` must be"),
        (lambda: StablePrediction(keras.layers.Dense(2), 2.5), "Received: threshold=2.5"),
        (
            lambda: setattr(
                Iterate(keras.layers.Dense(2), 5, Halting(keras.layers.Dense(1))), "threshold", 1.5
            ),
            r"`threshold` must lie in \(0, 1\)",
        ),
        (lambda: Iterate(keras.layers.Dense(2), 5, "norm"), "`stop` must be a rule"),
        (
            lambda: ProgressiveIterate(keras.layers.Dense(2), returns=("states",)),
            "returns its state alone",
        ),
        (
            lambda: Iterate(keras.layers.Dense(4, dtype="float64"), 2)(np.ones((1, 4), "f")),
            r"structure, shapes and dtype of its state.*float64",
        ),
        (
            lambda: Iterate(keras.layers.Dense(5), 2)(np.ones((1, 4), "f")),
            r"must return the structure, shapes and dtype",
        ),
        (
            lambda: Iterate(TwoStates(), 2)(np.ones((1, 4), "f")),
            r"The update of .* cannot be called .* needs a layer as `initial_state`",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


class TwoStates(keras.layers.Layer):
    def call(self, state):
        return {"a": state["a"] * 0.5, "b": state["b"] * 0.5}


class OptionalInputs(keras.layers.Layer):
    def call(self, state, inputs=None):
        return 0.5 * state + (0 if inputs is None else inputs)


def test_inputs_with_a_default_are_given():
    np.testing.assert_allclose(Iterate(OptionalInputs(), 40)(np.ones((1, 2), "f")), 2, rtol=1e-5)


def test_a_sweep_takes_thresholds_of_the_rule():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for stop in (0.1, StablePrediction(keras.layers.Dense(2))):
        inputs = keras.Input((4,))
        state = Iterate(keras.layers.Rescaling(0.5), 5, stop)(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2)(state))
        points = ki.accuracy_by_depth(model, (x, np.zeros(6, int))).by_threshold
        updates = [point.updates for point in points]
        assert updates == sorted(updates)
        assert updates[0] < updates[-1]
        if stop != 0.1:  # The number of equal predictions in a row.
            assert all(point.threshold == int(point.threshold) >= 1 for point in points)


def test_onnx_refuses_a_block_of_several_results():

    inputs = keras.Input((1, 4, 1))
    x = keras.layers.Flatten()(inputs)
    x = Iterate(keras.layers.Dense(4), 3, returns=("states",))(x)["state"]
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    with pytest.raises(ValueError, match="must return their state alone to be exported to ONNX"):
        to_onnx(model, Preprocessing((0.0,), (1.0,)), {})


@pytest.mark.parametrize("masked", [False, True])
def test_a_fixed_depth_in_onnx(masked):

    inputs = keras.Input((6, 3, 1), name="image")
    x = keras.layers.Reshape((6, 3))(inputs)
    x = keras.layers.Masking(PADDING)(x) if masked else x
    x = Iterate(keras.layers.Dense(3, activation="tanh"), 4)(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(x)))
    written = to_onnx(fold(model), Preprocessing((0.0,), (1.0,)), {})
    session = onnxruntime.InferenceSession(
        written.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = padded()[..., np.newaxis]
    logits, depth, status = session.run(["logits", "depth", "status"], {"image": images})
    np.testing.assert_allclose(logits, model(images), rtol=1e-4, atol=1e-5)
    assert depth.ravel().tolist() == [4] * 4
    assert set(status.ravel()) == {int(Status.MAX_UNROLL)}


class Assigning(keras.layers.Layer):
    """An update whose `build` takes both shapes, and assigns to a weight that it made."""

    def build(self, state_shape, inputs_shape):
        shape = (inputs_shape[-1], state_shape[-1])
        self.kernel = self.add_weight(shape=shape, initializer="ones", name="kernel")
        self.kernel.assign(0.25 * self.kernel)

    def call(self, state, inputs):
        return 0.5 * state + inputs @ self.kernel


class Unbuilt(keras.layers.Layer):
    """An update without a `build` of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, dtype=self.dtype_policy)

    def call(self, state, inputs):
        return 0.5 * state + self.dense(inputs)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float32"])
def test_an_update_without_build_is_built_in_half_precision(policy):
    layer = Iterate(Unbuilt(dtype="mixed_bfloat16"), 3, dtype=policy)
    x = np.ones((2, 3), np.float32)
    # Keras warns of a layer that it cannot build, and warnings are errors here.
    assert np.isfinite(layer(x)).all()
    assert [tuple(each.shape) for each in layer.weights] == [(3, 3), (3,)]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("symbolic", [True, False])
def test_what_build_assigns_is_kept(tied, symbolic):
    start = keras.layers.Dense(5, kernel_initializer="zeros")
    layer = Iterate(Assigning(), 3, initial_state=start, tied=tied)
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    if symbolic:
        inputs = keras.Input((2,))
        got = keras.Model(inputs, layer(inputs))(x)
    else:
        got = layer(x)
    # 1 + 1/2 + 1/4 of what one update adds.
    expected = np.repeat(1.75 * 0.25 * x.sum(axis=1, keepdims=True), 5, axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
