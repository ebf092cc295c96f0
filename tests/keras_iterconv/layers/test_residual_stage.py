"""Residual blocks and stages against a NumPy net, stock Keras layers and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki

IMAGE = (5, 4)
FILTERS = 3
BLOCKS = 3
EPSILON = 1e-3


def scatter(layer, seed=0):
    """Give a layer statistics, scales and shifts as after some training."""
    rng = np.random.default_rng(seed)
    for number in (1, 2):
        for name, draw in (
            ("gamma", rng.uniform(0.5, 2, layer.gamma1.shape)),
            ("beta", rng.normal(size=layer.gamma1.shape)),
            ("mean", rng.normal(size=layer.gamma1.shape)),
            ("variance", rng.uniform(0.5, 2, layer.gamma1.shape)),
        ):
            getattr(layer, f"{name}{number}").assign(draw)
    return layer


def make_stage(**settings):
    stage = ki.ResidualStage(FILTERS, BLOCKS, **settings)
    stage.build((None, *IMAGE, FILTERS))
    return scatter(stage)


def images(samples=4, seed=1, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(samples, *IMAGE, FILTERS)).astype(dtype)


@pytest.fixture
def numpy_f(conv_matrix):
    """Return a function that evaluates f_t in float64 by dense matrices, without a cap."""

    def f(layer, t, z):
        def value(name):
            array = np.asarray(getattr(layer, name).numpy(), np.float64)
            return array if isinstance(layer, ki.ResidualBlock) else array[t]

        y = np.asarray(z, np.float64)
        for number in ("1", "2"):
            scale = value(f"gamma{number}") / np.sqrt(value(f"variance{number}") + EPSILON)
            y = np.maximum(scale * (y - value(f"mean{number}")) + value(f"beta{number}"), 0)
            matrix = conv_matrix(value(f"kernel{number}"), *IMAGE)
            y = (y.reshape(len(y), -1) @ matrix.T).reshape(y.shape)
        return y

    return f


def run(f, stage, x, schedule):
    """Run a stage's schedule in NumPy."""
    z = x = np.asarray(x, np.float64)
    for t in schedule:
        z = (z if stage.skip_from == "previous" else x) + f(stage, t, z)
    return z


def test_a_block_is_its_residual_function(numpy_f):
    block = ki.ResidualBlock(FILTERS)
    block.build((None, *IMAGE, FILTERS))
    scatter(block)
    assert block.kernel1.shape == (3, 3, FILTERS, FILTERS)
    expected = numpy_f(block, 0, images())
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(block(images()), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("skip_from", ["previous", "stage_input"])
@pytest.mark.parametrize(
    "schedule", [None, [0, 1], [], [0, 2], [0, 1, 2, 2, 2], (2, 0), [1, 1]], ids=str
)
def test_a_schedule_runs_these_blocks(numpy_f, skip_from, schedule):
    stage = make_stage(skip_from=skip_from)
    expected = run(numpy_f, stage, images(), range(BLOCKS) if schedule is None else schedule)
    got = stage(images(), schedule=schedule)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("skip_from", ["previous", "stage_input"])
def test_an_update_is_one_block(numpy_f, skip_from):
    stage = make_stage(skip_from=skip_from)
    x, z = images(), images(seed=2)
    for t in range(BLOCKS):
        expected = (z if skip_from == "previous" else x) + numpy_f(stage, t, z)
        for k in (t, tf.constant(t)):
            np.testing.assert_allclose(
                stage.update(z, x, k), expected, atol=1e-5 * np.abs(expected).max()
            )


@pytest.fixture
def stock():
    """Return a function that copies a stage into Keras's own layers."""

    def copy(stage, image=IMAGE):
        inputs = keras.Input((*image, FILTERS))
        state, made = inputs, []
        for t in range(stage.blocks):
            y, parts = state, []
            for number in ("1", "2"):
                norm = keras.layers.BatchNormalization(momentum=0.9)
                conv = keras.layers.Conv2D(FILTERS, 3, padding="same", use_bias=False)
                y = conv(keras.layers.ReLU()(norm(y)))
                conv.kernel.assign(getattr(stage, f"kernel{number}")[t])
                for name, weight in zip(
                    ("gamma", "beta", "mean", "variance"), norm.weights, strict=True
                ):
                    weight.assign(getattr(stage, f"{name}{number}")[t])
                parts += [norm, conv]
            skip = state if stage.skip_from == "previous" else inputs
            state = keras.layers.Add()([skip, y])
            made.append(parts)
        return keras.Model(inputs, state), made

    return copy


@pytest.mark.parametrize("skip_from", ["previous", "stage_input"])
def test_a_training_step_is_that_of_stock_layers(stock, skip_from):
    stage = make_stage(skip_from=skip_from)
    model, parts = stock(stage)
    weigh = images(seed=3)
    outputs, gradients = [], []
    for function, weights in (
        (stage, [stage.kernel1, stage.gamma1, stage.beta1, stage.kernel2, stage.gamma2]),
        (model, [w for p in parts for w in (p[1].kernel, *p[0].weights[:2], p[3].kernel,
                                            p[2].gamma)]),
    ):  # fmt: skip
        with tf.GradientTape() as tape:
            out = function(images(), training=True)
            loss = tf.reduce_sum(out * weigh)
        outputs.append(out)
        gradients.append(tape.gradient(loss, weights))
    np.testing.assert_allclose(*outputs, atol=1e-5 * np.abs(outputs[0]).max())
    for i, stacked in enumerate(gradients[0]):
        expected = np.stack(gradients[1][i::5])
        np.testing.assert_allclose(stacked, expected, atol=1e-5 * np.abs(expected).max())
    for t, (norm1, _, norm2, _) in enumerate(parts):
        for number, norm in (("1", norm1), ("2", norm2)):
            for name, weight in (("mean", norm.moving_mean), ("variance", norm.moving_variance)):
                moved = getattr(stage, name + number)[t]
                np.testing.assert_allclose(moved, weight, rtol=1e-5, atol=1e-6)


def test_a_block_that_runs_twice_moves_its_statistics_twice(numpy_f):
    twice, by_hand = make_stage(), make_stage()
    by_hand.set_weights(twice.get_weights())
    z = by_hand(images(), training=True, schedule=[1])
    by_hand(z, training=True, schedule=[1])
    twice(images(), training=True, schedule=[1, 1])
    for a, b in zip(twice.weights, by_hand.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(twice.mean1[1] - make_stage().mean1[1]).max() > 1e-3
    np.testing.assert_array_equal(twice.mean1[0], make_stage().mean1[0])


def test_frozen_layers_normalise_by_their_moving_statistics():
    stage = make_stage()
    expected = stage(images()).numpy()
    before = stage.get_weights()
    stage.trainable = False
    np.testing.assert_array_equal(stage(images(), training=True), expected)
    for a, b in zip(before, stage.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["kernel1", "gamma1", "beta2", "kernel2"])
def test_float64_gradients_are_those_of_finite_differences(training, name):
    keras.config.set_dtype_policy("float64")
    stage = make_stage()
    weight, x, weigh = getattr(stage, name), images(dtype=np.float64), images(seed=5)
    direction = np.random.default_rng(6).normal(size=weight.shape)
    start = weight.numpy()

    def loss(step):
        weight.assign(start + step * direction)
        return tf.reduce_sum(stage(x, training=training) * weigh)

    with tf.GradientTape() as tape:
        value = loss(0.0)
    slope = float(np.sum(tape.gradient(value, weight) * direction))
    h = 1e-6
    assert slope == pytest.approx(float(loss(h) - loss(-h)) / (2 * h), rel=1e-5)


def test_kernels_start_as_he_s_normal_of_their_own_fan():
    stage = ki.ResidualStage(32, 3)
    stage.build((None, 4, 4, 32))
    for kernel in (stage.kernel1, stage.kernel2):
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.02)
        assert np.abs(kernel[0] - kernel[1]).max() > 0.01
    np.testing.assert_array_equal(stage.gamma1, np.ones((3, 32)))


def test_a_shared_start_is_shared_within_a_kernel_only():
    stage = ki.ResidualStage(4, 3, shared_initialization=True, initial_gamma=0.1)
    stage.build((None, 4, 4, 4))
    for kernel in (stage.kernel1, stage.kernel2):
        assert np.ptp(kernel, axis=0).max() == 0
    assert np.abs(stage.kernel1 - stage.kernel2).max() > 0.01
    assert set(np.unique([stage.gamma1, stage.gamma2])) == {np.float32(0.1)}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_variables_and_statistics_in_float32(policy):
    reference = make_stage()
    weights = reference.get_weights()
    exact = reference(images(), training=True)
    keras.config.set_dtype_policy(policy)
    stage = make_stage(lipschitz_cap=0.95)
    plain = make_stage()
    for layer in (stage, plain):
        out = layer(images(), training=True)
        assert out.dtype == layer.compute_dtype
        assert {v.dtype for v in layer.weights} == {"float32"}
        assert np.isfinite(np.asarray(out, np.float32)).all()
        assert layer(images()).dtype == layer.compute_dtype
    plain.set_weights(weights)
    got = np.asarray(plain(images(), training=True), np.float32)
    tolerance = 0.02 if policy == "mixed_float16" else 0.1
    assert np.abs(got - exact).max() < tolerance * np.abs(exact).max()


def test_depth_and_status_count_blocks():
    x = images()
    x[1, 0, 0, 0] = np.nan
    inputs = keras.Input((*IMAGE, FILTERS))
    stage = make_stage()
    logits = keras.layers.GlobalAveragePooling2D()(stage(inputs))
    deep = ki.with_depth(ki.IterativeModel(inputs, logits))
    got = deep.predict(x, verbose=0)
    np.testing.assert_array_equal(got["depth"], np.full((4, 1), BLOCKS))
    np.testing.assert_array_equal(got["status"][:, 0], [1, 2, 1, 1])
    state, depth, status = stage(x, schedule=[0], return_depth=True)
    np.testing.assert_array_equal(state, stage(x, schedule=[0]))
    np.testing.assert_array_equal(depth, [1, 1, 1, 1])
    np.testing.assert_array_equal(status, [1, 2, 1, 1])


def test_inside_sequential_and_time_distributed():
    for layer in (ki.ResidualStage(FILTERS, 2), ki.ResidualBlock(FILTERS)):
        assert layer.compute_output_shape((None, *IMAGE, FILTERS)) == (None, *IMAGE, FILTERS)
        model = keras.Sequential([keras.Input((*IMAGE, FILTERS)), layer])
        frames = np.stack([images(), images(seed=2)], axis=1)
        got = keras.layers.TimeDistributed(layer)(frames)
        np.testing.assert_allclose(got[:, 1], model(frames[:, 1]), atol=1e-5)


def test_a_layer_comes_back_from_its_configuration():
    stage = ki.ResidualStage(4, 2, "stage_input", True, 0.9, 0.5, name="s")
    twin = ki.ResidualStage.from_config(stage.get_config())
    assert twin.get_config() == stage.get_config()
    assert (twin.blocks, twin.skip_from, twin.lipschitz_cap) == (2, "stage_input", 0.9)
    assert (twin.shared_initialization, twin.initial_gamma, twin.max_unroll) == (True, 0.5, 2)
    block = ki.ResidualBlock(4, 0.9, 0.5, name="b")
    assert ki.ResidualBlock.from_config(block.get_config()).get_config() == block.get_config()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 0}, "`blocks` must be an integer of at least 1. Received: blocks=0"),
        ({"blocks": None}, "`blocks` must be an integer of at least 1. Received: blocks=None"),
        ({"filters": 2.5}, "`filters` must .*Received: filters=2.5"),
        ({"skip_from": "input"}, "`skip_from` must be one of .*Did you mean 'stage_input'"),
        ({"lipschitz_cap": 0}, r"`lipschitz_cap` must lie in \(0, inf\).*lipschitz_cap=0"),
        ({"lipschitz_cap": -0.5}, "`lipschitz_cap` must .*Received: lipschitz_cap=-0.5"),
        ({"lipschitz_cap": float("nan")}, "`lipschitz_cap` must .*Received: lipschitz_cap=nan"),
        ({"initial_gamma": 0}, "`initial_gamma` must .*Received: initial_gamma=0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ki.ResidualStage(**{"filters": 4, "blocks": 2, **settings})


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({}, (2, 5, 5, 3), r"\[N, height, width, 4\].*Received: input_shape=\(2, 5, 5, 3\)"),
        ({}, (2, 5, 5), r"expected ndim=4|\[N, height, width, 4\]"),
        ({"lipschitz_cap": 0.9}, (None, None, 5, 4), "must have a known height and width"),
    ],
)
def test_bad_inputs(settings, shape, message):
    for layer in (ki.ResidualStage(4, 2, **settings), ki.ResidualBlock(4, **settings)):
        with pytest.raises(ValueError, match=message):
            layer(keras.Input(batch_shape=shape))


@pytest.mark.parametrize("schedule", [[3], [-1], [0.0], 2, "01", [True]])
def test_bad_schedules(schedule):
    with pytest.raises(ValueError, match="`schedule` must be a sequence of block numbers from 0"):
        make_stage()(images(), schedule=schedule)


def test_bad_updates():
    stage = make_stage()
    for k in (-1, BLOCKS):
        with pytest.raises(ValueError, match=f"`k` must be from 0 to {BLOCKS - 1}"):
            stage.update(images(), images(), k)


@pytest.mark.parametrize("settings", [{}, {"skip_from": "stage_input", "lipschitz_cap": 0.9}])
@pytest.mark.parametrize("graph", [False, True])
def test_recomputing_changes_no_gradient_and_no_statistic(settings, graph):
    results = []
    for gradient in ("unroll", "recompute"):
        keras.utils.set_random_seed(0)
        stage = make_stage(gradient=gradient, **settings)
        assert stage.get_config()["gradient"] == gradient

        def run(x, stage=stage):
            with tf.GradientTape() as tape:
                tape.watch(x)
                # A block twice: its gradients add up, and its statistics move twice.
                y = stage(x, training=True, schedule=[0, 1, 1, 2])
                loss = tf.reduce_sum(y * images(seed=3))
            return tape.gradient(loss, [x, *stage.trainable_variables])

        gradients = (tf.function(run) if graph else run)(tf.constant(images()))
        results.append([np.asarray(value) for value in (*gradients, *stage.variables)])
    for kept, recomputed in zip(*results, strict=True):
        np.testing.assert_allclose(recomputed, kept, rtol=1e-5, atol=1e-6 * np.abs(kept).max())


def test_an_unknown_gradient_is_refused():
    with pytest.raises(ValueError, match="`gradient`"):
        ki.ResidualStage(FILTERS, BLOCKS, gradient="frozen")
